//! The binary in a process of its own, as an operator starts it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::mock::Mock;
use crate::support::{free_address, ok, said, text};

/// The binary, with its data in `dir` and nothing of this process's environment.
pub fn smithgate(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smithgate"));
    command.env_clear().current_dir(dir).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // Many gateways share the machine, and are behind together.
    command.env("SMITHGATE_LIMITS__MAX_WORKER_LAG_MS", "0");
    command
}

async fn ended(mut command: Command) -> Output {
    let output = command.spawn().expect("started").wait_with_output();
    tokio::time::timeout(Duration::from_secs(20), output)
        .await
        .expect("ends in time")
        .expect("output")
}

pub struct Running {
    pub child: Child,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
    pub client: Client,
}

impl Running {
    /// Starts, and reads what is printed until a line contains `until`.
    pub async fn start(mut command: Command, until: &str) -> (Self, String) {
        let address = free_address();
        command.env("SMITHGATE_SERVER__LISTEN", address.to_string());
        command.env("SMITHGATE_METRICS__LISTEN", free_address().to_string());
        let mut child = command.spawn().expect("started");
        let stdout = child.stdout.take().expect("piped");
        let mut lines = BufReader::new(stdout).lines();
        let mut printed = String::new();
        let reading = async {
            while let Some(line) = lines.next_line().await.expect("text") {
                printed.push_str(&line);
                printed.push('\n');
                if line.contains(until) {
                    return;
                }
            }
            panic!("it never said {until:?}: {printed}");
        };
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .expect("starts in time");
        let client = Client::builder().no_proxy().build().expect("a client");
        let running = Self {
            child,
            lines,
            address,
            client,
        };
        (running, printed)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn chat(&self, token: &str, model: &str) -> reqwest::Result<reqwest::Response> {
        let messages = json!([{ "role": "user", "content": "Hello!" }]);
        let body = json!({ "model": model, "stream": true, "messages": messages });
        let call = self.client.post(self.url("/v1/chat/completions"));
        call.bearer_auth(token).json(&body).send().await
    }

    pub fn terminate(&self) {
        let pid = self.child.id().expect("running").to_string();
        let status = std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status();
        assert!(status.expect("kill").success());
    }

    /// The exit's success and what was printed until then.
    pub async fn end(mut self) -> (bool, String) {
        let mut printed = String::new();
        let reading = async {
            while let Some(line) = self.lines.next_line().await.expect("text") {
                printed.push_str(&line);
                printed.push('\n');
            }
            self.child.wait().await.expect("waited").success()
        };
        let success = tokio::time::timeout(Duration::from_secs(20), reading);
        (success.await.expect("ends in time"), printed)
    }
}

pub fn token_in(printed: &str) -> Option<&str> {
    let at = printed.find("tha_live_")?;
    printed[at..].split_whitespace().next()
}

const CONFIG: &str = r#"
[providers.mock]
wire = "openai_chat"
base_url = "{base}"
needs_key = false
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_shows_its_token_once_and_a_drain_ends_streams() {
    let dir = tempfile::tempdir().expect("a directory");
    let mock = Mock::start().await;
    let config = CONFIG.replace("{base}", &mock.url("openai_chat"));
    std::fs::write(dir.path().join("smithgate.toml"), config).expect("written");
    let serve = || {
        let mut command = smithgate(dir.path());
        command.args(["--config", "smithgate.toml"]);
        command
    };
    let (gateway, printed) = Running::start(serve(), "listens on").await;
    let token = token_in(&printed).expect("a token").to_owned();
    let stream = text(gateway.chat(&token, "mock/text").await).await;
    assert_eq!(said(&stream), "Hello, \"wörld\" \n😀");

    // A second process on the same data is refused; minting a token beside the first is not, and
    // does not touch what the first one runs.
    let mut second = serve();
    second.args(["serve", "--listen", &free_address().to_string()]);
    let refused = ended(second).await;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && why.contains("data_dir"),
        "{why}"
    );
    let slow = gateway
        .chat(&token, "mock/fault-drip")
        .await
        .expect("an answer");
    assert_eq!(slow.status(), StatusCode::OK);
    let mut mint = serve();
    mint.args(["token", "--name", "second", "--ttl", "3600"]);
    let minted = ended(mint).await;
    let minted = String::from_utf8_lossy(&minted.stdout).trim().to_owned();
    assert!(minted.starts_with("tha_live_"), "{minted}");
    let listed = gateway
        .client
        .get(gateway.url("/v1/tenant/tokens"))
        .bearer_auth(&minted);
    let listed = ok(listed.send().await).await;
    assert!(listed["data"].to_string().contains("second"), "{listed}");

    gateway.terminate();
    let stream = slow.text().await.expect("the stream ends");
    assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
    let (success, printed) = gateway.end().await;
    assert!(success && printed.contains("draining"), "{printed}");

    let (gateway, printed) = Running::start(serve(), "listens on").await;
    assert_eq!(token_in(&printed), None, "{printed}");
    let stream = text(gateway.chat(&token, "mock/text").await).await;
    assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
    gateway.terminate();
    assert!(gateway.end().await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_answers_without_a_key_and_remembers() {
    let dir = tempfile::tempdir().expect("a directory");
    let demo = || {
        let mut command = smithgate(dir.path());
        command.arg("demo");
        command
    };
    let (gateway, printed) = Running::start(demo(), "leave the model empty").await;
    let token = token_in(&printed).expect("a token").to_owned();
    let file = dir.path().join("data/demo/demo.token");
    assert_eq!(
        std::fs::read_to_string(file).expect("the token's file"),
        token
    );
    let stream = text(gateway.chat(&token, "demo/echo").await).await;
    assert!(said(&stream).contains("You said: \"Hello!\""), "{stream}");
    let smith = printed
        .split_whitespace()
        .find(|word| word.starts_with("smt_"))
        .expect("a smith");
    for turn in 0..2 {
        let messages = json!([{ "role": "user", "content": format!("turn {turn}") }]);
        let call = gateway
            .client
            .post(gateway.url("/v1/chat/completions"))
            .bearer_auth(&token)
            .header("IC-Smith-Id", smith)
            .header("IC-Thread-Id", "t")
            .json(&json!({ "model": "", "messages": messages }));
        let answer: Value = ok(call.send().await).await;
        let content = answer["choices"][0]["message"]["content"]
            .as_str()
            .expect("text");
        assert!(
            content.contains("My instructions: Be kind and brief."),
            "{content}"
        );
        assert_eq!(
            content.contains("I remember one message"),
            turn == 1,
            "{content}"
        );
    }
    gateway.terminate();
    assert!(gateway.end().await.0);
    // The same demo again, with the same token.
    let (gateway, printed) = Running::start(demo(), "leave the model empty").await;
    assert_eq!(token_in(&printed), Some(token.as_str()));
    gateway.terminate();
    assert!(gateway.end().await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_errors_name_the_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/smithgate.example.toml");
    let mut command = smithgate(dir.path());
    command.args(["check-config", "--config", example]);
    let valid = ended(command).await;
    assert!(valid.status.success());
    assert!(String::from_utf8_lossy(&valid.stdout).contains("127.0.0.1:8080"));
    for (key, text) in [
        ("server.listen", "[server]\nlisten = \"nowhere\"\n"),
        ("server.lisen", "[server]\nlisen = \"127.0.0.1:1\"\n"),
        (
            "limits.idle_timeout_ms",
            "[limits]\nidle_timeout_ms = \"soon\"\n",
        ),
        (
            "providers.x.wire",
            "[providers.x]\nwire = \"smoke\"\nbase_url = \"http://x\"\n",
        ),
        ("secrets.master_key", "[secrets]\nmaster_key = \"short\"\n"),
        (
            "egress.allow_networks",
            "[egress]\nallow_networks = [\"10.0.0.0/99\"]\n",
        ),
    ] {
        std::fs::write(dir.path().join("bad.toml"), text).expect("written");
        let mut command = smithgate(dir.path());
        command.args(["check-config", "--config", "bad.toml"]);
        let refused = ended(command).await;
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "{key}: accepted");
        assert!(
            why.contains(key.rsplit('.').next().unwrap_or(key)),
            "{key}: {why}"
        );
    }
    // Variables that another program set under our prefix are left alone.
    let mut command = smithgate(dir.path());
    command
        .args(["check-config"])
        .env("SMITHGATE_PORT", "tcp://10.0.0.1:8080");
    assert!(ended(command).await.status.success());
    // The environment is configuration too, and wins over the file.
    let mut command = smithgate(dir.path());
    command
        .args(["check-config"])
        .env("SMITHGATE_SERVER__WORKERS", "many");
    let refused = ended(command).await;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && why.to_lowercase().contains("server.workers"),
        "{why}"
    );
}
