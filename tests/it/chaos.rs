//! Runs with tools and approvals on two nodes, while nodes, PostgreSQL, Redis and the MCP server
//! are killed. Afterwards nothing is lost, doubled or stuck. `CHAOS_SEED` repeats a schedule,
//! `CHAOS_SECONDS` says how long.

mod channels;
mod clock;
mod seen;
mod senders;
mod weather;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::assets::{clients, program};
use crate::cli::{Running, token_in};
use crate::crash::with_mock;
use crate::mock::Mock;
use crate::nodes::Redis;
use crate::support::{check_gapless, free_address};

const WORKERS: u64 = 12;
const NODES: usize = 2;
/// How long everything may take to come to rest afterwards.
const SETTLE: Duration = Duration::from_secs(90);

/// Numbers that a seed repeats (SplitMix64).
struct Dice(AtomicU64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn below(&self, n: u64) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What the environment sets, or what is usual.
fn number(name: &str, usual: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A PostgreSQL that may be killed: the one that other tests use stays alone.
struct Postgres {
    bin: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
}

impl Postgres {
    fn start() -> Self {
        let found = std::fs::read_dir("/usr/lib/postgresql").expect("`.ci/test` installs it");
        let newest = found.flatten().map(|entry| entry.path()).max();
        let dir = tempfile::tempdir().expect("a directory");
        let postgres = Self {
            bin: newest.expect("a version").join("bin"),
            dir,
            port: free_address().port(),
        };
        if is_root() {
            let chown = std::process::Command::new("chown")
                .args(["postgres", &postgres.data("")])
                .status();
            assert!(chown.expect("started").success());
        }
        let data = postgres.data("db");
        postgres.run(
            "initdb",
            &["-D", &data, "-A", "trust", "-U", "smithgate", "-E", "UTF8"],
        );
        postgres.control("start");
        postgres
    }

    fn data(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    /// PostgreSQL refuses to run as root.
    fn run(&self, program: &str, args: &[&str]) {
        let program = self.bin.join(program);
        let mut command = if is_root() {
            let mut command = std::process::Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(&program);
            command
        } else {
            std::process::Command::new(&program)
        };
        let command = command.args(args).current_dir("/").stdout(Stdio::null());
        let done = command.stderr(Stdio::null()).status().expect("started");
        assert!(done.success(), "{program:?} {args:?}");
    }

    fn control(&self, action: &str) {
        let (data, log) = (self.data("db"), self.data("log"));
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 -c max_connections=100",
            self.port,
            self.data("")
        );
        let wait = ["-w", "-m", "immediate"];
        let mut args = vec!["-D", &data, "-l", &log, "-o", &options];
        args.extend(if action == "start" {
            &wait[..1]
        } else {
            &wait[..]
        });
        args.push(action);
        self.run("pg_ctl", &args);
    }

    fn url(&self) -> String {
        format!("postgres://smithgate@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.control("stop");
    }
}

/// What may be killed and started again, at its own address.
struct Program {
    make: Box<dyn Fn() -> Command + Send + Sync>,
    child: tokio::sync::Mutex<Option<Child>>,
}

impl Program {
    fn new(make: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        Self {
            make: Box::new(make),
            child: tokio::sync::Mutex::default(),
        }
    }

    /// As `kill -9`.
    async fn kill(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await.expect("killed");
        }
    }

    /// As whoever stops a service: asks it to end, and kills it when it does not.
    async fn stop(&self) {
        let Some(mut child) = self.child.lock().await.take() else {
            return;
        };
        if let Some(pid) = child.id() {
            let mut asked = Command::new("kill");
            let asked = asked.args(["-TERM", &pid.to_string()]).status().await;
            // It may have ended by itself.
            let _ = asked.expect("started");
        }
        let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
        if ended.is_err() {
            child.kill().await.expect("killed");
        }
    }

    /// Starts it if it does not run; it may have given up while something else was down.
    async fn keep(&self) {
        let mut child = self.child.lock().await;
        let runs = child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if !runs {
            *child = Some((self.make)().spawn().expect("started"));
        }
    }
}

#[derive(Default)]
struct Counts {
    kills: AtomicUsize,
    acknowledged: parking_lot::Mutex<Vec<String>>,
    followed: AtomicUsize,
    reconnects: AtomicUsize,
    decisions: AtomicUsize,
}

struct Site {
    dice: Dice,
    nodes: Vec<(SocketAddr, Program)>,
    workshop: Program,
    ledger: PathBuf,
    client: reqwest::Client,
    token: String,
    smith: String,
    over: AtomicBool,
    counts: Counts,
    _mock: Mock,
    _dir: tempfile::TempDir,
}

fn quiet(mut command: Command, log: &Path) -> Command {
    let open = std::fs::File::options().create(true).append(true).open(log);
    let open = open.expect("a log");
    command
        .stdout(open.try_clone().expect("a log"))
        .stderr(open);
    command.kill_on_drop(true);
    command
}

impl Site {
    async fn set(seed: u64, store: &str, redis: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mock = Mock::start().await;
        let ledger = dir.path().join("ledger");
        let port = free_address().port();
        let (lines, log) = (ledger.clone(), dir.path().join("workshop.log"));
        let workshop = Program::new(move || {
            let mut command = Command::new(program("TEST_PYTHON"));
            command.arg(clients().join("mcp_workshop.py"));
            command.env("PORT", port.to_string()).env("LEDGER", &lines);
            quiet(command, &log)
        });
        workshop.keep().await;
        let made = with_mock(dir.path(), &mock, Some(store));
        let settings: Vec<(std::ffi::OsString, std::ffi::OsString)> = made
            .as_std()
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        let redis = redis.to_owned();
        let home = dir.path().to_owned();
        let command = move |address: SocketAddr, name: String| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_smithgate"));
            command
                .env_clear()
                .envs(settings.clone())
                .current_dir(&home);
            command.env("SMITHGATE_EGRESS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]");
            command.env("SMITHGATE_LIMITS__LEASE_MS", "1500");
            command.env("SMITHGATE_LIMITS__MAX_WORKER_LAG_MS", "0");
            command.env("SMITHGATE_BUS__REDIS_URL", &redis);
            command.env("SMITHGATE_SERVER__LISTEN", address.to_string());
            command.env("SMITHGATE_METRICS__LISTEN", free_address().to_string());
            quiet(command, &home.join(name))
        };
        let first = {
            let mut command = command(free_address(), "first.log".to_owned());
            command.stdout(Stdio::piped());
            command
        };
        let (running, printed) = Running::start(first, "listens on").await;
        let token = token_in(&printed).expect("a token").to_owned();
        let put = running.client.put(running.url("/v1/tenant/mcp/workshop"));
        let body = json!({ "url": format!("http://127.0.0.1:{port}/mcp"),
            "auth": { "kind": "none" } });
        let mut listed = Value::Null;
        for _ in 0..100 {
            let put = put.try_clone().expect("a request").bearer_auth(&token);
            listed = crate::support::ok(put.json(&body).send().await).await;
            if listed["status"] == "active" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(listed["status"], "active", "{listed}");
        let made = running.client.post(running.url("/v1/smiths"));
        let made = made
            .bearer_auth(&token)
            .json(&json!({ "model": "mock/script" }));
        let smith: Value = crate::support::ok(made.send().await).await;
        drop(running);
        let mut nodes = Vec::new();
        for at in 0..NODES {
            let (address, command) = (free_address(), command.clone());
            let node = Program::new(move || command(address, format!("node-{at}.log")));
            node.keep().await;
            nodes.push((address, node));
        }
        let client = reqwest::Client::builder().no_proxy();
        let client = client.timeout(Duration::from_secs(30)).build();
        Self {
            dice: Dice::new(seed),
            nodes,
            workshop,
            ledger,
            client: client.expect("a client"),
            token,
            smith: smith["id"].as_str().expect("an id").to_owned(),
            over: AtomicBool::new(false),
            counts: Counts::default(),
            _mock: mock,
            _dir: dir,
        }
    }

    /// A call of any node.
    fn call(&self, dice: &Dice, method: Method, path: &str) -> RequestBuilder {
        let (address, _) = &self.nodes[dice.below(NODES as u64) as usize];
        let call = self
            .client
            .request(method, format!("http://{address}{path}"));
        call.bearer_auth(&self.token)
    }

    /// What is read, from whichever node can.
    async fn read(&self, dice: &Dice, path: &str) -> Value {
        let until = Instant::now() + SETTLE;
        loop {
            if let Ok(answer) = self.call(dice, Method::GET, path).send().await
                && answer.status().is_success()
                && let Ok(value) = answer.json().await
            {
                return value;
            }
            assert!(Instant::now() < until, "nobody answers {path}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn runs(&self) -> String {
        format!("/v1/smiths/{}/runs", self.smith)
    }

    async fn work(self: Arc<Self>, worker: u64, seed: u64) {
        let dice = Dice::new(seed ^ (worker << 32));
        for n in 0.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let thing = format!("w{worker}n{n}");
            let forge = format!("forge {{\"thing\": \"{thing}\", \"seconds\": 0.2}}");
            let melt = format!("melt {{\"thing\": \"{thing}\"}}");
            let measure = format!("measure {{\"thing\": \"{thing}\"}}");
            let script = match dice.below(5) {
                0 => measure,
                1 => forge,
                2 => melt,
                3 => format!("{measure}\n---\n{forge}\n---\n{melt}"),
                _ => format!("{forge}\n{measure}"),
            };
            match dice.below(3) {
                0 => self.follow_one(&dice, &script).await,
                _ => self.ask_one(&dice, &script, &thing).await,
            }
            tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
        }
    }

    /// Asks until it is answered, under one idempotency key.
    async fn ask_one(&self, dice: &Dice, script: &str, key: &str) {
        let body = json!({ "input": [{ "role": "user", "content": script }] });
        let until = Instant::now() + SETTLE;
        while Instant::now() < until {
            let call = self.call(dice, Method::POST, &self.runs()).json(&body);
            if let Ok(answer) = call.header("Idempotency-Key", key).send().await
                && answer.status().is_success()
                && let Ok(run) = answer.json::<Value>().await
            {
                let id = run["id"].as_str().expect("an id").to_owned();
                self.counts.acknowledged.lock().push(id);
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{key} was never answered");
    }

    /// Starts a run, and follows it over whatever nodes there are until it rests.
    async fn follow_one(&self, dice: &Dice, script: &str) {
        let body = json!({ "stream": true,
            "input": [{ "role": "user", "content": script }] });
        let begun = self.call(dice, Method::POST, &self.runs()).json(&body);
        let Ok(begun) = begun.send().await else {
            return;
        };
        if !begun.status().is_success() {
            return;
        }
        let mut seen = Seen::default();
        seen.read(begun).await;
        let Some(run) = seen.run_id.clone() else {
            return;
        };
        let path = format!("{}/{run}/events", self.runs());
        let until = Instant::now() + SETTLE;
        while !seen.rests() && Instant::now() < until {
            self.counts.reconnects.fetch_add(1, Ordering::Relaxed);
            let mut call = self.call(dice, Method::GET, &path);
            if let Some(last) = seen.ids.last() {
                call = call.header("Last-Event-ID", last.to_string());
            }
            if let Ok(answer) = call.send().await
                && answer.status().is_success()
            {
                seen.read(answer).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(seen.rests(), "{run} never rests: {:?}", seen.names);
        check_gapless(&seen.ids, &format!("{run}: {:?}", seen.names));
        self.counts.followed.fetch_add(1, Ordering::Relaxed);
    }

    /// Decides on whatever waits, one in five against it.
    async fn approve(self: Arc<Self>, seed: u64, done: Arc<AtomicBool>) {
        let dice = Dice::new(seed);
        while !done.load(Ordering::Relaxed) {
            let waiting = self.call(&dice, Method::GET, "/v1/approvals?status=pending&limit=50");
            if let Ok(answer) = waiting.send().await
                && let Ok(page) = answer.json::<Value>().await
            {
                for approval in page["data"].as_array().into_iter().flatten() {
                    let run = approval["run_id"].as_str().expect("a run");
                    let decision = if dice.below(5) == 0 {
                        "reject"
                    } else {
                        "approve"
                    };
                    let word = json!({ "kind": "approval_decision", "decision": decision,
                        "approval_id": approval["id"] });
                    let path = format!("{}/{run}/submit", self.runs());
                    let said = self.call(&dice, Method::POST, &path).json(&word).send();
                    if said.await.is_ok_and(|answer| answer.status().is_success()) {
                        self.counts.decisions.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn keep_all(&self) {
        for (_, node) in &self.nodes {
            node.keep().await;
        }
        self.workshop.keep().await;
    }

    /// Kills one thing after the other.
    async fn break_things(&self, postgres: &Postgres, redis: &mut Redis, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1500 + self.dice.below(3000))).await;
            let gone = Duration::from_millis(self.dice.below(2000));
            self.counts.kills.fetch_add(1, Ordering::Relaxed);
            match self.dice.below(8) {
                0..4 => {
                    let (_, node) = &self.nodes[self.dice.below(NODES as u64) as usize];
                    node.kill().await;
                    tokio::time::sleep(gone).await;
                }
                4 => redis.restart(gone).await,
                5 => tokio::task::block_in_place(|| postgres.control("restart")),
                _ => {
                    self.workshop.kill().await;
                    tokio::time::sleep(gone).await;
                }
            }
            self.keep_all().await;
        }
    }

    /// All runs, once none is under way.
    async fn at_rest(&self) -> Vec<Value> {
        let dice = Dice::new(0);
        let until = Instant::now() + SETTLE;
        loop {
            self.keep_all().await;
            let mut runs: Vec<Value> = Vec::new();
            let mut path = "/v1/runs?limit=100".to_owned();
            loop {
                let page = self.read(&dice, &path).await;
                runs.extend(page["data"].as_array().expect("runs").iter().cloned());
                match page["next_cursor"].as_str() {
                    Some(cursor) => path = format!("/v1/runs?limit=100&cursor={cursor}"),
                    None => break,
                }
            }
            let is_done = |run: &Value| {
                matches!(
                    run["status"].as_str(),
                    Some("completed" | "failed" | "cancelled")
                )
            };
            let stuck: Vec<&Value> = runs.iter().filter(|run| !is_done(run)).collect();
            if stuck.is_empty() {
                return runs;
            }
            assert!(Instant::now() < until, "these never rest: {stuck:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// What was seen of a run's stream.
#[derive(Default)]
struct Seen {
    run_id: Option<String>,
    ids: Vec<u64>,
    names: Vec<String>,
}

impl Seen {
    /// Reads as far as the stream goes; a piece of an event that broke off does not count.
    async fn read(&mut self, answer: reqwest::Response) {
        let mut pieces = answer.bytes_stream();
        let mut text = String::new();
        while let Some(Ok(piece)) = pieces.next().await {
            text.push_str(&String::from_utf8_lossy(&piece));
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                if let (Some(id), Some(name)) = (field("id: "), field("event: ")) {
                    self.ids.push(id.parse().expect("a number"));
                    self.names.push(name.to_owned());
                    if self.run_id.is_none()
                        && let Some(at) = event.find("\"run_1")
                    {
                        self.run_id = event[at + 1..].split('"').next().map(str::to_owned);
                    }
                }
            }
        }
    }

    fn rests(&self) -> bool {
        let rests = ["run.completed", "run.failed", "run.cancelled", "run.paused"];
        self.names
            .last()
            .is_some_and(|name| rests.contains(&name.as_str()))
    }
}

/// How often each side effect began, by its tool and thing.
fn effects(ledger: &Path) -> HashMap<(String, String), usize> {
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    let mut effects = HashMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let tool = match words.next() {
            Some("begin") => "forge",
            Some("melt") => "melt",
            _ => continue,
        };
        let thing = words.next().unwrap_or_default().to_owned();
        *effects.entry((tool.to_owned(), thing)).or_default() += 1;
    }
    effects
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes and the whole machine: `.ci/test` runs it by itself"]
async fn nothing_is_lost_doubled_or_stuck() {
    let seed = number("CHAOS_SEED", 20_261_125);
    let time = Duration::from_secs(number("CHAOS_SECONDS", 150));
    let postgres = tokio::task::block_in_place(Postgres::start);
    let mut redis = Redis::start().await;
    let site = Arc::new(Site::set(seed, &postgres.url(), &redis.url()).await);
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| tokio::spawn(site.clone().work(worker, seed)))
        .collect();
    let decided = Arc::new(AtomicBool::new(false));
    let approver = tokio::spawn(site.clone().approve(seed, decided.clone()));
    site.break_things(&postgres, &mut redis, time).await;
    site.over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.expect("what a client saw is right");
    }
    let runs = site.at_rest().await;
    decided.store(true, Ordering::Relaxed);
    approver.await.expect("decides");

    let known: HashMap<&str, &Value> = runs
        .iter()
        .map(|run| (run["id"].as_str().expect("an id"), run))
        .collect();
    let acknowledged = site.counts.acknowledged.lock().clone();
    for id in &acknowledged {
        assert!(
            known.contains_key(id.as_str()),
            "{id} was answered and is lost"
        );
    }
    let effects = effects(&site.ledger);
    let mut things = HashMap::new();
    let dice = Dice::new(1);
    let (mut statuses, mut unknown) = (BTreeMap::new(), 0);
    for run in &runs {
        let (id, status) = (&run["id"], run["status"].as_str().expect("a status"));
        *statuses.entry(status.to_owned()).or_insert(0) += 1;
        let id = id.as_str().expect("an id");
        let path = format!("{}/{id}/events?follow=false", site.runs());
        let log = site.call(&dice, Method::GET, &path).send().await;
        let mut seen = Seen::default();
        seen.read(log.expect("a log")).await;
        check_gapless(&seen.ids, &format!("{id}: {:?}", seen.names));
        assert!(
            seen.rests(),
            "{id} is {status}, its log ends with {:?}",
            seen.names.last()
        );
        let ends = ["run.completed", "run.failed", "run.cancelled"];
        let is_end = |name: &&String| ends.contains(&name.as_str());
        assert_eq!(
            seen.names.iter().filter(is_end).count(),
            1,
            "{id}: {:?}",
            seen.names
        );
        // One run for one thing, however often it was asked for.
        let script = run["input"][0]["content"].as_str().expect("a script");
        let thing = script.split('"').nth(3).expect("a thing").to_owned();
        if let Some(other) = things.insert(thing.clone(), id) {
            panic!("{thing} is made by {other} and {id}");
        }
        let told = run["output"]["content"].as_str().unwrap_or_default();
        for tool in ["forge", "melt"]
            .iter()
            .filter(|tool| script.contains(**tool))
        {
            let times = effects.get(&((*tool).to_owned(), thing.clone())).copied();
            let is_told = told.contains(&match *tool {
                "forge" => format!("{thing} is forged"),
                _ => format!("{thing} is molten"),
            });
            match times.unwrap_or(0) {
                0 => assert!(!is_told, "{id}: {tool} did not run: {run}"),
                1 if is_told => {}
                // Done, and the run was told that nobody knows, or it ended before it could be.
                1 => {
                    let says_so = told.contains("unknown") || told.contains("may or may not");
                    unknown += usize::from(says_so);
                    let ended = status != "completed" || run["stop_reason"] != "end_turn";
                    assert!(says_so || ended, "{id}: {tool} ran, and is not told: {run}");
                }
                more => panic!("{id}: {tool} ran {more} times: {run}"),
            }
        }
    }
    assert!(
        acknowledged.len() > 50,
        "too little was done: {}",
        acknowledged.len()
    );
    println!(
        "chaos, seed {seed}, {} s: {} kills; {} runs {statuses:?}, {} answered, {} followed with \
         {} reconnects; {} side effects, {unknown} of unknown outcome; {} decisions",
        time.as_secs(),
        site.counts.kills.load(Ordering::Relaxed),
        runs.len(),
        acknowledged.len(),
        site.counts.followed.load(Ordering::Relaxed),
        site.counts.reconnects.load(Ordering::Relaxed),
        effects.len(),
        site.counts.decisions.load(Ordering::Relaxed),
    );
}
