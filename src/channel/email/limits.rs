//! What the connections of other mail servers share, and each of them may take.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::config::Email;

const MINUTE: Duration = Duration::from_secs(60);
/// Addresses that are remembered; those that are quiet are forgotten first.
const MAX_ADDRESSES: usize = 10_000;
/// Memory is counted in units of so many bytes.
pub const UNIT: usize = 64 * 1024;

/// What connections share.
pub struct Limits {
    pub connections: Arc<Semaphore>,
    pub memory: Arc<Semaphore>,
    addresses: Mutex<HashMap<IpAddr, Address>>,
    most_connections: usize,
    most_messages: u32,
}

struct Address {
    connections: usize,
    /// Messages since then.
    messages: u32,
    since: Instant,
}

impl Limits {
    /// Of a configuration.
    pub fn new(config: &Email) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(config.max_connections)),
            memory: Arc::new(Semaphore::new(config.max_bytes_in_flight.div_ceil(UNIT))),
            addresses: Mutex::default(),
            most_connections: config.max_connections_per_address,
            most_messages: config.max_messages_per_minute,
        }
    }

    /// Lets an address have one connection more; `false`: it has as many as it may.
    pub fn enter(&self, address: IpAddr) -> bool {
        let mut addresses = self.addresses.lock();
        if addresses.len() >= MAX_ADDRESSES {
            addresses.retain(|_, one| one.connections > 0 || one.since.elapsed() < MINUTE);
        }
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&address) {
            return false;
        }
        let one = addresses.entry(address).or_insert_with(|| Address {
            connections: 0,
            messages: 0,
            since: Instant::now(),
        });
        let may = one.connections < self.most_connections;
        one.connections += usize::from(may);
        may
    }

    pub fn leave(&self, address: IpAddr) {
        if let Some(one) = self.addresses.lock().get_mut(&address) {
            one.connections = one.connections.saturating_sub(1);
        }
    }

    /// Counts a message; `false`: it is one too many.
    pub fn count(&self, address: IpAddr) -> bool {
        let mut addresses = self.addresses.lock();
        let Some(one) = addresses.get_mut(&address) else {
            return true;
        };
        if one.since.elapsed() >= MINUTE {
            (one.since, one.messages) = (Instant::now(), 0);
        }
        one.messages = one.messages.saturating_add(1);
        one.messages <= self.most_messages
    }
}

/// Who is counted as one: an address, of IPv6 the network that one customer has.
pub fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !((1_u128 << 64) - 1);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 => v4,
    }
}
