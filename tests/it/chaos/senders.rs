//! Who writes: two people on each channel, each in a thread of their own, whose platform delivers a
//! message again under its own name until it is told that it was taken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::Dice;
use super::channels::{SETTLE, Site};
use crate::{discord, email, slack, telegram, webpage, whatsapp};

/// The channels.
pub const KINDS: [&str; 6] = ["telegram", "slack", "whatsapp", "discord", "email", "web"];
/// On each channel.
pub const SENDERS: usize = 2;
/// How long a platform waits for an answer before it delivers again.
const PLATFORM_WAITS: Duration = Duration::from_secs(5);

/// A message as its platform delivers it, again and again the same.
struct Delivery {
    path: String,
    body: String,
}

/// A person who writes on a channel.
pub struct Sender {
    pub kind: &'static str,
    /// Which of the channel's.
    pub at: usize,
    /// Of a web page.
    pub cookie: String,
}

impl Sender {
    pub fn name(&self) -> String {
        format!("{}{}", self.kind, self.at)
    }

    /// What is said `n`th: a word that tells whose and which it is, and how long the answer takes.
    fn text(&self, n: usize, is_slow: bool) -> String {
        let rest = match is_slow {
            true => "is said slowly and word by word until all of it is whole",
            false => "is whole",
        };
        format!("{}x{n} {rest}", self.name())
    }

    fn delivery(&self, site: &Site, n: usize, text: &str) -> Delivery {
        let (at, tenant) = (self.at, &site.tenant);
        let (path, body) = match self.kind {
            "telegram" => {
                let update = 1_000_000 * at as i64 + n as i64 + 1;
                let body = telegram::message(update, 40 + at as i64, text);
                (format!("/v1/telegram/webhook/{tenant}"), body.to_string())
            }
            "slack" => {
                let mut event = slack::direct(&format!("17000000{at}.{n:06}"), text);
                event["channel"] = json!(format!("D{at}"));
                event["user"] = json!(format!("U{at}"));
                let body = slack::envelope(&format!("Ev{at}x{n}"), event);
                (format!("/v1/slack/events/{tenant}"), body.to_string())
            }
            "whatsapp" => {
                let from = format!("1650555123{at}");
                let id = format!("wamid.{at}x{n}");
                let said = json!({ "messages": [whatsapp::message(&id, &from, text)],
                    "contacts": [{ "profile": { "name": "Ann" }, "wa_id": from }] });
                let body = whatsapp::delivery(whatsapp::NUMBER, said);
                ("/v1/whatsapp/webhook".to_owned(), body.to_string())
            }
            "discord" => {
                let number = (100_000 * at + n) as u64;
                let user = format!("5390823250618368{at}");
                let asked = discord::question(text);
                let mut body = discord::interaction(number, 2, &user, &asked, 0);
                body["channel_id"] = json!(format!("64502790666951066{at}"));
                let token = body["token"].as_str().expect("a token").to_owned();
                // Whoever asks is shown that an answer is awaited.
                site.discord.originals.lock().insert(token, None);
                (format!("/v1/discord/webhook/{tenant}"), body.to_string())
            }
            "email" => {
                let id = |n: usize| format!("{at}.{n}@good.test");
                let more = match n {
                    0 => String::new(),
                    _ => format!("In-Reply-To: <{0}>\nReferences: <{0}>\n", id(0)),
                };
                let from = format!("ann{at}@good.test");
                let body = email::message(&from, &id(n), &more, text);
                let path = format!("/v1/email/inbound/{tenant}");
                (path, body.replace('\n', "\r\n"))
            }
            _ => {
                let page = &site.deployment("web").id;
                let body = json!({ "id": format!("m-{n}"), "text": text });
                (format!("/hosted/{page}/messages"), body.to_string())
            }
        };
        Delivery { path, body }
    }

    /// The request that delivers, signed as of now.
    fn request(&self, site: &Site, node: SocketAddr, delivery: &Delivery) -> RequestBuilder {
        let url = format!("http://{node}{}", delivery.path);
        let call = site.client.request(Method::POST, url);
        let call = call.timeout(PLATFORM_WAITS).body(delivery.body.clone());
        let json = "application/json";
        match self.kind {
            "telegram" => call
                .header("content-type", json)
                .header("X-Telegram-Bot-Api-Secret-Token", telegram::SECRET),
            "slack" => {
                let now = slack::now_s();
                let signature = slack::signed(slack::SECRET, now, &delivery.body);
                call.header("content-type", json)
                    .header("X-Slack-Request-Timestamp", now.to_string())
                    .header("X-Slack-Signature", signature)
            }
            "whatsapp" => call.header(
                "X-Hub-Signature-256",
                whatsapp::signature(whatsapp::SECRET, &delivery.body),
            ),
            "discord" => {
                let now = discord::now_s().to_string();
                let signature = discord::pair().sign(format!("{now}{}", delivery.body).as_bytes());
                call.header("X-Signature-Ed25519", hex::encode(signature.as_ref()))
                    .header("X-Signature-Timestamp", now)
            }
            "email" => call
                .header("content-type", "message/rfc822")
                .header("X-Inbound-Secret", email::SECRET),
            _ => self.of_page(call).header("content-type", json),
        }
    }

    fn of_page(&self, call: RequestBuilder) -> RequestBuilder {
        call.header("cookie", &self.cookie)
            .header("x-smithgate-page", "page")
            .header("sec-fetch-site", "same-origin")
    }

    /// Opens the page, which makes its visitor known.
    pub async fn open_page(&mut self, site: &Site) {
        if self.kind != "web" {
            return;
        }
        let (node, _) = &site.nodes[0];
        let url = format!("http://{node}/hosted/{}", site.deployment("web").id);
        let until = Instant::now() + SETTLE;
        loop {
            if let Ok(answer) = site.client.get(&url).send().await
                && let Some(cookie) = webpage::cookie_of(&answer)
            {
                self.cookie = cookie;
                return;
            }
            assert!(Instant::now() < until, "the page does not open");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What the visitor's page shows.
    pub async fn page_shows(&self, site: &Site) -> Value {
        let (node, _) = &site.nodes[0];
        let url = format!(
            "http://{node}/hosted/{}/messages",
            site.deployment("web").id
        );
        let shown = self.of_page(site.client.get(url)).send().await;
        crate::support::ok(shown).await
    }

    /// Delivers once; whether it was taken.
    async fn deliver(&self, site: &Site, node: SocketAddr, delivery: &Delivery) -> bool {
        let Ok(answer) = self.request(site, node, delivery).send().await else {
            return false;
        };
        let status = answer.status();
        let told = answer.text().await;
        assert!(
            status.is_success() || status.is_server_error() || status.as_u16() == 429,
            "{} is refused: {status} {told:?}",
            self.name()
        );
        status.is_success() && told.is_ok()
    }

    /// Tells as WhatsApp what has become of each message that it took, for ever.
    pub async fn tell(self, site: Arc<Site>, seed: u64) {
        let dice = Dice::new(seed);
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let Some((id, key)) = site.weather.untold.lock().front().cloned() else {
                continue;
            };
            let told = json!({ "id": id, "status": "sent", "timestamp": "1750030073",
                "recipient_id": "16505551230", "biz_opaque_callback_data": key });
            let body = whatsapp::delivery(whatsapp::NUMBER, json!({ "statuses": [told] }));
            let delivery = Delivery {
                path: "/v1/whatsapp/webhook".to_owned(),
                body: body.to_string(),
            };
            if self.deliver(&site, site.some_node(&dice), &delivery).await {
                site.weather.untold.lock().pop_front();
            }
        }
    }

    /// Writes until all is over; answers how many messages were taken.
    pub async fn write(self: Arc<Self>, site: Arc<Site>, seed: u64) -> usize {
        let dice = Dice::new(seed);
        for n in 0.. {
            if site.over.load(Ordering::Relaxed) {
                return n;
            }
            let text = self.text(n, dice.below(4) == 0);
            let delivery = self.delivery(&site, n, &text);
            let until = Instant::now() + SETTLE;
            let again = || site.counts.repeated.fetch_add(1, Ordering::Relaxed);
            while !self.deliver(&site, site.some_node(&dice), &delivery).await {
                assert!(Instant::now() < until, "{text} is never taken");
                again();
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            // Some platforms did not hear that, and deliver once more.
            if dice.below(8) == 0 {
                again();
                self.deliver(&site, site.some_node(&dice), &delivery).await;
            }
            tokio::time::sleep(Duration::from_millis(500 + dice.below(1500))).await;
        }
        0
    }
}
