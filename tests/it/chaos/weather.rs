//! What stands in front of platforms on a bad day: it answers 429 and 500 in their stead, and cuts
//! connections before they were asked and after they have answered. What they took is written down.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::Dice;

/// A call is refused so often at most: what is tried again at growing pauses has to end in time.
const MOST_REFUSALS: usize = 3;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Taken,
    /// 429, and not handled.
    Busy,
    /// 500, and not handled.
    Broken,
    /// The connection is cut, and it was not handled.
    CutBefore,
    /// It was handled, and the connection is cut.
    CutAfter,
}

/// A message as people see it now.
#[derive(Debug, Clone)]
pub struct Shown {
    pub text: String,
    /// What the platform, or who reads it, knows a second one of the same by.
    pub key: Option<String>,
    /// The place among all, by when it first appeared.
    pub order: usize,
}

/// The weather that platforms are in.
pub struct Weather {
    dice: Dice,
    pub is_fair: AtomicBool,
    refusals: Mutex<HashMap<String, usize>>,
    /// Messages by their names, which begin with their platform's.
    shown: Mutex<BTreeMap<String, Shown>>,
    /// What WhatsApp has taken and not told yet: a message's name, and the key that it came with.
    pub untold: Mutex<VecDeque<(String, Value)>>,
    appeared: AtomicUsize,
    pub busy: AtomicUsize,
    pub broken: AtomicUsize,
    pub cut: AtomicUsize,
}

/// A request as it came.
struct Asked {
    method: reqwest::Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer as it goes.
struct Answered {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Weather {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            dice: Dice::new(seed),
            is_fair: AtomicBool::new(true),
            refusals: Mutex::default(),
            shown: Mutex::default(),
            untold: Mutex::default(),
            appeared: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
        })
    }

    /// What becomes of a call that is known by `about`.
    fn fate(&self, about: &str) -> Fate {
        if self.is_fair.load(Ordering::Relaxed) {
            return Fate::Taken;
        }
        let fate = match self.dice.below(100) {
            0..9 => Fate::Busy,
            9..17 => Fate::Broken,
            17..21 => Fate::CutBefore,
            21..25 => Fate::CutAfter,
            _ => Fate::Taken,
        };
        let mut refusals = self.refusals.lock();
        let refused = refusals.entry(about.to_owned()).or_default();
        if *refused >= MOST_REFUSALS {
            return Fate::Taken;
        }
        let counter = match fate {
            Fate::Taken => return fate,
            Fate::Busy => &self.busy,
            Fate::Broken => &self.broken,
            Fate::CutBefore | Fate::CutAfter => &self.cut,
        };
        *refused += 1;
        counter.fetch_add(1, Ordering::Relaxed);
        fate
    }

    /// All messages that people see, with their names.
    pub fn shown(&self) -> Vec<(String, Shown)> {
        let shown = self.shown.lock();
        shown
            .iter()
            .map(|(name, shown)| (name.clone(), shown.clone()))
            .collect()
    }

    fn show(&self, name: String, text: &Value, key: Option<&str>) {
        let text = text.as_str().unwrap_or_default().to_owned();
        let mut shown = self.shown.lock();
        let order = self.appeared.fetch_add(1, Ordering::Relaxed);
        let one = shown.entry(name).or_insert(Shown {
            text: String::new(),
            key: key.map(str::to_owned),
            order,
        });
        one.text = text;
    }

    fn take_away(&self, name: &str) {
        self.shown.lock().remove(name);
    }

    /// Writes down what a platform took.
    fn note(&self, kind: &str, asked: &Asked, answer: &[u8]) {
        let said: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let path: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
        let named = |id: &Value| {
            let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
            format!("{kind}/{id}")
        };
        match (kind, path.as_slice()) {
            ("telegram", [.., "sendMessage"]) => {
                self.show(named(&answer["result"]["message_id"]), &said["text"], None);
            }
            ("telegram", [.., "editMessageText"]) => {
                self.show(named(&said["message_id"]), &said["text"], None);
            }
            ("slack", [.., method]) if answer["ok"] == true => match *method {
                "chat.postMessage" => {
                    let key = said["client_msg_id"].as_str();
                    self.show(named(&answer["ts"]), &said["text"], key);
                }
                "chat.update" => self.show(named(&said["ts"]), &said["text"], None),
                "chat.delete" => self.take_away(&named(&said["ts"])),
                _ => {}
            },
            ("whatsapp", [.., "messages"]) if said["type"] == "text" => {
                let id = &answer["messages"][0]["id"];
                self.show(named(id), &said["text"]["body"], None);
                let told = (
                    id.as_str().unwrap_or_default().to_owned(),
                    said["biz_opaque_callback_data"].clone(),
                );
                self.untold.lock().push_back(told);
            }
            // The answer of each interaction has the same name.
            ("discord", [.., "webhooks", _, token, "messages", _])
                if asked.method != reqwest::Method::GET =>
            {
                let id = answer["id"].as_str().unwrap_or_default();
                self.show(format!("{kind}/{token}/{id}"), &said["content"], None);
            }
            ("discord", [.., "webhooks", _, token]) => {
                let id = answer["id"].as_str().unwrap_or_default();
                self.show(format!("{kind}/{token}/{id}"), &said["content"], None);
            }
            ("discord", [.., "channels", _, "messages"]) => {
                self.show(named(&answer["id"]), &said["content"], None);
            }
            ("discord", [.., "channels", _, "messages", message]) => {
                self.show(format!("{kind}/{message}"), &said["content"], None);
            }
            _ => {}
        }
    }

    /// Stands before the platform `kind` at `behind`; answers where.
    pub async fn before(self: &Arc<Self>, kind: &'static str, behind: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let weather = self.clone();
        let client = reqwest::Client::builder().no_proxy().build();
        let client = client.expect("a client");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (weather, client) = (weather.clone(), client.clone());
                tokio::spawn(async move {
                    // What ends early is a connection that is over.
                    let _ = weather.serve(kind, stream, &client, behind).await;
                });
            }
        });
        address
    }

    async fn serve(
        &self,
        kind: &'static str,
        mut stream: TcpStream,
        client: &reqwest::Client,
        behind: SocketAddr,
    ) -> Option<()> {
        let mut buffer = Vec::new();
        loop {
            let asked = read(&mut stream, &mut buffer).await?;
            let answered = match self.fate(&about(&asked)) {
                Fate::CutBefore => return None,
                Fate::Busy => busy(kind),
                Fate::Broken => broken(kind),
                fate @ (Fate::Taken | Fate::CutAfter) => {
                    let answered = pass_on(client, behind, &asked).await?;
                    if (200..300).contains(&answered.status) {
                        self.note(kind, &asked, &answered.body);
                    }
                    if fate == Fate::CutAfter {
                        return None;
                    }
                    answered
                }
            };
            write(&mut stream, &answered).await?;
        }
    }

    /// Stands before a mail server; answers at which port.
    pub async fn before_mail(self: &Arc<Self>, behind: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let weather = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let weather = weather.clone();
                tokio::spawn(async move { weather.serve_mail(stream, behind).await });
            }
        });
        port
    }

    /// Lines and replies in turn, as no extension that is offered changes it.
    async fn serve_mail(&self, client: TcpStream, behind: u16) -> Option<()> {
        let server = TcpStream::connect(("127.0.0.1", behind)).await.ok()?;
        let (mut client, mut server) = (BufReader::new(client), BufReader::new(server));
        let (mut fate, mut recipient) = (Fate::Taken, String::new());
        pass_reply(&mut server, &mut client).await?;
        loop {
            let line = line_of(&mut client).await?;
            let word = line.to_ascii_uppercase();
            if word.starts_with("RCPT") {
                fate = self.fate(&line);
                recipient.clone_from(&line);
            }
            if word.starts_with("RCPT") && fate == Fate::Busy {
                say(&mut client, "451 4.3.2 Try again later\r\n").await?;
                continue;
            }
            if word.starts_with("DATA") && fate == Fate::Broken {
                return say(&mut client, "421 4.3.0 Something is broken\r\n").await;
            }
            say(&mut server, &line).await?;
            if !pass_reply(&mut server, &mut client)
                .await?
                .starts_with("354")
            {
                continue;
            }
            let mut letter = String::new();
            while !letter.ends_with("\r\n.\r\n") {
                letter.push_str(&line_of(&mut client).await?);
            }
            if fate == Fate::CutBefore {
                return None;
            }
            say(&mut server, &letter).await?;
            let reply = reply_of(&mut server).await?;
            if reply.starts_with("250") {
                self.note_letter(&letter);
                self.refusals.lock().remove(&recipient);
            }
            if fate == Fate::CutAfter {
                return None;
            }
            say(&mut client, &reply).await?;
        }
    }

    /// Whoever gets a letter twice sees it once, by its Message-ID.
    fn note_letter(&self, letter: &str) {
        let id = letter.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("message-id")
                .then(|| value.trim())
        });
        let number = self.appeared.load(Ordering::Relaxed);
        // Lines that go on in quoted-printable.
        let text = json!(letter.replace("=\r\n", ""));
        self.show(
            format!("email/{}#{number}", id.unwrap_or_default()),
            &text,
            id,
        );
    }
}

/// What calls are refused as one: an interaction with all that is done about it, else what says the same.
fn about(asked: &Asked) -> String {
    let parts: Vec<&str> = asked.path.split('/').collect();
    match parts.iter().position(|part| *part == "webhooks") {
        Some(at) => parts.get(at + 2).copied().unwrap_or_default().to_owned(),
        None => format!("{} {}", asked.path, String::from_utf8_lossy(&asked.body)),
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Asked> {
    let end = loop {
        if let Some(at) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let method = first.next()?.parse().ok()?;
    let path = first.next()?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted);
    assert!(
        header("transfer-encoding").is_none(),
        "bodies are whole: {head}"
    );
    let length = header("content-length").and_then(|(_, value)| value.parse().ok());
    let whole = end + length.unwrap_or(0);
    while buffer.len() < whole {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[end..whole].to_vec();
    buffer.drain(..whole);
    Some(Asked {
        method,
        path,
        headers,
        body,
    })
}

async fn pass_on(client: &reqwest::Client, behind: SocketAddr, asked: &Asked) -> Option<Answered> {
    let url = format!("http://{behind}{}", asked.path);
    let mut call = client.request(asked.method.clone(), url);
    for (name, value) in &asked.headers {
        if !["host", "content-length", "connection"].contains(&name.as_str()) {
            call = call.header(name, value);
        }
    }
    let answer = call.body(asked.body.clone()).send().await.ok()?;
    let kind = answer.headers().get("content-type");
    let kind = kind.and_then(|kind| kind.to_str().ok()).map(str::to_owned);
    Some(Answered {
        status: answer.status().as_u16(),
        headers: kind
            .into_iter()
            .map(|kind| ("content-type".to_owned(), kind))
            .collect(),
        body: answer.bytes().await.ok()?.to_vec(),
    })
}

async fn write(stream: &mut TcpStream, answered: &Answered) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} X\r\n", answered.status);
    for (name, value) in &answered.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    // Of what has no body no length is said (RFC 9110, 8.6).
    if answered.status != 204 {
        head.push_str(&format!("content-length: {}\r\n", answered.body.len()));
    }
    head.push_str("\r\n");
    let whole = [head.into_bytes(), answered.body.clone()].concat();
    stream.write_all(&whole).await.ok()
}

fn refusal(status: u16, headers: &[(&str, &str)], body: &Value) -> Answered {
    let headers = [("content-type", "application/json")]
        .iter()
        .chain(headers)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Answered {
        status,
        headers: headers.collect(),
        body: body.to_string().into_bytes(),
    }
}

/// As each platform says that there are too many calls.
fn busy(kind: &str) -> Answered {
    match kind {
        "telegram" => refusal(
            429,
            &[],
            &json!({ "ok": false, "error_code": 429, "description": "Too Many Requests",
                "parameters": { "retry_after": 1 } }),
        ),
        "slack" => refusal(
            429,
            &[("retry-after", "1")],
            &json!({ "ok": false, "error": "ratelimited" }),
        ),
        "whatsapp" => refusal(
            429,
            &[("retry-after", "1")],
            &json!({ "error": { "message": "(#130429) Rate limit hit", "code": 130_429,
                "type": "OAuthException" } }),
        ),
        _ => refusal(
            429,
            &[("retry-after", "1")],
            &json!({ "message": "You are being rate limited.", "retry_after": 0.6,
                "global": false }),
        ),
    }
}

/// As each platform says that it is at fault itself.
fn broken(kind: &str) -> Answered {
    match kind {
        "telegram" => refusal(
            500,
            &[],
            &json!({ "ok": false, "error_code": 500, "description": "Internal Server Error" }),
        ),
        "slack" => refusal(
            500,
            &[],
            &json!({ "ok": false, "error": "service_unavailable" }),
        ),
        "whatsapp" => refusal(
            500,
            &[],
            &json!({ "error": { "message": "Something went wrong", "code": 131_000,
                "type": "OAuthException" } }),
        ),
        _ => refusal(500, &[], &json!({ "message": "internal error", "code": 0 })),
    }
}

async fn say(to: &mut BufReader<TcpStream>, text: &str) -> Option<()> {
    to.write_all(text.as_bytes()).await.ok()
}

async fn line_of(from: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let read = tokio::time::timeout(Duration::from_secs(60), from.read_line(&mut line));
    match read.await {
        Ok(Ok(length)) if length > 0 => Some(line),
        _ => None,
    }
}

/// A reply of one or more lines.
async fn reply_of(server: &mut BufReader<TcpStream>) -> Option<String> {
    let mut reply = String::new();
    loop {
        let line = line_of(server).await?;
        reply.push_str(&line);
        if line.as_bytes().get(3) != Some(&b'-') {
            return Some(reply);
        }
    }
}

async fn pass_reply(
    server: &mut BufReader<TcpStream>,
    client: &mut BufReader<TcpStream>,
) -> Option<String> {
    let reply = reply_of(server).await?;
    say(client, &reply).await?;
    Some(reply)
}
