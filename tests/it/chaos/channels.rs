//! Two nodes, six channels, schedules every few seconds and twelve people who write, while nodes are
//! killed and stopped, PostgreSQL and Redis are cut off, and platforms answer 429 and 500 and break
//! connections off. Afterwards every message has one turn and one answer, or one of which it is
//! reported that nobody knows whether it came there; in order; and every fire is one.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Connection;
use tokio::process::Command;

use super::clock::Clock;
use super::seen::check;
use super::senders::{KINDS, SENDERS, Sender};
use super::weather::Weather;
use super::{Dice, NODES, Postgres, Program, number, quiet};
use crate::assets::McpServer;
use crate::cli::{Running, smithgate, token_in};
use crate::nodes::Redis;
use crate::support::{free_address, ok};
use crate::{discord, email, slack, slack_platform, telegram, webpage, whatsapp};

/// How long everything may take to come to rest afterwards: what is tried again waits longer each time.
pub const SETTLE: Duration = Duration::from_secs(150);

/// Times as the API says them, in microseconds since the epoch.
pub fn micros(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("no time: {time}"));
    let time: jiff::Timestamp = text.parse().expect("a time");
    time.as_microsecond()
}

/// Whether work was given up because it was under way whenever its node was killed: it is taken for the
/// cause then, although here it was chance.
pub fn is_given_up(why: &Value) -> bool {
    why.to_string().contains("ended its node")
}

/// What answers on a channel.
pub struct Deployment {
    kind: &'static str,
    pub id: String,
}

#[derive(Default)]
pub struct Counts {
    pub repeated: AtomicUsize,
    killed: AtomicUsize,
    stopped: AtomicUsize,
    cut: AtomicUsize,
}

/// The platforms, behind their weather.
struct Platforms {
    weather: Arc<Weather>,
    discord: Arc<discord::Platform>,
    /// What the gateway is told of them.
    settings: Vec<(String, String)>,
    _telegram: telegram::BotApi,
    _slack: slack_platform::Slack,
    _relay: McpServer,
}

impl Platforms {
    async fn start(seed: u64, home: &Path) -> Self {
        let weather = Weather::new(seed ^ 0x77);
        let telegram = telegram::BotApi::start().await;
        let slack = slack_platform::Slack::start().await;
        let (_, whatsapp) = whatsapp::Platform::start().await;
        let (discord, discord_at) = discord::Platform::start().await;
        let key = hex::encode(discord_key());
        discord.verify_key.lock().clone_from(&key);
        let (relay, port) = email::relay(&home.join("mail")).await;
        let records = email::Records::default();
        records.lock().extend([
            (
                "good.test".to_owned(),
                "v=spf1 ip4:127.0.0.1 -all".to_owned(),
            ),
            ("_dmarc.good.test".to_owned(), "v=DMARC1; p=none".to_owned()),
        ]);
        let names = email::name_server(records).await;
        let channel = |name: &str, value: String| {
            let name = format!("SMITHGATE_CHANNELS__{name}");
            (name, value)
        };
        let before = |kind, behind| weather.before(kind, behind);
        let (telegram_at, slack_at) = (telegram.address, slack.address);
        let settings = vec![
            channel(
                "TELEGRAM_URL",
                format!("http://{}", before("telegram", telegram_at).await),
            ),
            channel(
                "SLACK_URL",
                format!("http://{}", before("slack", slack_at).await),
            ),
            channel(
                "WHATSAPP_URL",
                format!("http://{}/v26.0", before("whatsapp", whatsapp).await),
            ),
            channel("WHATSAPP_APP_SECRET", whatsapp::SECRET.to_owned()),
            channel("WHATSAPP_VERIFY_TOKEN", whatsapp::VERIFY.to_owned()),
            channel(
                "DISCORD_URL",
                format!("http://{}/api/v10", before("discord", discord_at).await),
            ),
            channel("EMAIL__HOSTNAME", "gate.test".to_owned()),
            channel("EMAIL__NAME_SERVER", names.to_string()),
            channel("EMAIL__MAX_PER_SENDER_HOUR", "100000".to_owned()),
            channel("EMAIL__RELAY__HOST", "127.0.0.1".to_owned()),
            channel(
                "EMAIL__RELAY__PORT",
                weather.before_mail(port).await.to_string(),
            ),
            channel("EMAIL__RELAY__TLS", "none".to_owned()),
        ];
        Self {
            weather,
            discord,
            settings,
            _telegram: telegram,
            _slack: slack,
            _relay: relay,
        }
    }
}

fn discord_key() -> Vec<u8> {
    use aws_lc_rs::signature::KeyPair;
    discord::pair().public_key().as_ref().to_vec()
}

/// All that there is.
pub struct Site {
    pub nodes: Vec<(SocketAddr, Program)>,
    pub client: reqwest::Client,
    pub tenant: String,
    pub discord: Arc<discord::Platform>,
    pub store: String,
    pub store_is_calm: tokio::sync::Mutex<()>,
    pub over: AtomicBool,
    pub counts: Counts,
    deployments: Vec<Deployment>,
    token: String,
    pub weather: Arc<Weather>,
    dice: Dice,
    clock: Clock,
    _platforms: Platforms,
    _dir: tempfile::TempDir,
}

/// Sets the tenant's accounts, and a smith of its own for whoever writes on a channel.
async fn set_up(running: &Running, token: &str) -> (String, Vec<Deployment>) {
    let call = |method: &str, path: &str, body: Value| {
        let method = method.parse().expect("a method");
        let call = running.client.request(method, running.url(path));
        let call = call.bearer_auth(token).json(&body);
        async move { ok(call.send().await).await }
    };
    let telegram = json!({ "bot_token": telegram::TOKEN, "webhook_secret": telegram::SECRET });
    let made = call("PUT", "/v1/tenant/telegram", telegram).await;
    let hook = made["webhook_url"].as_str().expect("a hook");
    let (_, tenant) = hook.rsplit_once('/').expect("a path");
    let slack = json!({ "bot_token": slack_platform::BOT, "signing_secret": slack::SECRET });
    call("PUT", "/v1/tenant/slack", slack).await;
    let whatsapp = json!({ "phone_number_id": whatsapp::NUMBER, "access_token": whatsapp::TOKEN,
        "waba_id": whatsapp::WABA });
    call("PUT", "/v1/tenant/whatsapp", whatsapp).await;
    let discord = json!({ "application_id": discord::APPLICATION, "bot_token": discord::TOKEN,
        "public_key": hex::encode(discord_key()), "gateway": false });
    call("PUT", "/v1/tenant/discord", discord).await;
    let email = json!({ "from_domain": "acme.test", "inbound_secret": email::SECRET });
    call("PUT", "/v1/tenant/email", email).await;
    let agent = call("POST", "/v1/agents", json!({ "name": "A" })).await;
    let agent = agent["id"].as_str().expect("an id");
    let draft = json!({ "model": "parrot/quick", "instructions": "Be brief." });
    call("PATCH", &format!("/v1/agents/{agent}"), draft).await;
    call("POST", &format!("/v1/agents/{agent}/versions"), json!({})).await;
    let mut deployments = Vec::new();
    for kind in KINDS {
        let body = json!({ "kind": kind, "target": { "type": "agent", "id": agent } });
        let made = call("POST", "/v1/deployments", body).await;
        deployments.push(Deployment {
            kind,
            id: made["id"].as_str().expect("an id").to_owned(),
        });
    }
    (tenant.to_owned(), deployments)
}

impl Site {
    async fn set(seed: u64, store: &str, redis: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let platforms = Platforms::start(seed, dir.path()).await;
        let mut settings = platforms.settings.clone();
        let parrot = webpage::parrot().await;
        for (name, value) in [
            ("STORE__URL", store),
            ("BUS__REDIS_URL", redis),
            ("EGRESS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]"),
            ("SERVER__PUBLIC_URL", "https://gateway.example"),
            ("SERVER__DRAIN_TIMEOUT_S", "4"),
            ("LIMITS__LEASE_MS", "1500"),
            ("LIMITS__MAX_WORKER_LAG_MS", "0"),
            ("PROVIDERS__PARROT__WIRE", "openai_chat"),
            ("PROVIDERS__PARROT__BASE_URL", &parrot),
            ("PROVIDERS__PARROT__API_KEY", "key"),
        ] {
            settings.push((format!("SMITHGATE_{name}"), value.to_owned()));
        }
        let home = dir.path().to_owned();
        let command = move |address: SocketAddr, log: &str| {
            let mut command = smithgate(&home);
            command.envs(settings.clone());
            command.env("SMITHGATE_SERVER__LISTEN", address.to_string());
            command.env("SMITHGATE_METRICS__LISTEN", free_address().to_string());
            quiet(command, &home.join(log))
        };
        let mut first: Command = command(free_address(), "first.log");
        first.stdout(Stdio::piped());
        let (running, printed) = Running::start(first, "listens on").await;
        let token = token_in(&printed).expect("a token").to_owned();
        let (tenant, deployments) = set_up(&running, &token).await;
        let clock = Clock::make(|path, body| {
            let call = running.client.post(running.url(path));
            call.bearer_auth(&token).json(&body)
        })
        .await;
        drop(running);
        let mut nodes = Vec::new();
        for at in 0..NODES {
            let (address, command) = (free_address(), command.clone());
            let node = Program::new(move || command(address, &format!("node-{at}.log")));
            node.keep().await;
            nodes.push((address, node));
        }
        let client = reqwest::Client::builder().no_proxy();
        let client = client.timeout(Duration::from_secs(30)).build();
        Self {
            nodes,
            client: client.expect("a client"),
            tenant,
            discord: platforms.discord.clone(),
            store: store.to_owned(),
            store_is_calm: tokio::sync::Mutex::default(),
            over: AtomicBool::new(false),
            counts: Counts::default(),
            deployments,
            token,
            weather: platforms.weather.clone(),
            dice: Dice::new(seed),
            clock,
            _platforms: platforms,
            _dir: dir,
        }
    }

    pub fn deployment(&self, kind: &str) -> &Deployment {
        let found = self.deployments.iter().find(|one| one.kind == kind);
        found.expect("each channel has one")
    }

    pub fn some_node(&self, dice: &Dice) -> SocketAddr {
        self.nodes[dice.below(NODES as u64) as usize].0
    }

    /// What is read, from whichever node can.
    async fn read(&self, path: &str) -> Value {
        let until = Instant::now() + SETTLE;
        for at in 0.. {
            let (node, _) = &self.nodes[at % NODES];
            let call = self.client.get(format!("http://{node}{path}"));
            if let Ok(answer) = call.bearer_auth(&self.token).send().await
                && answer.status().is_success()
                && let Ok(value) = answer.json().await
            {
                return value;
            }
            assert!(Instant::now() < until, "nobody answers {path}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Value::Null
    }

    /// All that a list has, page by page.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let page = self.read(&format!("{path}{join}limit=100{cursor}")).await;
            found.extend(page["data"].as_array().expect("a page").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    }

    /// Breaks one thing after the other.
    async fn break_things(&self, postgres: &Postgres, redis: &mut Redis, time: Duration) {
        let until = Instant::now() + time;
        let add = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1500 + self.dice.below(3000))).await;
            let gone = Duration::from_millis(self.dice.below(2000));
            let (_, node) = &self.nodes[self.dice.below(NODES as u64) as usize];
            match self.dice.below(9) {
                0..4 => {
                    add(&self.counts.killed);
                    node.kill().await;
                    tokio::time::sleep(gone).await;
                }
                4 | 5 => {
                    add(&self.counts.stopped);
                    node.stop().await;
                    tokio::time::sleep(gone).await;
                }
                6 => {
                    add(&self.counts.cut);
                    let _calm = self.store_is_calm.lock().await;
                    cut_off(&self.store).await;
                }
                7 => {
                    add(&self.counts.cut);
                    let _calm = self.store_is_calm.lock().await;
                    tokio::task::block_in_place(|| postgres.control("restart"));
                }
                _ => {
                    add(&self.counts.cut);
                    redis.restart(gone).await;
                }
            }
            self.keep_all().await;
        }
    }

    async fn keep_all(&self) {
        for (_, node) in &self.nodes {
            node.keep().await;
        }
    }

    async fn deliveries(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for one in &self.deployments {
            let path = format!("/v1/deployments/{}/deliveries", one.id);
            all.extend(self.all(&path).await);
        }
        all
    }

    /// Arrivals, runs and deliveries, once nothing is under way.
    async fn at_rest(&self, taken: usize) -> [Vec<Value>; 3] {
        let until = Instant::now() + SETTLE;
        loop {
            self.keep_all().await;
            let is_in_time = self.clock.is_at_rest(self).await;
            let arrivals = self.all("/v1/inbound_events").await;
            let mut runs = self.all("/v1/runs").await;
            let deliveries = self.deliveries().await;
            let mut waiting: Vec<&Value> = Vec::new();
            waiting.extend(arrivals.iter().filter(|one| one["status"] == "accepted"));
            let is_over = |run: &Value| {
                ["completed", "failed", "cancelled"].contains(&run["status"].as_str().unwrap_or(""))
            };
            waiting.extend(runs.iter().filter(|run| !is_over(run)));
            waiting.extend(deliveries.iter().filter(|one| one["status"] == "pending"));
            let answered = deliveries.len();
            let is_in_time = is_in_time && self.weather.untold.lock().is_empty();
            if waiting.is_empty() && is_in_time && answered >= taken {
                runs.sort_by_key(|run| micros(&run["created_at"]));
                return [arrivals, runs, deliveries];
            }
            assert!(
                Instant::now() < until,
                "{answered} of {taken} are answered, all is told in time: {is_in_time}; \
                 these never rest: {waiting:?}"
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Ends all connections to PostgreSQL.
async fn cut_off(store: &str) {
    let mut own = sqlx::PgConnection::connect(store).await;
    let own = own.as_mut().expect("PostgreSQL is there");
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )
    .execute(own)
    .await
    .expect("cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes and the whole machine: `.ci/test` runs it by itself"]
async fn every_message_is_answered_once_and_every_fire_is_one() {
    let seed = number("CHAOS_SEED", 20_261_128);
    let time = Duration::from_secs(number("CHAOS_SECONDS", 150));
    let postgres = tokio::task::block_in_place(Postgres::start);
    let mut redis = Redis::start().await;
    let site = Arc::new(Site::set(seed, &postgres.url(), &redis.url()).await);
    let mut writing = Vec::new();
    for kind in KINDS {
        for at in 0..SENDERS {
            let cookie = String::new();
            let mut sender = Sender { kind, at, cookie };
            sender.open_page(&site).await;
            let sender = Arc::new(sender);
            let seed = seed ^ ((writing.len() as u64 + 1) << 32);
            let task = tokio::spawn(sender.clone().write(site.clone(), seed));
            writing.push((sender, task));
        }
    }
    let (kind, cookie) = ("whatsapp", String::new());
    let teller = Sender {
        kind,
        at: SENDERS,
        cookie,
    };
    let teller = tokio::spawn(teller.tell(site.clone(), seed ^ 0x99));
    let clock = site.clone();
    let clock = tokio::spawn(async move { clock.clock.put_forward(clock.clone(), seed).await });
    site.weather.is_fair.store(false, Ordering::Relaxed);
    site.break_things(&postgres, &mut redis, time).await;
    site.over.store(true, Ordering::Relaxed);
    clock.await.expect("the schedules are put forward");
    let mut senders = Vec::new();
    for (sender, task) in writing {
        senders.push((sender, task.await.expect("all that was said was taken")));
    }
    site.weather.is_fair.store(true, Ordering::Relaxed);
    let taken = senders.iter().map(|(_, taken)| taken).sum();
    let ended = Instant::now();
    let rest = site.at_rest(taken).await;
    let rested = ended.elapsed().as_secs();
    teller.abort();
    let seen = check(&site, &senders, &rest).await;
    let fires = site.clock.check(&site, &rest[1], seen.fires_given_up).await;
    let enough = time.as_secs() as usize * 2;
    assert!(taken > enough, "too little was said: {taken}");
    let often = time.as_secs() as usize / 5;
    assert!(fires.fired > often, "too little fired: {fires:?}");
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let (counts, weather) = (&site.counts, &site.weather);
    println!(
        "chaos channels, seed {seed}, {} s: {} nodes killed, {} stopped, {} cuts of PostgreSQL and \
         Redis; platforms answered {} times 429, {} times 500 and cut {} connections; {taken} \
         messages of {} senders on {} channels, delivered again {} times; {} answered once, {} of \
         unknown outcome ({} came), {} sent twice under one name, {} left half shown, {} given up with an apology; {} fires that \
         stand for {} missed ones; at rest after {rested} s",
        time.as_secs(),
        count(&counts.killed),
        count(&counts.stopped),
        count(&counts.cut),
        count(&weather.busy),
        count(&weather.broken),
        count(&weather.cut),
        senders.len(),
        KINDS.len(),
        count(&counts.repeated),
        seen.sent,
        seen.unknown,
        seen.unknown_came,
        seen.folded,
        seen.left,
        seen.given_up,
        fires.fired,
        fires.missed,
    );
    assert!(seen.faults.is_empty(), "{}", seen.faults.join("\n"));
}
