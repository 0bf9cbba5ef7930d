//! Nodes of one PostgreSQL and one Redis: what one does, the other shows.

use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::cli::{Running, token_in};
use crate::crash::with_mock;
use crate::mock::Mock;
use crate::store::postgres_url;
use crate::support::{check_gapless, free_address, ok};
use crate::tools::Workshop;

/// A Redis of a test's own, from Debian's package.
pub struct Redis {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Redis {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_address().port();
        let child = Self::spawn(port, &dir).await;
        Self { child, port, dir }
    }

    async fn spawn(port: u16, dir: &tempfile::TempDir) -> Child {
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("`.ci/test` installs redis-server");
        for _ in 0..100 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok()
            {
                return child;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("Redis does not start");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it and starts it again, with nothing of what it knew, after `gone`.
    pub async fn restart(&mut self, gone: Duration) {
        self.child.kill().await.expect("killed");
        tokio::time::sleep(gone).await;
        self.child = Self::spawn(self.port, &self.dir).await;
    }
}

struct Pair {
    first: Running,
    second: Running,
    token: String,
    redis: Redis,
    _dir: tempfile::TempDir,
    mock: Mock,
}

impl Pair {
    async fn start() -> Self {
        let store = postgres_url().await;
        let redis = Redis::start().await;
        let dir = tempfile::tempdir().expect("a directory");
        let mock = Mock::start().await;
        let command = || {
            let mut command = with_mock(dir.path(), &mock, Some(&store));
            command.env("SMITHGATE_BUS__REDIS_URL", redis.url());
            command.env("SMITHGATE_EGRESS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]");
            command
        };
        let (first, printed) = Running::start(command(), "listens on").await;
        let token = token_in(&printed).expect("a token").to_owned();
        let (second, _) = Running::start(command(), "listens on").await;
        Self {
            first,
            second,
            token,
            redis,
            _dir: dir,
            mock,
        }
    }

    fn call(&self, node: &Running, method: Method, path: &str) -> reqwest::RequestBuilder {
        let call = node.client.request(method, node.url(path));
        call.bearer_auth(&self.token)
    }

    async fn smith(&self) -> String {
        let call = self.call(&self.first, Method::POST, "/v1/smiths");
        let made = ok(call
            .json(&json!({ "model": "mock/fault-slow" }))
            .send()
            .await)
        .await;
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Follows a run of the first node on the second one; answers the events' ids and names, and
    /// how many pieces they came in.
    async fn follow(&self, smith: &str) -> (Vec<String>, Vec<String>, usize) {
        let runs = format!("/v1/smiths/{smith}/runs");
        let body = json!({ "stream": true, "input": [{ "role": "user", "content": "hi" }] });
        let begun = self.call(&self.first, Method::POST, &runs).json(&body);
        let mut begun = begun.send().await.expect("a stream").bytes_stream();
        let head = begun.next().await.expect("an event").expect("bytes");
        let run = id_in(&head);
        let events = format!("{runs}/{run}/events");
        let followed = self.call(&self.second, Method::GET, &events).send().await;
        let followed = followed.expect("a stream");
        assert_eq!(
            followed.status(),
            200,
            "{}",
            followed.text().await.expect("text")
        );
        let mut followed = followed.bytes_stream();
        let (mut text, mut pieces) = (Vec::new(), 0);
        while let Some(piece) = followed.next().await {
            text.extend_from_slice(&piece.expect("bytes"));
            pieces += 1;
        }
        let text = String::from_utf8(text).expect("text");
        let lines = |prefix: &str| -> Vec<String> {
            let found = text.lines().filter_map(|line| line.strip_prefix(prefix));
            found.map(str::to_owned).collect()
        };
        (lines("id: "), lines("event: "), pieces)
    }
}

fn id_in(head: &[u8]) -> String {
    let text = String::from_utf8_lossy(head);
    let at = text.find("\"run_1").expect("the run's id");
    let id = text[at + 1..].split('"').next();
    id.expect("the run's id").to_owned()
}

fn check_whole(ids: &[String], names: &[String]) {
    check_gapless(ids, "");
    assert_eq!(
        names.last().map(String::as_str),
        Some("run.completed"),
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_followed_on_another_node_as_it_streams() {
    let pair = Pair::start().await;
    let smith = pair.smith().await;
    let (ids, names, pieces) = pair.follow(&smith).await;
    check_whole(&ids, &names);
    let texts = names.iter().filter(|name| *name == "message.delta").count();
    assert!(
        texts >= 3 && pieces >= texts,
        "{texts} texts came in {pieces} pieces"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_followed_while_redis_is_away() {
    let mut pair = Pair::start().await;
    let smith = pair.smith().await;
    pair.redis.child.kill().await.expect("killed");
    let (ids, names, _) = pair.follow(&smith).await;
    check_whole(&ids, &names);
    pair.redis.restart(Duration::ZERO).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (ids, names, pieces) = pair.follow(&smith).await;
    check_whole(&ids, &names);
    let texts = names.iter().filter(|name| *name == "message.delta").count();
    assert!(pieces >= texts, "{texts} texts came in {pieces} pieces");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_or_changed_on_one_node_is_so_on_the_other() {
    let pair = Pair::start().await;
    let smith = pair.smith().await;
    let models = |token: &str| {
        let call = pair.second.client.get(pair.second.url("/v1/models"));
        call.bearer_auth(token).send()
    };
    // Six in a row within a third of a second each: the two-second look at the store is not it.
    for _ in 0..6 {
        let body = json!({ "scope": "smith", "smith_id": smith, "permissions": ["runs:write"] });
        let mint = pair.call(&pair.first, Method::POST, "/v1/tenant/tokens");
        let minted: Value = ok(mint.json(&body).send().await).await;
        let token = minted["token"].as_str().expect("a token");
        let status = models(token).await.expect("an answer").status();
        assert_ne!(status, 401);
        let path = format!(
            "/v1/tenant/tokens/{}",
            minted["id"].as_str().expect("an id")
        );
        let revoked = pair.call(&pair.first, Method::DELETE, &path).send().await;
        assert!(revoked.expect("an answer").status().is_success());
        let since = Instant::now();
        while models(token).await.expect("an answer").status() != 401 {
            assert!(
                since.elapsed() < Duration::from_millis(333),
                "it is still taken"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let runs = format!("/v1/smiths/{smith}/runs");
    let input = |text: &str| json!({ "input": [{ "role": "user", "content": text }] });
    // A smith's configuration, which the second node remembers for three seconds.
    for (model, answer) in [
        ("text", "Hello"),
        ("structured", "Ada"),
        ("text", "Hello"),
        ("structured", "Ada"),
    ] {
        let path = format!("/v1/smiths/{smith}");
        let change = pair.call(&pair.first, Method::PATCH, &path);
        ok(change
            .json(&json!({ "model": format!("mock/{model}") }))
            .send()
            .await)
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let run = pair.call(&pair.second, Method::POST, &runs);
        let run: Value = ok(run.json(&input("hi")).send().await).await;
        let content = run["output"]["content"].to_string();
        assert!(content.contains(answer), "{run}");
    }

    // A tenant's key, and a server's tools.
    for key in ["key-1", "key-2", "key-3"] {
        let put = pair.call(&pair.first, Method::PUT, "/v1/tenant/model_keys/mock");
        ok(put.json(&json!({ "api_key": key })).send().await).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let run = pair.call(&pair.second, Method::POST, &runs);
        ok(run.json(&input("hi")).send().await).await;
        let used = pair.mock.last();
        assert_eq!(
            used.header("authorization"),
            Some(&*format!("Bearer {key}"))
        );
    }
    let workshop = Workshop::start().await;
    let path = format!("/v1/smiths/{smith}");
    let change = pair.call(&pair.first, Method::PATCH, &path);
    ok(change.json(&json!({ "model": "mock/script" })).send().await).await;
    for is_allowed in [true, false, true] {
        let mut settings = workshop.settings();
        if !is_allowed {
            settings["tool_allowlist"] = json!([]);
        }
        let put = pair.call(&pair.first, Method::PUT, "/v1/tenant/mcp/workshop");
        ok(put.json(&settings).send().await).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let run = pair.call(&pair.second, Method::POST, &runs);
        let run = run.json(&input("measure {\"thing\": \"rod\"}"));
        let run: Value = ok(run.send().await).await;
        let content = run["output"]["content"].to_string();
        assert_eq!(content.contains("rod: 12 cm"), is_allowed, "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_of_one_thread_at_two_nodes_know_each_other_or_are_refused() {
    let pair = Pair::start().await;
    let made = pair.call(&pair.first, Method::POST, "/v1/smiths");
    let made = ok(made.json(&json!({ "model": "mock/text" })).send().await).await;
    let smith = made["id"].as_str().expect("an id").to_owned();
    let mut refusals = 0;
    for round in 0..60_u64 {
        let words = [format!("first {round}."), format!("second {round}.")];
        let turn = |node, said: &str| {
            let body = json!({ "messages": [{ "role": "user", "content": said }] });
            let call = pair
                .call(node, Method::POST, "/v1/chat/completions")
                .json(&body);
            let call = call.header("ic-smith-id", &smith);
            call.header("ic-thread-id", format!("t{round}")).send()
        };
        let late = async {
            tokio::time::sleep(Duration::from_millis(round % 20)).await;
            turn(&pair.second, &words[1]).await
        };
        let (one, two) = tokio::join!(turn(&pair.first, &words[0]), late);
        let mut statuses = [0; 2];
        for (answer, status) in [one, two].into_iter().zip(&mut statuses) {
            let answer = answer.expect("an answer");
            *status = answer.status().as_u16();
            if *status == 409 {
                let error: Value = answer.json().await.expect("JSON");
                assert_eq!(error["error"]["code"], "conversation_locked");
                refusals += 1;
            }
        }
        match statuses {
            [200, 200] => {
                let both = |body: &Value| {
                    let text = body["messages"].to_string();
                    words.iter().all(|said| text.contains(said.as_str()))
                };
                let known = pair.mock.got().iter().filter(|got| both(&got.body)).count();
                assert_eq!(known, 1, "round {round}: a turn does not know the other");
            }
            [200, 409] | [409, 200] => {}
            other => panic!("round {round}: {other:?}"),
        }
    }
    assert!(refusals > 0, "the nodes never met");
}
