//! E-mail, over real SMTP on both sides: smtplib and sockets bring it, aiosmtpd takes the answers, dkimpy
//! checks their signatures, and a name server of the test's own says who may send.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use smithgate::config::{Email, Relay, RelayTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::assets::{McpServer, clients, program};
use crate::store::{on_both_engines, postgres, sqlite};
use crate::support::{Harness, REPORT, free_address, ok, refused};
use crate::tools::Workshop;

pub(crate) const SECRET: &str = "inbound-secret";

/// TXT records by name; other names do not exist.
pub(crate) type Records = Arc<Mutex<HashMap<String, String>>>;

/// A name server for TXT records.
pub(crate) async fn name_server(records: Records) -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut query = [0_u8; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            let query = &query[..length];
            let (mut at, mut name) = (12, String::new());
            while query[at] != 0 {
                let end = at + 1 + query[at] as usize;
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(&String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
                at = end;
            }
            let is_txt = query[at + 1..at + 3] == [0, 16];
            let found = records.lock().get(&name).cloned();
            let mut answer = query[..2].to_vec();
            answer.extend([0x81, if found.is_some() { 0x80 } else { 0x83 }]);
            let text = found.filter(|_| is_txt);
            answer.extend([0, 1, 0, u8::from(text.is_some()), 0, 0, 0, 0]);
            answer.extend(&query[12..at + 5]);
            if let Some(text) = text {
                let pieces: Vec<u8> = text
                    .as_bytes()
                    .chunks(255)
                    .flat_map(|piece| [&[piece.len() as u8], piece].concat())
                    .collect();
                answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
                answer.extend((pieces.len() as u16).to_be_bytes());
                answer.extend(pieces);
            }
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

/// Runs a tool of `mail_tools.py` on bytes.
async fn tool(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = tokio::process::Command::new(program("TEST_PYTHON"))
        .arg(clients().join("mail_tools.py"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("Python");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input).await.expect("written");
    drop(stdin);
    let output = child.wait_with_output().await.expect("an end");
    assert!(output.status.success(), "{arguments:?}");
    output.stdout
}

/// A mail server that writes down what it takes to `out`; with its port.
pub(crate) async fn relay(out: &Path) -> (McpServer, u16) {
    let mut command = tokio::process::Command::new(program("TEST_PYTHON"));
    command
        .arg(clients().join("mail_relay.py"))
        .env("MAIL_OUT", out);
    let relay = McpServer::start(command, "").await;
    let (_, port) = relay.url.rsplit_once(':').expect("a port");
    let port = port.parse().expect("a number");
    (relay, port)
}

struct Post {
    harness: Harness,
    smtp: SocketAddr,
    account: Value,
    out: PathBuf,
    records: Records,
    _relay: McpServer,
    _dir: tempfile::TempDir,
}

impl Post {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Email)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let out = dir.path().join("mail");
        let (relay, port) = relay(&out).await;
        let records = Records::default();
        records.lock().extend([
            (
                "good.test".to_owned(),
                "v=spf1 ip4:127.0.0.1 -all".to_owned(),
            ),
            (
                "_dmarc.good.test".to_owned(),
                "v=DMARC1; p=reject".to_owned(),
            ),
            ("strict.test".to_owned(), "v=spf1 -all".to_owned()),
            (
                "_dmarc.strict.test".to_owned(),
                "v=DMARC1; p=reject".to_owned(),
            ),
            ("lax.test".to_owned(), "v=spf1 -all".to_owned()),
        ]);
        let server = name_server(records.clone()).await;
        let smtp = free_address();
        let harness = Harness::start_with(|config, _| {
            let email = &mut config.channels.email;
            email.hostname = "gate.test".to_owned();
            email.listen = Some(smtp);
            email.name_server = Some(server);
            email.relay = Some(Relay {
                host: "127.0.0.1".to_owned(),
                port,
                username: None,
                password: None,
                tls: RelayTls::None,
                ca: None,
            });
            config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
            change(email);
        })
        .await;
        let body = json!({ "from_domain": "Acme.test", "display_name": "Acme Smith",
            "inbound_secret": SECRET });
        let put = harness.request(Method::PUT, "/v1/tenant/email").json(&body);
        let account = ok(put.send().await).await;
        assert_eq!(
            (&account["inbound_secret"], &account["from_domain"]),
            (&json!(SECRET), &json!("acme.test"))
        );
        Self {
            harness,
            smtp,
            account,
            out,
            records,
            _relay: relay,
            _dir: dir,
        }
    }

    /// What the relay has taken.
    fn taken(&self) -> Vec<(String, Vec<u8>)> {
        let text = std::fs::read_to_string(&self.out).unwrap_or_default();
        text.lines()
            .map(|line| {
                let mail: Value = serde_json::from_str(line).expect("JSON");
                let data = mail["data"].as_str().expect("data");
                let to = mail["to"][0].as_str().expect("a recipient").to_owned();
                (to, STANDARD.decode(data).expect("base64"))
            })
            .collect()
    }

    async fn wait(&self, count: usize) -> Vec<(String, Vec<u8>)> {
        for _ in 0..300 {
            let taken = self.taken();
            if taken.len() >= count {
                return taken;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let events = ok(self.harness.get("/v1/inbound_events").send().await).await;
        panic!("{} of {count} letters: {events}", self.taken().len());
    }

    /// The letter as the standard library of Python reads it.
    async fn read(&self, letter: &[u8]) -> Value {
        let parsed: Value = serde_json::from_slice(&tool(&["parse"], letter).await).expect("JSON");
        assert_eq!(parsed["defects"], json!([]), "{parsed}");
        parsed
    }

    async fn smtp(&self) -> Smtp {
        let mut smtp = Smtp(TcpStream::connect(self.smtp).await.expect("connected"));
        assert!(smtp.reply().await.starts_with("220 gate.test "));
        smtp
    }

    /// Delivers a message from one address to another; answers the last reply.
    async fn deliver(&self, from: &str, to: &str, message: &str) -> String {
        let mut smtp = self.smtp().await;
        smtp.say("EHLO mx.good.test").await;
        smtp.say(&format!("MAIL FROM:<{from}>")).await;
        let reply = smtp.say(&format!("RCPT TO:<{to}>")).await;
        if !reply.starts_with("250") {
            return reply;
        }
        assert!(smtp.say("DATA").await.starts_with("354"));
        let reply = smtp
            .say(&format!("{}\r\n.", message.replace('\n', "\r\n")))
            .await;
        smtp.say("QUIT").await;
        reply
    }

    /// Posts a message as a provider does; answers the status.
    async fn post(&self, kind: &str, body: impl Into<reqwest::Body>, secret: &str) -> u16 {
        let path = format!("/v1/email/inbound/{}", self.harness.tenant);
        let call = self.harness.client.post(self.harness.url(&path)).body(body);
        let call = call
            .header("content-type", kind)
            .header("X-Inbound-Secret", secret);
        call.send().await.expect("an answer").status().as_u16()
    }

    async fn agent(&self, model: &str) -> String {
        let harness = &self.harness;
        let agent = ok(harness
            .post("/v1/agents", &json!({ "name": "A" }))
            .send()
            .await)
        .await;
        let agent = agent["id"].as_str().expect("an id").to_owned();
        let path = format!("/v1/agents/{agent}");
        let config = json!({ "model": model, "instructions": "Be brief." });
        ok(harness
            .request(Method::PATCH, &path)
            .json(&config)
            .send()
            .await)
        .await;
        ok(harness
            .post(&format!("{path}/versions"), &json!({}))
            .send()
            .await)
        .await;
        agent
    }

    async fn catch_all(&self, model: &str) -> String {
        let agent = self.agent(model).await;
        let body = json!({ "kind": "email", "target": { "type": "agent", "id": agent } });
        let made = ok(self.harness.post("/v1/deployments", &body).send().await).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        let found = ok(self.harness.get(path).send().await).await;
        found["data"].as_array().cloned().unwrap_or_default()
    }

    /// Why each arrival led to nothing, once all are interpreted.
    async fn reasons(&self, count: usize) -> Vec<Value> {
        for _ in 0..200 {
            let all = self.list("/v1/inbound_events?source=email").await;
            if all.len() >= count && all.iter().all(|one| one["status"] != "accepted") {
                return all.iter().map(|one| one["reason"].clone()).collect();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not all of {count} are interpreted");
    }
}

/// A connection to our listener.
struct Smtp(TcpStream);

impl Smtp {
    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("written");
    }

    async fn say(&mut self, line: &str) -> String {
        self.write(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// A reply of one or more lines; empty when the connection is closed.
    async fn reply(&mut self) -> String {
        let mut all = Vec::new();
        loop {
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_secs(10), self.0.read(&mut byte));
            match read.await.expect("a reply in time") {
                Ok(1) => all.push(byte[0]),
                _ => return String::from_utf8_lossy(&all).into_owned(),
            }
            let text = String::from_utf8_lossy(&all);
            let last = text
                .trim_end_matches("\r\n")
                .rsplit("\r\n")
                .next()
                .unwrap_or_default();
            if text.ends_with("\r\n") && last.as_bytes().get(3) == Some(&b' ') {
                return text.into_owned();
            }
        }
    }
}

pub(crate) fn message(from: &str, id: &str, more: &str, text: &str) -> String {
    format!(
        "From: Ann Lee <{from}>\nTo: help@acme.test\nSubject: The forge\nMessage-ID: <{id}>\n{more}\n\
         {text}\n"
    )
}

fn header<'a>(parsed: &'a Value, name: &str) -> &'a str {
    let headers = parsed["headers"].as_array().expect("headers");
    let found = headers.iter().find(|pair| pair[0].as_str() == Some(name));
    found.and_then(|pair| pair[1].as_str()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_answered_once_and_its_thread_goes_on() {
    let post = Post::start().await;
    let deployment = post.catch_all("openai-chat/text").await;
    let first = message(
        "ann@good.test",
        "1@good.test",
        "",
        "Is it open?\n\n-- \nAnn Lee",
    );
    let port = post.smtp.port().to_string();
    let send = ["send", &port, "ann@good.test", "help@acme.test"];
    let crlf = first.replace('\n', "\r\n");
    tool(&send, crlf.as_bytes()).await;
    let letters = post.wait(1).await;
    let (to, letter) = &letters[0];
    assert_eq!(to, "ann@good.test");
    let record = post.account["dkim_record"]["value"]
        .as_str()
        .expect("a record");
    assert_eq!(
        post.account["dkim_record"]["name"],
        "smithgate._domainkey.acme.test"
    );
    assert_eq!(tool(&["verify", record], letter).await, b"true\n");
    let parsed = post.read(letter).await;
    assert_eq!(header(&parsed, "From"), "Acme Smith <help@acme.test>");
    assert_eq!(header(&parsed, "Subject"), "Re: The forge");
    assert_eq!(header(&parsed, "In-Reply-To"), "<1@good.test>");
    assert_eq!(header(&parsed, "References"), "<1@good.test>");
    assert_eq!(header(&parsed, "Auto-Submitted"), "auto-replied");
    assert!(
        parsed["text"]
            .as_str()
            .is_some_and(|text| text.contains("wörld")),
        "{parsed}"
    );
    assert!(
        parsed["html"]
            .as_str()
            .is_some_and(|html| html.contains("<p>Hello")),
        "{parsed}"
    );
    // Delivered again, by whatever way, it is the same.
    tool(&send, crlf.as_bytes()).await;
    assert_eq!(post.post("message/rfc822", crlf, SECRET).await, 200);
    // An answer with history finds its thread; its history is not said again.
    let id = header(&parsed, "Message-ID").to_owned();
    let more = format!("In-Reply-To: {id}\n");
    let text =
        "At what time?\n\nOn Sat, 28 Nov 2026 at 10:00, Acme <help@acme.test> wrote:\n> Hello";
    let reply = post
        .deliver(
            "ann@good.test",
            "help@acme.test",
            &message("ann@good.test", "2@good.test", &more, text),
        )
        .await;
    assert!(reply.starts_with("250"), "{reply}");
    post.wait(2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(post.taken().len(), 2);
    let runs = post.list("/v1/runs").await;
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0]["thread_id"], runs[1]["thread_id"]);
    assert_eq!(runs[0]["input"][0]["content"][0]["text"], "At what time?");
    assert_eq!(
        runs[1]["input"][0]["content"][0]["text"],
        "Subject: The forge\n\nIs it open?"
    );
    assert_eq!(runs[0]["metadata"]["sender"]["verified"], true, "{runs:?}");
    assert_eq!(runs[0]["channel"], "email");
    let smiths = post
        .list("/v1/smiths?external_id=email:ann@good.test")
        .await;
    assert_eq!(
        (smiths.len(), &smiths[0]["display_name"]),
        (1, &json!("Ann Lee"))
    );
    let sent = post
        .list(&format!("/v1/deployments/{deployment}/deliveries"))
        .await;
    assert!(sent.iter().all(|one| one["status"] == "sent"), "{sent:?}");
    assert_eq!(
        format!("<{}>", sent[1]["message_ids"][0].as_str().expect("one")),
        id
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_a_sender_is_is_proved() {
    let post = Post::start().await;
    post.catch_all("openai-chat/text").await;
    // The domain says that nobody sends for it: the mail is forged.
    let forged = message("boss@strict.test", "1@strict.test", "", "Pay this.");
    let reply = post
        .deliver("boss@strict.test", "help@acme.test", &forged)
        .await;
    assert!(reply.starts_with("250"), "{reply}");
    assert!(
        post.reasons(1).await[0]
            .as_str()
            .is_some_and(|why| why.contains("forged"))
    );
    // One that does not ask for that is answered, and said to be unproved; its Reply-To is not.
    let more = "Reply-To: thief@evil.test\n";
    let unproved = message("carl@lax.test", "1@lax.test", more, "Who am I?");
    post.deliver("carl@lax.test", "help@acme.test", &unproved)
        .await;
    assert_eq!(post.wait(1).await[0].0, "carl@lax.test");
    let runs = post.list("/v1/runs").await;
    assert_eq!(runs[0]["metadata"]["sender"]["verified"], false);
    // A signature proves what the way does not.
    let key = post.out.with_extension("pem");
    let made = std::process::Command::new("openssl")
        .args(["genrsa", "-traditional", "-out"])
        .arg(&key)
        .arg("2048")
        .output()
        .expect("openssl");
    assert!(made.status.success());
    let public = std::process::Command::new("openssl")
        .args(["rsa", "-pubout", "-outform", "DER", "-in"])
        .arg(&key)
        .output()
        .expect("openssl");
    let record = format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(public.stdout));
    post.records
        .lock()
        .insert("s1._domainkey.strict.test".to_owned(), record);
    let letter = message("boss@strict.test", "2@strict.test", "", "Hello.").replace('\n', "\r\n");
    let key = key.display().to_string();
    let signed = tool(&["sign", "strict.test", &key], letter.as_bytes()).await;
    let signed = String::from_utf8(signed)
        .expect("text")
        .replace("\r\n", "\n");
    post.deliver("list@lax.test", "help@acme.test", &signed)
        .await;
    post.wait(2).await;
    // The same, changed on its way, over HTTP: not proved, and not called forged without its way.
    let changed = signed
        .replace("Hello.", "Pay!")
        .replace("2@strict.test", "3@strict.test");
    assert_eq!(post.post("message/rfc822", changed, SECRET).await, 200);
    post.wait(3).await;
    let runs = post.list("/v1/runs").await;
    let verified = |n: usize| &runs[n]["metadata"]["sender"]["verified"];
    assert_eq!((verified(0), verified(1)), (&json!(false), &json!(true)));
    // Results count of the hop that is named, at the top alone.
    let body = json!({ "from_domain": "acme.test", "inbound_secret": SECRET,
        "authserv_id": "mx.acme.test", "require_verified": true });
    let put = post
        .harness
        .request(Method::PUT, "/v1/tenant/email")
        .json(&body);
    let again = ok(put.send().await).await;
    assert_eq!(again["dkim_record"], post.account["dkim_record"]);
    let own = "Authentication-Results: mx.acme.test; dmarc=pass header.from=lax.test\n";
    let theirs = "Authentication-Results: mx.evil.test; dmarc=pass\n";
    for (id, results) in [
        ("4", format!("{theirs}{own}")),
        ("5", format!("{own}{theirs}")),
    ] {
        let letter = message("carl@lax.test", &format!("{id}@lax.test"), "", "Now?");
        let status = post
            .post("message/rfc822", format!("{results}{letter}"), SECRET)
            .await;
        assert_eq!(status, 200);
    }
    post.wait(4).await;
    let reasons = post.reasons(6).await;
    assert!(
        reasons[1]
            .as_str()
            .is_some_and(|why| why.contains("not verified")),
        "{reasons:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_posted_by_who_knows_the_secret() {
    let post = Post::start().await;
    post.catch_all("openai-chat/text").await;
    let letter = message("ann@good.test", "1@good.test", "", "Hi");
    assert_eq!(
        post.post("message/rfc822", letter.clone(), "wrong").await,
        403
    );
    let harness = &post.harness;
    // A tenant that is none is told from one in no way.
    let foreign = harness.url("/v1/email/inbound/proj_111111111111111111111");
    let call = harness
        .client
        .post(foreign)
        .header("X-Inbound-Secret", SECRET);
    let (status, error) = refused(call.body(letter.clone()).send().await).await;
    assert_eq!(
        (status, &error["code"]),
        (403, &json!("bad_inbound_secret"))
    );
    // Signed, and too old.
    let url = harness.url(&format!("/v1/email/inbound/{}", harness.tenant));
    let sign = |time: i64, body: &str| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, format!("{time}.{body}").as_bytes());
        let value = format!("t={time},v1={}", hex::encode(tag.as_ref()));
        harness
            .client
            .post(&url)
            .header("X-Inbound-Signature", value)
            .body(body.to_owned())
    };
    let now = smithgate::store::now_micros() / 1_000_000;
    let (status, _) = refused(sign(now - 600, &letter).send().await).await;
    assert_eq!(status, 403);
    ok(sign(now, &letter).send().await).await;
    post.wait(1).await;
    assert_eq!(post.post("message/rfc822", "no message", SECRET).await, 400);
    assert_eq!(post.post("application/json", "{", SECRET).await, 400);
    // As JSON: HTML alone, a file, and what the provider found.
    let picture = STANDARD.encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01");
    let normal = json!({ "from": "Bob <bob@lax.test>", "to": ["help@acme.test"],
        "subject": "Picture", "message_id": "<7@lax.test>", "dmarc": "pass",
        "html": "<p>What <b>is</b> this?</p><script>x</script>",
        "attachments": [{ "filename": "a.png", "content_type": "image/png", "content": picture }] });
    let status = post
        .post("application/json", normal.to_string(), SECRET)
        .await;
    assert_eq!(status, 200);
    assert_eq!(post.wait(2).await[1].0, "bob@lax.test");
    let asked = harness.mock.last().body.to_string();
    assert!(asked.contains("data:image/png;base64,"), "{asked}");
    assert!(
        asked.contains("What is this?") && !asked.contains("<script"),
        "{asked}"
    );
    let runs = post.list("/v1/runs").await;
    assert_eq!(runs[0]["metadata"]["sender"]["verified"], true);
    // Over MIME: HTML in base64, and a file.
    let html = STANDARD.encode("<div>Look at <i>this</i>:</div>");
    let file = STANDARD.encode("a,b\n1,2\n");
    let mixed = format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\
         Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: base64\n\n{html}\n--b\n\
         Content-Type: text/csv\nContent-Disposition: attachment; filename=\"t.csv\"\n\
         Content-Transfer-Encoding: base64\n\n{file}\n--b--"
    );
    let letter = message("ann@good.test", "2@good.test", "", "")
        .trim_end()
        .to_owned();
    let letter = format!("{letter}\n{mixed}");
    post.deliver("ann@good.test", "help@acme.test", &letter)
        .await;
    post.wait(3).await;
    let runs = post.list("/v1/runs").await;
    let content = &runs[0]["input"][0]["content"];
    assert_eq!(
        content[0]["text"], "Subject: The forge\n\nLook at this:",
        "{content}"
    );
    assert_eq!(content[1]["filename"], "t.csv", "{content}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_send_by_themselves_is_not_answered() {
    let post = Post::start_with(|email| email.max_per_sender_hour = 3).await;
    post.catch_all("openai-chat/text").await;
    let cases = [
        ("ann@good.test", "Auto-Submitted: auto-replied\n"),
        ("ann@good.test", "Precedence: bulk\n"),
        ("ann@good.test", "List-Id: <smiths.good.test>\n"),
        ("bea@good.test", "X-Auto-Response-Suppress: All\n"),
        ("help@acme.test", ""),
        ("smith@acme.test", ""),
        ("mailer-daemon@good.test", ""),
    ];
    for (number, (from, more)) in cases.iter().enumerate() {
        let letter = message(from, &format!("{number}@good.test"), more, "I am away.");
        let reply = post
            .deliver("ann@good.test", "help@acme.test", &letter)
            .await;
        assert!(reply.starts_with("250"), "{reply}");
    }
    let letter = message("ann@good.test", "null@good.test", "", "A bounce of a kind.");
    post.deliver("", "help@acme.test", &letter).await;
    // And one that nothing shows: it is answered so often, and no more.
    for number in 0..5 {
        let letter = message(
            "bot@good.test",
            &format!("loop{number}@good.test"),
            "",
            "Hello!",
        );
        post.deliver("bot@good.test", "help@acme.test", &letter)
            .await;
    }
    let reasons = post.reasons(13).await;
    let answered = reasons.iter().filter(|why| why.is_null()).count();
    assert_eq!(answered, 3, "{reasons:?}");
    let taken = post.wait(answered).await;
    assert!(
        taken.iter().all(|(to, _)| to == "bot@good.test"),
        "{reasons:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_takes_what_is_for_its_tenants_and_as_the_standard_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(vec!["gate.test".to_owned()]).expect("made");
    let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let post = Post::start_with(|email| {
        email.max_message_bytes = 20_000;
        email.max_connections_per_address = 3;
        email.max_recipients = 2;
        (email.tls_cert, email.tls_key) = (Some(cert), Some(key));
    })
    .await;
    let mut smtp = post.smtp().await;
    assert!(smtp.say("MAIL FROM:<a@good.test>").await.starts_with("503"));
    let hello = smtp.say("EHLO mx.good.test").await;
    for word in [
        "PIPELINING",
        "SIZE 20000",
        "8BITMIME",
        "STARTTLS",
        "ENHANCEDSTATUSCODES",
    ] {
        assert!(hello.contains(word), "{hello}");
    }
    for (said, reply) in [
        ("AUTH PLAIN AGEAYg==", "502"),
        ("VRFY help", "252"),
        ("NONSENSE", "500"),
        ("MAIL FROM:a@good.test", "501"),
        ("MAIL FROM:<a@good.test> SIZE=20001", "552"),
        ("MAIL FROM:<a@good.test> SIZE=100 BODY=8BITMIME", "250"),
        ("DATA", "554"),
        ("RCPT TO:<ann@elsewhere.test>", "550 5.7.1"),
        ("RCPT TO:<help@acme.test@elsewhere.test>", "553"),
        ("RCPT TO:<help%elsewhere.test@acme.test>", "250"),
        ("RCPT TO:<HELP@ACME.TEST>", "250"),
        ("RCPT TO:<third@acme.test>", "452"),
        ("RSET", "250"),
    ] {
        let got = smtp.say(said).await;
        assert!(got.starts_with(reply), "{said}: {got}");
    }
    // All at once, and a message that is too large: the conversation goes on after it.
    smtp.write(b"MAIL FROM:<a@good.test>\r\nRCPT TO:<help@acme.test>\r\nDATA\r\n")
        .await;
    for code in ["250", "250", "354"] {
        assert!(smtp.reply().await.starts_with(code));
    }
    let large = "x".repeat(70) + "\r\n";
    let reply = smtp.say(&format!("{}.", large.repeat(300))).await;
    assert!(reply.starts_with("552"), "{reply}");
    assert!(smtp.say("NOOP").await.starts_with("250"));
    // Two messages that another server takes for one.
    smtp.write(b"MAIL FROM:<a@good.test>\r\nRCPT TO:<help@acme.test>\r\nDATA\r\n")
        .await;
    for _ in 0..3 {
        smtp.reply().await;
    }
    let smuggled = "From: a@good.test\r\n\r\nHi\n.\r\nMAIL FROM:<b@good.test>\r\n";
    smtp.write(smuggled.as_bytes()).await;
    assert!(smtp.reply().await.starts_with("554 5.6.0"));
    assert_eq!(smtp.reply().await, "");
    // One that is cut off is not there; what follows STARTTLS in the clear is not taken.
    let mut cut = post.smtp().await;
    cut.write(b"EHLO x\r\nMAIL FROM:<a@good.test>\r\nRCPT TO:<help@acme.test>\r\nDATA\r\n")
        .await;
    for _ in 0..4 {
        cut.reply().await;
    }
    cut.write(b"From: a@good.test\r\n\r\nHalf of").await;
    drop(cut);
    let mut early = post.smtp().await;
    early.say("EHLO x").await;
    early
        .write(b"STARTTLS\r\nMAIL FROM:<a@good.test>\r\n")
        .await;
    assert!(early.reply().await.starts_with("501"));
    drop(early);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let many = [post.smtp().await, post.smtp().await, post.smtp().await];
    let mut refused = Smtp(TcpStream::connect(post.smtp).await.expect("connected"));
    assert!(refused.reply().await.starts_with("421 4.7.0"));
    drop(many);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(post.list("/v1/inbound_events").await, Vec::<Value>::new());
    // Under TLS, by the standard library of Python; nobody is bound, which is said.
    let script = format!(
        "import smtplib, ssl\nc = ssl._create_unverified_context()\n\
         s = smtplib.SMTP('127.0.0.1', {})\ns.starttls(context=c)\n\
         s.sendmail('ann@good.test', ['help@acme.test'], \
         'From: ann@good.test\\r\\nSubject: x\\r\\n\\r\\n..dots\\r\\n.\\r\\nend\\r\\n')\ns.quit()",
        post.smtp.port()
    );
    let done = tokio::process::Command::new(program("TEST_PYTHON"))
        .args(["-c", &script])
        .status();
    assert!(done.await.expect("Python").success());
    post.reasons(1).await;
    let events = post.list("/v1/events?type=unbound_message").await;
    assert_eq!(events.len(), 1, "{events:?}");
    let arrival = &post.list("/v1/inbound_events").await[0];
    assert_eq!(arrival["data"]["envelope"]["tls"], true, "{arrival}");
    assert_eq!(arrival["data"]["head"]["subject"], "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_comes_back_is_told_and_not_sent_again() {
    let post = Post::start().await;
    let deployment = post.catch_all("openai-chat/text").await;
    // The domain of these may send from here.
    let path = format!("/v1/deployments/{deployment}/deliveries");
    let outcome = async |who: &str, status: &str| {
        let letter = message(who, &format!("1-{who}"), "", "Hi");
        post.deliver(who, "help@acme.test", &letter).await;
        for _ in 0..300 {
            let all = post.list(&path).await;
            if let Some(one) = all.first()
                && one["status"] == status
            {
                return one.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{who}: {:?}", post.list(&path).await);
    };
    // Not now: it is sent a little later.
    outcome("busy@good.test", "sent").await;
    assert_eq!(post.wait(1).await[0].0, "busy@good.test");
    let refused_ = outcome("spam@good.test", "failed").await;
    assert!(
        refused_["last_error"]
            .as_str()
            .is_some_and(|why| why.contains("5.7.1"))
    );
    outcome("gone@good.test", "failed").await;
    // Taken by somebody who did not say so: nobody knows, and it is not sent again by itself.
    let cut = outcome("cut@good.test", "unknown").await;
    assert!(
        cut["last_error"]
            .as_str()
            .is_some_and(|why| why.starts_with("email_send_failed"))
    );
    let suppressed = post.list("/v1/tenant/email/suppressions").await;
    assert_eq!(suppressed.len(), 1, "{suppressed:?}");
    assert_eq!(
        (&suppressed[0]["address"], &suppressed[0]["reason"]),
        (&json!("gone@good.test"), &json!("bounce"))
    );
    let failed = post.list("/v1/events?type=email.send_failed").await;
    assert_eq!(failed.len(), 3, "{failed:?}");
    // A report of a message that was taken first.
    outcome("ann@good.test", "sent").await;
    let letters = post.wait(3).await;
    let (_, letter) = letters.last().expect("one");
    let parsed = post.read(letter).await;
    let id = header(&parsed, "Message-ID").to_owned();
    let report = |id: &str| {
        format!(
            "From: MAILER-DAEMON@mx.good.test\nTo: help@acme.test\nSubject: Undelivered\n\
             Message-ID: <report-{}@mx.good.test>\nAuto-Submitted: auto-replied\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=r\n\n--r\n\n\
             It failed.\n--r\nContent-Type: message/delivery-status\n\n\
             Reporting-MTA: dns; mx.good.test\n\nFinal-Recipient: rfc822; ann@good.test\n\
             Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 no such user\n--r\n\
             Content-Type: text/rfc822-headers\n\nMessage-ID: {id}\n--r--\n",
            id.len()
        )
    };
    // Of a message that nobody sent it says nothing.
    post.deliver("", "help@acme.test", &report("<never@acme.test>"))
        .await;
    post.reasons(6).await;
    assert_eq!(post.list("/v1/tenant/email/suppressions").await.len(), 1);
    post.deliver("", "help@acme.test", &report(&id)).await;
    post.reasons(7).await;
    let failed = post.list("/v1/events?type=email.send_failed").await;
    assert_eq!(failed.len(), 4, "{failed:?}");
    assert_eq!(
        (
            &failed[0]["data"]["status"],
            &failed[0]["data"]["recipient"]
        ),
        (&json!("bounced"), &json!("ann@good.test"))
    );
    assert!(failed[0]["data"]["message_id"].is_string() && failed[0]["smith_id"].is_string());
    // Who is suppressed is not written to, until somebody says otherwise.
    let again = message("ann@good.test", "again@good.test", "", "Hello?");
    post.deliver("ann@good.test", "help@acme.test", &again)
        .await;
    for _ in 0..200 {
        let all = post.list(&path).await;
        if all[0]["last_error"]
            .as_str()
            .is_some_and(|why| why.contains("suppression list"))
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let first = &post.list(&path).await[0];
    assert_eq!(first["status"], "failed", "{first}");
    let harness = &post.harness;
    let one = "/v1/tenant/email/suppressions/ann@good.test";
    let gone = harness.request(Method::DELETE, one).send().await;
    assert_eq!(gone.expect("an answer").status(), 204);
    let (status, _) = refused(harness.request(Method::DELETE, one).send().await).await;
    assert_eq!(status, 404);
    let body = json!({ "address": "Bob@Good.test" });
    let call = harness.post("/v1/tenant/email/suppressions", &body);
    assert_eq!(ok(call.send().await).await["address"], "bob@good.test");
    let call = harness.post(
        "/v1/tenant/email/suppressions",
        &json!({ "address": "bob" }),
    );
    let (status, error) = refused(call.send().await).await;
    assert_eq!((status, &error["param"]), (400, &json!("address")));
    let page = ok(harness
        .get("/v1/tenant/email/suppressions?limit=1")
        .send()
        .await)
    .await;
    assert_eq!(
        (&page["has_more"], &page["data"][0]["address"]),
        (&json!(true), &json!("bob@good.test"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn smiths_have_addresses_and_ask_before_they_act() {
    let post = Post::start().await;
    let harness = &post.harness;
    let workshop = Workshop::start().await;
    harness.put_workshop(&workshop).await;
    post.catch_all("openai-chat/text").await;
    let smith = harness.tool_smith(&[]).await;
    let deployment = |body: Value| {
        let mut whole = json!({ "kind": "email", "target": { "type": "smith", "id": smith } });
        let whole_object = whole.as_object_mut().expect("an object");
        whole_object.extend(body.as_object().expect("an object").clone());
        harness.post("/v1/deployments", &whole)
    };
    let made = ok(deployment(json!({ "address": "Forge@Acme.test" }))
        .send()
        .await)
    .await;
    assert_eq!(made["address"], "forge@acme.test");
    let (status, error) = refused(
        deployment(json!({ "address": "forge@acme.test" }))
            .send()
            .await,
    )
    .await;
    assert_eq!((status, &error["code"]), (409, &json!("address_in_use")));
    let (status, error) = refused(deployment(json!({ "address": "forge" })).send().await).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_address")));
    let given = ok(deployment(json!({ "setup": { "mode": "provision" } }))
        .send()
        .await)
    .await;
    let address = given["address"].as_str().expect("an address");
    assert!(
        address.starts_with("smith-") && address.ends_with("@acme.test"),
        "{address}"
    );
    let bound = ok(deployment(json!({ "setup": { "mode": "start_token" } }))
        .send()
        .await)
    .await;
    let token = bound["start_token"].as_str().expect("a token");
    assert_eq!(
        bound["deep_link"],
        format!("mailto:smith@acme.test?subject=Start&body=%2Fstart%20{token}")
    );
    // Ann is known to the catch-all, and writes to the forge all the same.
    let hello = message("ann@good.test", "0@good.test", "", "Hello");
    post.deliver("ann@good.test", "help@acme.test", &hello)
        .await;
    post.wait(1).await;
    let letter = message(
        "ann@good.test",
        "1@good.test",
        "",
        "melt {\"thing\": \"a\"}",
    );
    let letter = letter.replace("Subject: The forge\n", "");
    post.deliver("ann@good.test", "forge@acme.test", &letter)
        .await;
    let letters = post.wait(2).await;
    let asked = post.read(&letters[1].1).await;
    assert_eq!(header(&asked, "From"), "Acme Smith <forge@acme.test>");
    let html = asked["html"].as_str().expect("HTML");
    assert!(html.contains("May I use <code>melt</code>?"), "{html}");
    assert!(html.contains("\"thing\": \"a\""), "{html}");
    assert!(workshop.ledger().is_empty());
    let approvals = post.list("/v1/approvals").await;
    let run = approvals[0]["run_id"].as_str().expect("a run");
    let path = format!("/v1/smiths/{smith}/runs/{run}/submit");
    let body = json!({ "kind": "approval_decision", "approval_id": approvals[0]["id"],
        "decision": "approve" });
    ok(harness.post(&path, &body).send().await).await;
    let letters = post.wait(3).await;
    let done = post.read(&letters[2].1).await;
    assert!(
        done["text"]
            .as_str()
            .is_some_and(|text| text.contains("a is molten")),
        "{done}"
    );
    assert_eq!(workshop.ledger().len(), 1);
    // A long answer with code is one letter.
    let code = "fn main() { println!(\"<b>\"); }";
    let long = format!(
        "# Plan\n\n{}\n\n```rust\n{code}\n```\n",
        "many words ".repeat(2000)
    );
    let message = smithgate::store::OutboundRow {
        id: smithgate::ids::mint(smithgate::ids::Kind::Outbound),
        tenant_id: harness.tenant.clone(),
        smith_id: smith.clone(),
        deployment_id: made["id"].as_str().expect("an id").to_owned(),
        channel: "email".to_owned(),
        chat: "to:ann@good.test".to_owned(),
        run_id: None,
        kind: "notice".to_owned(),
        reply_to: json!({ "to": "ann@good.test" }).to_string(),
        content: Some(long),
        status: "pending".to_owned(),
        attempts: 0,
        takings: 0,
        progress: "{}".to_owned(),
        last_error: None,
        due_at: Some(0),
        created_at: 1,
        updated_at: 1,
    };
    harness
        .gateway
        .store
        .insert_outbound(&message)
        .await
        .expect("kept");
    let letters = post.wait(4).await;
    let begun = post.read(&letters[3].1).await;
    assert_eq!(header(&begun, "Subject"), "Plan");
    assert_eq!(header(&begun, "From"), "Acme Smith <forge@acme.test>");
    assert_eq!(header(&begun, "Auto-Submitted"), "auto-generated");
    let html = begun["html"].as_str().expect("HTML");
    assert!(html.contains("println!(\"&lt;b&gt;\");"), "{html}");
    let record = post.account["dkim_record"]["value"]
        .as_str()
        .expect("a record");
    assert_eq!(tool(&["verify", record], &letters[3].1).await, b"true\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_checked_and_its_domain_is_nobody_elses() {
    let post = Post::start().await;
    let harness = &post.harness;
    let shown = ok(harness.get("/v1/tenant/email").send().await).await;
    assert!(shown.get("inbound_secret").is_none(), "{shown}");
    assert_eq!(
        shown["inbound_url"],
        harness.url(&format!("/v1/email/inbound/{}", harness.tenant))
    );
    for (body, status, param) in [
        (json!({}), 422, "from_domain"),
        (json!({ "from_domain": "nowhere" }), 400, "from_domain"),
        (json!({ "from_domain": "a.test\r\nx" }), 400, "from_domain"),
        (
            json!({ "from_domain": "a.test", "mailbox": "a b" }),
            400,
            "mailbox",
        ),
        (
            json!({ "from_domain": "a.test", "smtp_host": "10.0.0.1" }),
            400,
            "smtp_host",
        ),
        (
            json!({ "from_domain": "a.test", "smtp_tls": "maybe" }),
            400,
            "smtp_tls",
        ),
        (
            json!({ "from_domain": "a.test", "smtp_host": "x.test", "smtp_username": "u" }),
            400,
            "smtp_password",
        ),
        (
            json!({ "from_domain": "a.test", "display_name": "A\r\nBcc: x@y.z" }),
            400,
            "display_name",
        ),
    ] {
        let put = harness.request(Method::PUT, "/v1/tenant/email").json(&body);
        let (got, error) = refused(put.send().await).await;
        assert_eq!((got, &error["param"]), (status, &json!(param)), "{body}");
    }
    // Another tenant does not get the domain; a smith does not see the account.
    let store = &harness.gateway.store;
    assert!(
        !store
            .claim_email_domain("acme.test", "proj_x", 1)
            .await
            .expect("asked")
    );
    let smith = harness.smith("openai-chat/text").await;
    let token = harness.smith_token(&smith, &["deployments:read"]).await;
    let call = harness
        .client
        .get(harness.url("/v1/tenant/email"))
        .bearer_auth(token);
    let (status, _) = refused(call.send().await).await;
    assert_eq!(status, 403);
    let gone = harness
        .request(Method::DELETE, "/v1/tenant/email")
        .send()
        .await;
    assert_eq!(gone.expect("an answer").status(), 204);
    let shown = ok(harness.get("/v1/tenant/email").send().await).await;
    assert_eq!(shown, json!({ "configured": false }));
    let mut smtp = post.smtp().await;
    smtp.say("HELO x").await;
    smtp.say("MAIL FROM:<a@good.test>").await;
    assert!(
        smtp.say("RCPT TO:<help@acme.test>")
            .await
            .starts_with("550")
    );
    let smith = json!({ "kind": "email", "target": { "type": "smith", "id": smith } });
    let (status, error) = refused(harness.post("/v1/deployments", &smith).send().await).await;
    assert_eq!(
        (status, &error["code"]),
        (400, &json!("email_unconfigured"))
    );
}

on_both_engines!(mail_and_its_domains_stay_apart);

async fn mail_and_its_domains_stay_apart(store: Arc<dyn smithgate::store::Store>) {
    use smithgate::store::{EmailMessageRow, SuppressionRow};
    let (ann, bob) = ("proj_ann", "proj_bob");
    let domain = async |name: &str| store.tenant_of_email_domain(name).await.expect("asked");
    let claim = async |name: &str, tenant: &str| {
        let claimed = store.claim_email_domain(name, tenant, 1).await;
        claimed.expect("asked")
    };
    assert!(claim("a.test", ann).await && claim("a.test", ann).await);
    assert!(!claim("a.test", bob).await && claim("b.test", bob).await);
    // A tenant has one: with the new one the old one is free.
    assert!(claim("c.test", ann).await);
    assert_eq!(domain("a.test").await, None);
    assert_eq!(domain("c.test").await.as_deref(), Some(ann));
    store.release_email_domains(ann).await.expect("released");
    assert_eq!(domain("c.test").await, None);
    assert_eq!(domain("b.test").await.as_deref(), Some(bob));
    let content: Vec<u8> = (0..2_500_000_u32).map(|n| n as u8).collect();
    for _ in 0..2 {
        let put = store.put_email_content(ann, "x", &content, 1).await;
        put.expect("kept");
    }
    let found = async |tenant: &str| store.email_content(tenant, "x").await.expect("asked");
    assert!(found(ann).await == Some(content) && found(bob).await.is_none());
    for (id, at) in [("1", 10), ("2", 20), ("2", 25), ("3", 30)] {
        let message = EmailMessageRow {
            tenant_id: ann.to_owned(),
            id: id.to_owned(),
            chat: format!("c{at}"),
            sender: "x@y.test".to_owned(),
            people: "[]".to_owned(),
            outbound_id: None,
            created_at: at,
        };
        store.note_email(&message).await.expect("noted");
    }
    let count = async |tenant: &str, since: i64, until: i64, limit: i64| {
        let counted = store.emails_of(tenant, "x@y.test", since, until, limit);
        counted.await.expect("counted")
    };
    assert_eq!(count(ann, 0, 100, 9).await, 3);
    assert_eq!(
        (count(ann, 11, 29, 9).await, count(ann, 0, 100, 2).await),
        (1, 2)
    );
    assert_eq!(count(bob, 0, 100, 9).await, 0);
    let second = store.email_message(ann, "2").await.expect("asked");
    assert_eq!(second.map(|found| found.chat).as_deref(), Some("c20"));
    assert_eq!(store.email_message(bob, "2").await.expect("asked"), None);
    for address in ["b@x.test", "a@x.test"] {
        let row = SuppressionRow {
            tenant_id: ann.to_owned(),
            address: address.to_owned(),
            reason: "manual".to_owned(),
            detail: None,
            created_at: 1,
        };
        store.put_suppression(&row).await.expect("kept");
    }
    let all = store.suppressions(ann, None, 10).await.expect("listed");
    let all: Vec<&str> = all.iter().map(|one| one.address.as_str()).collect();
    assert_eq!(all, ["a@x.test", "b@x.test"]);
    let next = store.suppressions(ann, Some("a@x.test"), 10).await;
    assert_eq!(next.expect("listed").len(), 1);
    assert!(
        !store
            .delete_suppression(bob, "a@x.test")
            .await
            .expect("asked")
    );
    assert!(
        store
            .delete_suppression(ann, "a@x.test")
            .await
            .expect("asked")
    );
    assert_eq!(
        store.suppression(ann, "a@x.test").await.expect("asked"),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_are_spoken_to_under_tls_and_with_a_password() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("made");
    let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    for (name, tls) in [("starttls", RelayTls::Starttls), ("tls", RelayTls::Tls)] {
        let out = dir.path().join(name);
        let mut command = tokio::process::Command::new(program("TEST_PYTHON"));
        command.arg(clients().join("mail_relay.py"));
        command.env("MAIL_OUT", &out).env("MAIL_TLS", name);
        command.env("MAIL_CERT", &cert).env("MAIL_KEY", &key);
        let relay = McpServer::start(command, "").await;
        let (_, port) = relay.url.rsplit_once(':').expect("a port");
        let relay_port: u16 = port.parse().expect("a number");
        let send = async |password: &str, ca: Option<&PathBuf>| {
            let post = Post::start_with(|email| {
                email.relay = Some(Relay {
                    host: "localhost".to_owned(),
                    port: relay_port,
                    username: Some("smith".to_owned()),
                    password: Some(password.to_owned()),
                    tls,
                    ca: ca.cloned(),
                });
            })
            .await;
            let deployment = post.catch_all("openai-chat/text").await;
            let letter = message("ann@good.test", "1@good.test", "", "Hi");
            post.deliver("ann@good.test", "help@acme.test", &letter)
                .await;
            let path = format!("/v1/deployments/{deployment}/deliveries");
            for _ in 0..200 {
                let all = post.list(&path).await;
                if let Some(one) = all.first()
                    && (one["status"] == "sent" || one["attempts"] != 0)
                {
                    return one.clone();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("{name}: nothing was sent");
        };
        let sent = send("pass word", Some(&cert)).await;
        assert_eq!(sent["status"], "sent", "{name}: {sent}");
        // Whoever the other side is, without proof it gets neither mail nor password.
        for (password, ca) in [("pass word", None), ("wrong", Some(&cert))] {
            let kept = send(password, ca).await;
            assert_eq!(kept["status"], "pending", "{name}: {kept}");
            assert!(!kept.to_string().contains("pass word"), "{kept}");
        }
        let taken = std::fs::read_to_string(&out).expect("letters");
        assert_eq!(taken.lines().count(), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smith_begins_a_conversation_and_whoever_is_silent_is_hung_up_on() {
    let post = Post::start_with(|email| email.timeout_s = 1).await;
    let harness = &post.harness;
    let smith = harness.tool_smith(&[]).await;
    let body = json!({ "kind": "email", "target": { "type": "smith", "id": smith },
        "address": "forge@acme.test" });
    ok(harness.post("/v1/deployments", &body).send().await).await;
    let script =
        "email_send {\"to\": \"Bob <bob@good.test>\", \"text\": \"# The offer\\n\\nHi Bob\"}";
    let letter = message("ann@good.test", "1@good.test", "", script);
    let letter = letter.replace("Subject: The forge\n", "");
    post.deliver("ann@good.test", "forge@acme.test", &letter)
        .await;
    let asked = post.read(&post.wait(1).await[0].1).await;
    let html = asked["html"].as_str().expect("HTML");
    assert!(
        html.contains("May I use <code>email_send</code>?"),
        "{html}"
    );
    let approvals = post.list("/v1/approvals").await;
    let run = approvals[0]["run_id"].as_str().expect("a run");
    let path = format!("/v1/smiths/{smith}/runs/{run}/submit");
    let body = json!({ "kind": "approval_decision", "approval_id": approvals[0]["id"],
        "decision": "approve" });
    ok(harness.post(&path, &body).send().await).await;
    let letters = post.wait(3).await;
    let (_, offer) = letters
        .iter()
        .find(|(to, _)| to == "bob@good.test")
        .expect("the offer");
    let offer = post.read(offer).await;
    assert_eq!(header(&offer, "Subject"), "The offer");
    assert_eq!(header(&offer, "To"), "Bob <bob@good.test>");
    assert_eq!(header(&offer, "From"), "Acme Smith <forge@acme.test>");
    // What Bob answers belongs to it.
    let id = header(&offer, "Message-ID");
    let answer = message(
        "bob@good.test",
        "2@good.test",
        &format!("In-Reply-To: {id}\n"),
        "Yes",
    );
    post.deliver("bob@good.test", "forge@acme.test", &answer)
        .await;
    post.reasons(2).await;
    let arrivals = post.list("/v1/inbound_events").await;
    assert_eq!(arrivals[0]["subject"], "to:bob@good.test");
    // Somebody else who knows its name is in another conversation.
    let other = message(
        "eve@lax.test",
        "3@lax.test",
        &format!("In-Reply-To: {id}\n"),
        "Me too",
    );
    post.deliver("eve@lax.test", "forge@acme.test", &other)
        .await;
    post.reasons(3).await;
    let arrivals = post.list("/v1/inbound_events").await;
    assert_ne!(arrivals[0]["subject"], "to:bob@good.test");
    let mut silent = post.smtp().await;
    assert!(silent.reply().await.starts_with("421 4.4.2"));
    assert_eq!(silent.reply().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_tools_make_are_attached_to_the_letter() {
    let post = Post::start().await;
    let workshop = Workshop::start().await;
    post.harness.put_workshop(&workshop).await;
    post.catch_all("openai-chat/script").await;
    let paint = "paint {\"thing\": \"wall\"}";
    let letter = message("ann@good.test", "1@good.test", "", paint);
    post.deliver("ann@good.test", "help@acme.test", &letter)
        .await;
    let letters = post.wait(1).await;
    let record = post.account["dkim_record"]["value"].as_str();
    let verified = tool(&["verify", record.expect("a record")], &letters[0].1).await;
    assert_eq!(verified, b"true\n");
    let read = post.read(&letters[0].1).await;
    assert_eq!(read["text"].as_str().map(str::trim), Some("Results:"));
    let files = read["files"].as_array().expect("files");
    assert_eq!(
        (files.len(), &files[0][0], &files[0][1]),
        (2, &json!("image-1.png"), &json!("image/png"))
    );
    assert_eq!(
        files[1],
        json!(["wall.pdf", "application/pdf", hex::encode(REPORT)])
    );
    // A picture in the words is no long line of letters, but attached, too.
    let sketch = "sketch {\"thing\": \"a cat\"}";
    let letter = message("ann@good.test", "2@good.test", "", sketch);
    post.deliver("ann@good.test", "help@acme.test", &letter)
        .await;
    let read = post.read(&post.wait(2).await[1].1).await;
    assert_eq!(read["text"].as_str().map(str::trim), Some("Results:"));
    assert_eq!(read["files"][0][0], "a cat.png");
}
