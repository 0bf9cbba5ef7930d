//! Processes of this bench: each measured server runs in one of its own.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

pub type Failure = Box<dyn std::error::Error>;

/// A process that ends with this one.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap_or_default()
    }

    /// Resident memory, in KiB.
    pub fn resident(&self) -> u64 {
        self.proc("status")
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    }

    /// Time on the processors so far, of all threads.
    pub fn busy(&self) -> Duration {
        let stat = self.proc("stat");
        // Behind the name, which may hold spaces: user and system time are fields 14 and 15.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        // USER_HZ is 100 on every Linux.
        Duration::from_millis(ticks * 10)
    }
}

/// An address that nobody listens on.
pub fn free_address() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// Waits until somebody listens.
pub fn wait_for(address: SocketAddr, patience: Duration) -> Result<(), Failure> {
    let started = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        if started.elapsed() > patience {
            return Err(format!("nothing listens on {address}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// This program again, in another role.
pub fn role(args: &[String]) -> Result<Process, Failure> {
    Ok(Process(
        Command::new(std::env::current_exe()?).args(args).spawn()?,
    ))
}

/// A bare Pingora pass-through to `provider`, and where it listens.
pub fn passthrough(provider: SocketAddr, threads: usize) -> Result<(SocketAddr, Process), Failure> {
    let listen = free_address()?;
    let process = role(&[
        "role-passthrough".to_owned(),
        listen.to_string(),
        provider.to_string(),
        threads.to_string(),
    ])?;
    wait_for(listen, Duration::from_secs(10))?;
    Ok((listen, process))
}
