//! The Gateway (<https://docs.discord.com/developers/events/gateway>): messages to the bot, and
//! interactions where no endpoint for them is set, over a WebSocket. Of all nodes one listens for an
//! application at a time; should two do so for a moment, what comes twice is kept once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

use super::receive::{Taken, taken};
use super::{KIND, Secrets, api, message, place};
use crate::channel::tenants::for_each;
use crate::channel::{Account, Fault, Hub};
use crate::upstream::{Endpoint, Stream};

/// For how long a node has an application; it is prolonged three times as often.
const LEASE: Duration = Duration::from_secs(45);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const HELLO_WITHIN: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// What another token or another setting must mend is not tried sooner.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);
/// A connection that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(30);
/// The beat that Discord asks for, whatever it says.
const BEATS: std::ops::RangeInclusive<u64> = 1_000..=120_000;
/// So many of a day's sessions are left to whoever mends what is wrong.
const SESSIONS_KEPT: u64 = 50;
const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// Messages in channels and to the bot alone: neither needs a privilege, for what is said to the bot is
/// shown to it (<https://docs.discord.com/developers/events/gateway#message-content-intent>).
const INTENTS: u64 = (1 << 9) | (1 << 12);

/// Listens for all applications that want it, for ever.
pub async fn listen_to_all(hub: Arc<Hub>) {
    for_each(hub, KIND, |hub, tenant| {
        Box::pin(async move { listen(&hub, &tenant).await })
    })
    .await;
}

/// The account, while it is this node's to listen for.
async fn mine(hub: &Hub, tenant_id: &str) -> Option<Account<Secrets>> {
    let account: Option<Account<Secrets>> = hub.account(tenant_id, KIND).await.ok()?;
    let account = account.filter(|account| account.settings["gateway"] == json!(true))?;
    hub.is_ours(KIND, tenant_id, LEASE).await.then_some(account)
}

/// A session, which goes on over connections
/// (<https://docs.discord.com/developers/events/gateway#resuming>).
#[derive(Debug, Default)]
struct Session {
    /// Its id, and where it goes on.
    known: Option<(String, String)>,
    /// The number of the last event that is kept.
    seq: Option<u64>,
    /// The bot's own id.
    bot: String,
}

/// Why a connection ended.
enum End {
    /// Another one goes on, or begins anew.
    Again,
    /// The application is another node's, has another token, or is not listened for.
    NotMine,
    /// Discord refuses it, and will.
    Refused(String),
}

/// Listens for one application, while it is this node's.
async fn listen(hub: &Hub, tenant_id: &str) {
    let mut pause = FIRST_PAUSE;
    let mut session = Session::default();
    while let Some(account) = mine(hub, tenant_id).await {
        let begun = Instant::now();
        let ended = match connect(hub, &account.secrets, &session).await {
            Ok(socket) => hear(hub, tenant_id, &account, &mut session, socket).await,
            Err(fault) => {
                // Where it would go on may be gone.
                session.known = None;
                Err(fault)
            }
        };
        let is_good = begun.elapsed() >= GOOD;
        let wait = match ended {
            Ok(End::NotMine) => return,
            Ok(End::Again) if is_good => FIRST_PAUSE,
            Ok(End::Again) => pause,
            Ok(End::Refused(why)) => {
                tracing::warn!(why, tenant_id, "Discord refuses to be listened to");
                wait_while_mine(hub, tenant_id, &account, REFUSED_PAUSE).await;
                continue;
            }
            Err(fault) => {
                tracing::warn!(%fault, tenant_id, "Discord cannot be listened to");
                match fault {
                    Fault::Later { after, .. } => after.unwrap_or(pause).max(pause),
                    _ => LAST_PAUSE,
                }
            }
        };
        // The lease outlives the pause, or another node would only fail as this one does.
        tokio::time::sleep(wait.min(LAST_PAUSE)).await;
        pause = match is_good {
            true => FIRST_PAUSE,
            false => (pause * 2).min(LAST_PAUSE),
        };
    }
}

/// Waits, but no longer than the account is as it was.
async fn wait_while_mine(hub: &Hub, tenant_id: &str, account: &Account<Secrets>, long: Duration) {
    let until = Instant::now() + long;
    while Instant::now() < until {
        tokio::time::sleep(LEASE / 3).await;
        let now = mine(hub, tenant_id).await;
        let is_same = |now: &Account<Secrets>| now.secrets.bot_token == account.secrets.bot_token;
        if !now.as_ref().is_some_and(is_same) {
            return;
        }
    }
}

fn bad(why: impl std::fmt::Display) -> Fault {
    Fault::later(format!("Discord's Gateway cannot be reached: {why}"))
}

/// The server of a socket. Where an emulator of the operator's stands in, its own is trusted; all others
/// are Discord's, with TLS, and the address guard looks at them.
fn endpoint(hub: &Hub, url: &str) -> Result<Endpoint, Fault> {
    let own = Endpoint::parse(&hub.config.discord_url, true).map_err(bad)?;
    let http = match url.split_once("://") {
        Some(("wss", rest)) => format!("https://{rest}"),
        Some(("ws", rest)) => format!("http://{rest}"),
        _ => return Err(bad("its address is no WebSocket's")),
    };
    let given = Endpoint::parse(&http, false).map_err(bad)?;
    match given.is_same_server(&own) {
        true => Endpoint::parse(&http, true).map_err(bad),
        false if http.starts_with("https://") || hub.config.discord_url.starts_with("http://") => {
            Ok(given)
        }
        false => Err(bad("its address is without TLS")),
    }
}

async fn connect(
    hub: &Hub,
    secrets: &Secrets,
    session: &Session,
) -> Result<WebSocketStream<Stream>, Fault> {
    let url = match &session.known {
        Some((_, url)) => url.clone(),
        None => {
            let who = api::As::Bot(secrets);
            let found = api::call(hub, who, Method::GET, "/gateway/bot", "the Gateway", None);
            let found = found.await.map_err(|refused| refused.fault)?;
            // Who begins too many sessions a day loses their token.
            let left = found["session_start_limit"]["remaining"].as_u64();
            if left.is_some_and(|left| left < SESSIONS_KEPT) {
                return Err(bad("hardly any session is left for today"));
            }
            found["url"].as_str().unwrap_or_default().to_owned()
        }
    };
    let endpoint = endpoint(hub, &url)?;
    let url = format!("{}/?v=10&encoding=json", url.trim_end_matches('/'));
    let request = url
        .into_client_request()
        .map_err(|_| bad("its address is none"))?;
    let connected = async {
        let stream = hub.upstream.connect(&endpoint, CONNECT_WITHIN).await;
        let stream = stream.map_err(|error| bad(error.about("Discord")))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let made = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        let (socket, _) = made.await.map_err(|_| bad("no handshake"))?;
        Ok(socket)
    };
    tokio::time::timeout(CONNECT_WITHIN * 2, connected)
        .await
        .unwrap_or_else(|_| Err(bad("it took too long")))
}

/// What Discord says by closing
/// (<https://docs.discord.com/developers/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes>).
fn closed(frame: Option<&CloseFrame>, session: &mut Session) -> End {
    let code = frame.map_or(1006, |frame| u16::from(frame.code));
    match code {
        4004 | 4010..=4014 => {
            let reason = frame
                .map(|frame| frame.reason.to_string())
                .unwrap_or_default();
            End::Refused(format!("{reason} ({code})"))
        }
        // The session is over.
        1000 | 1001 | 4007 | 4009 => {
            session.known = None;
            End::Again
        }
        _ => End::Again,
    }
}

type Socket = WebSocketStream<Stream>;

async fn say(socket: &mut Socket, op: u64, data: &Value) -> Result<(), Fault> {
    let text = json!({ "op": op, "d": data }).to_string();
    let sent = socket.send(Message::text(text)).await;
    sent.map_err(|_| Fault::later("the connection to Discord was lost"))
}

/// Who listens, or which session goes on.
async fn greet(socket: &mut Socket, secrets: &Secrets, session: &Session) -> Result<(), Fault> {
    const IDENTIFY: u64 = 2;
    const RESUME: u64 = 6;
    let token = &secrets.bot_token;
    match (&session.known, session.seq) {
        (Some((id, _)), Some(seq)) => {
            let data = json!({ "token": token, "session_id": id, "seq": seq });
            say(socket, RESUME, &data).await
        }
        _ => {
            let name = env!("CARGO_PKG_NAME");
            let properties = json!({ "os": "linux", "browser": name, "device": name });
            let data = json!({ "token": token, "intents": INTENTS, "properties": properties });
            say(socket, IDENTIFY, &data).await
        }
    }
}

/// Keeps what comes, for as long as the connection lasts.
async fn hear(
    hub: &Hub,
    tenant_id: &str,
    account: &Account<Secrets>,
    session: &mut Session,
    mut socket: Socket,
) -> Result<End, Fault> {
    const HEARTBEAT: u64 = 1;
    let mut lease = tokio::time::interval(LEASE / 3);
    lease.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Until it is told how often.
    let mut beat = tokio::time::interval(HELLO_WITHIN);
    beat.tick().await;
    let (mut is_greeted, mut is_heard) = (false, false);
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            _ = lease.tick() => {
                let now = mine(hub, tenant_id).await;
                let is_same = now.is_some_and(|now| now.secrets.bot_token == account.secrets.bot_token);
                if !is_same {
                    let _ = socket.close(None).await;
                    return Ok(End::NotMine);
                }
                continue;
            }
            _ = beat.tick() => {
                if !is_heard {
                    return Err(Fault::later("Discord has been silent for too long"));
                }
                is_heard = false;
                say(&mut socket, HEARTBEAT, &json!(session.seq)).await?;
                continue;
            }
        };
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(frame))) => return Ok(closed(frame.as_ref(), session)),
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => return Ok(End::Again),
        };
        let event: Value = serde_json::from_str(text.as_str()).unwrap_or_default();
        match event["op"].as_u64() {
            Some(0) => {
                taken_up(hub, tenant_id, session, &event).await?;
                // Only what is kept is not asked for again.
                session.seq = event["s"].as_u64().or(session.seq);
            }
            Some(HEARTBEAT) => say(&mut socket, HEARTBEAT, &json!(session.seq)).await?,
            // The session goes on with another connection.
            Some(7) => {
                drop(socket);
                return Ok(End::Again);
            }
            Some(9) => {
                if event["d"] != json!(true) {
                    (session.known, session.seq) = (None, None);
                }
                drop(socket);
                return Ok(End::Again);
            }
            Some(10) if !is_greeted => {
                is_greeted = true;
                let every = event["d"]["heartbeat_interval"].as_u64().unwrap_or(41_250);
                let every = Duration::from_millis(every.clamp(*BEATS.start(), *BEATS.end()));
                beat = tokio::time::interval(every);
                beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
                beat.tick().await;
                is_heard = true;
                greet(&mut socket, &account.secrets, session).await?;
            }
            Some(11) => is_heard = true,
            _ => {}
        }
    }
}

/// Keeps what an event is about.
async fn taken_up(
    hub: &Hub,
    tenant_id: &str,
    session: &mut Session,
    event: &Value,
) -> Result<(), Fault> {
    let data = &event["d"];
    match event["t"].as_str().unwrap_or_default() {
        "READY" => {
            let id = data["session_id"].as_str().unwrap_or_default().to_owned();
            let url = data["resume_gateway_url"].as_str().unwrap_or_default();
            session.known =
                Some((id, url.to_owned())).filter(|(id, url)| !id.is_empty() && !url.is_empty());
            data["user"]["id"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut session.bot);
            tracing::info!(tenant_id, "Discord is listened to");
        }
        "INTERACTION_CREATE" => interaction(hub, tenant_id, data).await?,
        kind => {
            if let Some(arrival) = message::arrival(kind, data, &session.bot) {
                hub.accept(tenant_id, KIND, arrival).await?;
            }
        }
    }
    Ok(())
}

/// Keeps an interaction, and then answers it as the endpoint would
/// (<https://docs.discord.com/developers/interactions/receiving-and-responding#create-interaction-response>).
async fn interaction(hub: &Hub, tenant_id: &str, data: &Value) -> Result<(), Fault> {
    let id = data["id"].as_str().filter(|id| place::is_id(id));
    let token = data["token"].as_str().unwrap_or_default().to_owned();
    let seal = |token: &str| place::seal(hub, tenant_id, token);
    let answer = match taken(data.clone(), seal) {
        Ok(Some(Taken::Kept(arrival, answer))) => {
            hub.accept(tenant_id, KIND, *arrival).await?;
            answer
        }
        Ok(Some(Taken::Answered(answer))) => answer,
        Ok(None) | Err(_) => return Ok(()),
    };
    let Some(id) = id else {
        return Ok(());
    };
    let path = format!("/interactions/{id}/{token}/callback");
    let who = api::As::Interaction;
    let told = api::call(
        hub,
        who,
        Method::POST,
        &path,
        "the first answer",
        Some((&answer).into()),
    )
    .await;
    if let Err(refused) = told {
        // After a connection that broke it may be answered already.
        tracing::info!(error = %refused.fault, "an interaction is not answered");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_discord_says_by_closing() {
        let mut session = Session {
            known: Some(("s".to_owned(), "wss://g".to_owned())),
            seq: Some(3),
            bot: "1".to_owned(),
        };
        let frame = |code: u16| CloseFrame {
            code: code.into(),
            reason: "Authentication failed.".into(),
        };
        assert!(matches!(closed(None, &mut session), End::Again));
        assert!(matches!(
            closed(Some(&frame(4000)), &mut session),
            End::Again
        ));
        assert!(session.known.is_some());
        let refused = closed(Some(&frame(4004)), &mut session);
        assert!(matches!(refused, End::Refused(why) if why == "Authentication failed. (4004)"));
        assert!(matches!(
            closed(Some(&frame(4009)), &mut session),
            End::Again
        ));
        assert!(session.known.is_none());
    }
}
