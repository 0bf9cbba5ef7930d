//! The listener: who may connect, and how much all of them together may take.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::tls::{
    ServerConfig, TlsAcceptor, install_default_crypto_provider, load_certs_and_key_files,
};
use tokio::net::{TcpListener, TcpStream};

use super::limits::{Limits, counted};
use super::session;
use crate::channel::Hub;
use crate::config::Email;

const AFTER_FAULT: Duration = Duration::from_secs(5);
/// Takes mail from other servers, for ever; nothing where no address is configured.
pub async fn listen(hub: Arc<Hub>) {
    let Some(address) = hub.config.email.listen else {
        return;
    };
    let limits = Arc::new(Limits::new(&hub.config.email));
    loop {
        let began = async {
            let tls = acceptor(&hub.config.email)?;
            let listener = TcpListener::bind(address).await;
            listener
                .map(|listener| (tls, listener))
                .map_err(|error| error.to_string())
        };
        match began.await {
            Ok((tls, listener)) => {
                tracing::info!(%address, "listening for mail");
                serve(&hub, &limits, tls, &listener).await;
            }
            Err(error) => tracing::error!(%address, error, "no mail can be listened for"),
        }
        tokio::time::sleep(AFTER_FAULT).await;
    }
}

fn acceptor(config: &Email) -> Result<Option<TlsAcceptor>, String> {
    let Some((cert, key)) = config.tls_cert.as_ref().zip(config.tls_key.as_ref()) else {
        return Ok(None);
    };
    install_default_crypto_provider();
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let loaded = load_certs_and_key_files(&cert, &key).map_err(|error| error.to_string())?;
    let (certs, key) = loaded.ok_or("channels.email.tls_cert and tls_key hold no pair")?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .map_err(|error| error.to_string())?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

async fn serve(
    hub: &Arc<Hub>,
    limits: &Arc<Limits>,
    tls: Option<TlsAcceptor>,
    listener: &TcpListener,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of files that ran out some are free again soon.
                tracing::warn!(%error, "a connection for mail was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let permit = limits.connections.clone().try_acquire_owned();
        let one = counted(peer.ip());
        let entered = permit.is_ok() && limits.enter(one);
        let (hub, limits, tls) = (hub.clone(), limits.clone(), tls.clone());
        tokio::spawn(async move {
            if !entered {
                refuse(stream, &hub.config.email.hostname).await;
                return;
            }
            let _entered = Entered(&limits, one);
            session::run(&hub, &limits, tls, stream, peer.ip()).await;
            drop(permit);
        });
    }
}

/// A place that is given back, whatever happens.
struct Entered<'a>(&'a Limits, IpAddr);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

async fn refuse(mut stream: TcpStream, hostname: &str) {
    let reply = format!("421 4.7.0 {hostname} Too many connections, try again later\r\n");
    let writing = tokio::io::AsyncWriteExt::write_all(&mut stream, reply.as_bytes());
    let _ = tokio::time::timeout(Duration::from_secs(1), writing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_so_many_connections_and_messages() {
        let config = Email {
            max_connections_per_address: 2,
            max_messages_per_minute: 3,
            ..Email::default()
        };
        let limits = Limits::new(&config);
        let ann: IpAddr = "203.0.113.1".parse().expect("an address");
        let bob: IpAddr = "203.0.113.2".parse().expect("an address");
        assert!(limits.enter(ann) && limits.enter(ann) && !limits.enter(ann));
        assert!(limits.enter(bob));
        limits.leave(ann);
        assert!(limits.enter(ann));
        assert_eq!(
            [(); 4].map(|()| limits.count(ann)),
            [true, true, true, false]
        );
        assert!(limits.count(bob));
        let v6 = |text: &str| counted(text.parse().expect("an address"));
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff"));
        assert_eq!(v6("::ffff:203.0.113.1"), ann);
    }
}
