//! Socket Mode (<https://docs.slack.dev/apis/events-api/using-socket-mode>): events, presses and
//! commands over a WebSocket, for gateways that Slack cannot reach. Of all nodes one listens for an app
//! at a time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::api::{self, By};
use super::interact::{self, Sealer};
use super::rest::keep;
use super::{KIND, Secrets, receive};
use crate::channel::tenants::for_each;
use crate::channel::{Account, Fault, Hub};
use crate::upstream::{Endpoint, Stream};

/// For how long a node has an app; it is prolonged three times as often.
const LEASE: Duration = Duration::from_secs(45);
/// Slack sends something within seconds; a connection that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A connection that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Listens for all apps with a token for it, for ever.
pub async fn poll(hub: Arc<Hub>) {
    for_each(hub, KIND, |hub, tenant| {
        Box::pin(async move { listen(&hub, &tenant).await })
    })
    .await;
}

/// The app's token, while the app is this node's to listen for.
async fn mine(hub: &Hub, tenant_id: &str) -> Option<String> {
    let account: Option<Account<Secrets>> = hub.account(tenant_id, KIND).await.ok()?;
    let token = account?.secrets.app_token?;
    hub.is_ours(KIND, tenant_id, LEASE).await.then_some(token)
}

/// Why a connection ended.
enum End {
    /// Slack asked for another one, or closed it.
    Again,
    /// The app is another node's, has another token, or none.
    NotMine,
}

/// Listens for one app, while it is this node's.
async fn listen(hub: &Hub, tenant_id: &str) {
    let mut pause = FIRST_PAUSE;
    while let Some(token) = mine(hub, tenant_id).await {
        let begun = Instant::now();
        let ended = match connect(hub, &token).await {
            Ok(socket) => hear(hub, tenant_id, &token, socket).await,
            Err(fault) => Err(fault),
        };
        let wait = match ended {
            Ok(End::NotMine) => return,
            Ok(End::Again) if begun.elapsed() >= GOOD => {
                pause = FIRST_PAUSE;
                continue;
            }
            Ok(End::Again) => pause,
            Err(fault) => {
                tracing::warn!(%fault, tenant_id, "Slack cannot be listened to");
                match fault {
                    Fault::Later { after, .. } => after.unwrap_or(pause).max(pause),
                    _ => pause,
                }
            }
        };
        // The lease outlives the pause, or another node would only fail as this one does.
        tokio::time::sleep(wait.min(LAST_PAUSE)).await;
        pause = match begun.elapsed() >= GOOD + wait {
            true => FIRST_PAUSE,
            false => (pause * 2).min(LAST_PAUSE),
        };
    }
}

/// Where Slack said to connect to. The address guard looks at it, unless it is the operator's own.
fn endpoint(hub: &Hub, url: &str) -> Result<Endpoint, String> {
    let own = Endpoint::parse(&hub.config.slack_url, true)?;
    let http = match url.split_once("://") {
        Some(("wss", rest)) => format!("https://{rest}"),
        Some(("ws", rest)) => format!("http://{rest}"),
        _ => return Err("it is no URL of a WebSocket".to_owned()),
    };
    let given = Endpoint::parse(&http, false)?;
    match given.is_same_server(&own) {
        true => Endpoint::parse(&http, true),
        false if http.starts_with("https://") => Ok(given),
        false => Err("it is not encrypted".to_owned()),
    }
}

async fn connect(hub: &Hub, token: &str) -> Result<WebSocketStream<Stream>, Fault> {
    let opened = api::form(hub, By::Token(token), "apps.connections.open", &[]).await;
    let opened = api::asked(opened)?;
    let url = opened["url"].as_str().unwrap_or_default();
    // Its query lets whoever has it listen: it is in no message.
    let bad = |why: String| Fault::later(format!("Slack's socket cannot be reached: {why}"));
    let endpoint = endpoint(hub, url).map_err(bad)?;
    let request = url.into_client_request();
    let request = request.map_err(|_| bad("its URL is none".to_owned()))?;
    let connected = async {
        let stream = hub.upstream.connect(&endpoint, CONNECT_WITHIN).await;
        let stream = stream.map_err(|error| bad(error.about("Slack")))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let made = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        let (socket, _) = made.await.map_err(|_| bad("no handshake".to_owned()))?;
        Ok(socket)
    };
    let late = || Err(bad("it took too long".to_owned()));
    tokio::time::timeout(CONNECT_WITHIN * 2, connected)
        .await
        .unwrap_or_else(|_| late())
}

/// Keeps what comes, and then says that it is kept.
async fn hear(
    hub: &Hub,
    tenant_id: &str,
    token: &str,
    mut socket: WebSocketStream<Stream>,
) -> Result<End, Fault> {
    let lost = |_| Fault::later("the connection to Slack was lost");
    let mut interval = tokio::time::interval(LEASE / 3);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            _ = interval.tick() => {
                if mine(hub, tenant_id).await.as_deref() != Some(token) {
                    let _ = socket.close(None).await;
                    return Ok(End::NotMine);
                }
                if heard.elapsed() > SILENCE {
                    return Err(Fault::later("Slack has been silent for too long"));
                }
                socket.send(Message::Ping(Bytes::new())).await.map_err(lost)?;
                continue;
            }
        };
        heard = Instant::now();
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            // Pings are answered by the library.
            Some(Ok(Message::Close(_))) | None => return Ok(End::Again),
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(lost(error)),
        };
        let envelope: Value = serde_json::from_str(text.as_str()).unwrap_or_default();
        match envelope["type"].as_str().unwrap_or_default() {
            "hello" => tracing::info!(tenant_id, "Slack is listened to"),
            "disconnect" => {
                let reason = envelope["reason"].as_str().unwrap_or_default();
                let _ = socket.close(None).await;
                return match reason {
                    "link_disabled" => Err(Fault::later("Socket Mode is switched off in Slack")),
                    _ => Ok(End::Again),
                };
            }
            kind => {
                let Some(id) = envelope["envelope_id"].as_str() else {
                    continue;
                };
                // What is not kept is not acknowledged, and comes again.
                taken(hub, tenant_id, kind, &envelope).await?;
                let mut answer = json!({ "envelope_id": id });
                if kind == "slash_commands" && envelope["accepts_response_payload"] == json!(true) {
                    answer["payload"] = json!({ "response_type": "in_channel" });
                }
                let answer = Message::text(answer.to_string());
                socket.send(answer).await.map_err(lost)?;
            }
        }
    }
}

async fn taken(hub: &Hub, tenant_id: &str, kind: &str, envelope: &Value) -> Result<(), Fault> {
    let payload = envelope["payload"].clone();
    let sealer = Sealer { hub, tenant_id };
    let arrival = match kind {
        "events_api" => receive::arrival(payload),
        "interactive" => interact::arrival(Some(&sealer), payload),
        "slash_commands" => interact::command_arrival(Some(&sealer), payload),
        _ => None,
    };
    let retry = envelope["retry_attempt"].as_u64().filter(|n| *n > 0);
    let retry = retry.map(|num| json!({ "num": num, "reason": envelope["retry_reason"] }));
    if let Some(arrival) = arrival {
        keep(hub, tenant_id, arrival, retry).await?;
    }
    Ok(())
}
