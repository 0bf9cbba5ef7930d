//! Listeners and their life: plain (HTTP/1.1 and h2c), TLS (HTTP/1.1 and HTTP/2), metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::http_app::HttpServer;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::listeners::{L4BufferSettings, ListenerConfig};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::edge::{Acceptor, App, MetricsApp};
use crate::gateway::{Gateway, StartError};
use crate::routes;

/// What is read at once of a TLS connection: its largest record.
const TLS_READ_BYTES: usize = 16 * 1024;

/// Each connection's room, for as long as it is open, in which a header and a short answer, or a
/// chunk's length and its text, become one write. What is longer is written past it.
const WRITE_BYTES: usize = 1024;

/// Running listeners.
pub struct Server {
    gateway: Arc<Gateway>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens the configured listeners.
    pub async fn start(gateway: Arc<Gateway>) -> Result<Self, StartError> {
        let (stop, stopped) = watch::channel(false);
        let config = &gateway.config;
        check_free("server.listen", config.server.listen)?;
        gateway.begin_serving().await?;
        let header_time = Duration::from_secs(config.server.keepalive_timeout_s);
        let most = config.server.max_connections;
        let app = Acceptor::new(
            App::new(gateway.clone(), routes::of(gateway.clone())),
            header_time,
            most,
        );
        let mut service = Service::new("smithgate".to_owned(), app);
        service.add_listener(
            ListenerConfig::tcp(config.server.listen.to_string())
                // What is read goes into the request's own buffers anyway.
                .l4_buffer(L4BufferSettings::new(0, WRITE_BYTES)),
        );
        if let Some(tls) = &config.server.tls {
            check_free("server.tls.listen", tls.listen)?;
            let mut settings =
                TlsSettings::intermediate(&tls.cert.to_string_lossy(), &tls.key.to_string_lossy())
                    .map_err(|e| StartError::Config(format!("server.tls: {e}")))?;
            settings.enable_h2();
            service.add_listener(
                ListenerConfig::tcp(tls.listen.to_string())
                    .tls(settings)
                    .l4_buffer(L4BufferSettings::default().read(TLS_READ_BYTES)),
            );
        }
        let mut tasks = Vec::new();
        let app_stopped = stopped.clone();
        tasks.push(tokio::spawn(async move {
            service.start_service(None, app_stopped, 1).await;
        }));
        if let Some(listen) = config.metrics.listen {
            check_free("metrics.listen", listen)?;
            let app = HttpServer::new_app(MetricsApp {
                gateway: gateway.clone(),
            });
            let mut service = Service::new("metrics".to_owned(), app);
            service.add_tcp(&listen.to_string());
            tasks.push(tokio::spawn(async move {
                service.start_service(None, stopped, 1).await;
            }));
        }
        wait_until_open(config.server.listen).await?;
        Ok(Self {
            gateway,
            stop,
            tasks,
        })
    }

    /// Drains, then closes the listeners. New requests are answered 503 in the meantime.
    pub async fn stop(self) {
        self.gateway.drain().await;
        // Nobody listens any more when the receivers are gone, which is as good.
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// Pingora panics on an address that it cannot have; this names the key instead.
fn check_free(key: &'static str, address: SocketAddr) -> Result<(), StartError> {
    std::net::TcpListener::bind(address)
        .map(drop)
        .map_err(|source| StartError::Listen {
            key,
            address,
            source,
        })
}

/// Pingora opens its listeners in a task of their own, and tells nobody when it cannot.
async fn wait_until_open(address: SocketAddr) -> Result<(), StartError> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut target = address;
    if target.ip().is_unspecified() {
        target.set_ip(match target {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let begun = tokio::time::Instant::now();
    loop {
        #[expect(
            clippy::disallowed_methods,
            reason = "the listener of this very process"
        )]
        let connected = tokio::net::TcpStream::connect(target).await;
        match connected {
            Ok(_) => return Ok(()),
            Err(source) if begun.elapsed() > PATIENCE => {
                return Err(StartError::Listen {
                    key: "server.listen",
                    address,
                    source,
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}
