//! The published client packages, unmodified, in their own processes. The test command installs
//! them and tells where: `TEST_PYTHON`, an interpreter with `openai`; `TEST_PYTHON_OPENAI2`, one
//! with the major before; `TEST_NODE`, a Node whose packages are those of `tests/clients`;
//! `TEST_CHROMIUM`, a browser.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::assets::{clients, program};
use crate::support::{Harness, WIRES, ok};

async fn drive(interpreter: &str, script: &[&str]) {
    let program = std::env::var(interpreter)
        .unwrap_or_else(|_| panic!("{interpreter} is unset; `.ci/test` installs the clients"));
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/loop").await;
    let token = harness
        .smith_token(
            &smith,
            &[
                "runs:write",
                "runs:read",
                "conversations:write",
                "conversations:read",
            ],
        )
        .await;
    let models = json!({ "models": ["openai-chat/text", "openai-responses/text", "anthropic/*"] });
    let made = ok(harness.post("/v1/tenant/keys", &models).send().await).await;
    let key = made["token"].as_str().expect("a key");
    let wires: Vec<String> = WIRES
        .iter()
        .map(|(name, _)| name.replace('_', "-"))
        .collect();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let child = tokio::process::Command::new(program)
        .arg(scripts.join(script[0]))
        .args(&script[1..])
        .env("BASE_URL", harness.url("/v1"))
        .env("TOKEN", &harness.token)
        .env("SMITH", &smith)
        .env("SMITH_TOKEN", token)
        .env("KEY", key)
        .env("WIRES", wires.join(","))
        .env("NO_PROXY", "127.0.0.1")
        .env(
            "CHROMIUM",
            std::env::var("TEST_CHROMIUM").unwrap_or_default(),
        )
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), child)
        .await
        .expect("the client ends in time")
        .expect("the client starts");
    let told = String::from_utf8_lossy(&output.stdout);
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{told}\n{trouble}",
        output.status
    );
    println!("{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_for_python() {
    drive("TEST_PYTHON", &["chat.py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_for_python_on_responses() {
    drive("TEST_PYTHON", &["responses.py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_for_python_in_odd_ways() {
    drive("TEST_PYTHON", &["odd.py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_for_node() {
    drive("TEST_NODE", &["chat.mjs"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_for_node_on_responses() {
    drive("TEST_NODE", &["responses.mjs"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic_for_python() {
    drive("TEST_PYTHON", &["messages.py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic_for_node() {
    drive("TEST_NODE", &["messages.mjs"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_keys_for_python() {
    drive("TEST_PYTHON", &["keys.py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_keys_for_node() {
    drive("TEST_NODE", &["keys.mjs"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn google_genai_for_python() {
    drive("TEST_PYTHON", &["gemini.py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn google_genai_for_node() {
    drive("TEST_NODE", &["gemini.mjs"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ai_sdk() {
    drive("TEST_NODE", &["ai_sdk.mjs"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frameworks_of_python() {
    drive(
        "TEST_PYTHON",
        &["frameworks.py", "langchain", "agents", "litellm"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frameworks_of_python_on_the_openai_package_before() {
    drive("TEST_PYTHON_OPENAI2", &["frameworks.py", "llama_index"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn use_chat_in_a_browser() {
    drive("TEST_NODE", &["use_chat.mjs"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flue_and_its_provider_package() {
    drive("TEST_NODE", &["flue.mjs"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_eve() {
    drive("TEST_NODE", &["eve.mjs"]).await;
}

/// Codex, a coding agent that speaks Responses: `TEST_CODEX` is its script, else that of
/// `tests/clients`.
#[tokio::test(flavor = "multi_thread")]
async fn codex_runs_a_command_and_goes_on() {
    let packaged = clients().join("node_modules/@openai/codex/bin/codex.js");
    let script = std::env::var("TEST_CODEX").map_or(packaged, Into::into);
    let harness = Harness::start().await;
    let home = tempfile::tempdir().expect("a directory");
    let settings = format!(
        "model = \"openai-chat/script\"\nmodel_provider = \"smithgate\"\n\
         approval_policy = \"never\"\nsandbox_mode = \"danger-full-access\"\n\
         [model_providers.smithgate]\nname = \"Smithgate\"\nbase_url = \"{}\"\n\
         wire_api = \"responses\"\nenv_key = \"SMITHGATE_TOKEN\"\n\
         request_max_retries = 0\nstream_max_retries = 0\n",
        harness.url("/v1")
    );
    std::fs::write(home.path().join("config.toml"), settings).expect("written");
    // The scripted model calls what the user's line names; a group is one turn.
    let prompt = "exec_command {\"cmd\": \"echo smith$((40+2))\"}";
    let child = tokio::process::Command::new(program("TEST_NODE"))
        .arg(script)
        .args(["exec", "--skip-git-repo-check", "--json", prompt])
        .current_dir(home.path())
        .env("CODEX_HOME", home.path())
        .env("SMITHGATE_TOKEN", &harness.token)
        .env("NO_PROXY", "127.0.0.1")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), child)
        .await
        .expect("Codex ends in time")
        .expect("Codex starts");
    let told = String::from_utf8_lossy(&output.stdout);
    let trouble = String::from_utf8_lossy(&output.stderr);
    let got = harness.mock.got();
    let tools: Vec<String> = got
        .iter()
        .flat_map(|got| got.body["tools"].as_array().cloned().unwrap_or_default())
        .filter_map(|tool| tool["function"]["name"].as_str().map(str::to_owned))
        .collect();
    assert!(output.status.success(), "{told}\n{trouble}\n{tools:?}");
    assert!(
        told.contains("Results:") && told.contains("smith42"),
        "{told}\n{trouble}\n{tools:?}"
    );
    // The result of the call reached the model.
    let last = got.last().expect("a request").body["messages"].to_string();
    assert!(last.contains("smith42"), "{last}");
}

/// Claude Code, a coding agent that speaks Messages: `TEST_CLAUDE_CODE` is its program, else that of
/// `tests/clients`.
#[tokio::test(flavor = "multi_thread")]
async fn claude_code_runs_a_command_and_goes_on() {
    let packaged = clients().join("node_modules/@anthropic-ai/claude-code/bin/claude.exe");
    let program = std::env::var("TEST_CLAUDE_CODE").map_or(packaged, Into::into);
    let harness = Harness::start().await;
    let home = tempfile::tempdir().expect("a directory");
    // As Codex is asked.
    let prompt = "Bash {\"command\": \"echo smith$((40+2))\"}";
    let child = tokio::process::Command::new(program)
        .args(["-p", prompt, "--allowedTools", "Bash"])
        .args(["--output-format", "json"])
        .current_dir(home.path())
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env("ANTHROPIC_BASE_URL", harness.url(""))
        .env("ANTHROPIC_AUTH_TOKEN", &harness.token)
        .env("ANTHROPIC_MODEL", "openai-chat/script")
        .env("ANTHROPIC_DEFAULT_HAIKU_MODEL", "openai-chat/script")
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1")
        .env("NO_PROXY", "127.0.0.1")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), child)
        .await
        .expect("Claude Code ends in time")
        .expect("Claude Code starts");
    let told = String::from_utf8_lossy(&output.stdout);
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{trouble}");
    assert!(
        told.contains("Results:") && told.contains("smith42"),
        "{told}\n{trouble}"
    );
    // The result of the call reached the model.
    let got = harness.mock.last();
    assert!(got.body["messages"].to_string().contains("smith42"));
}
