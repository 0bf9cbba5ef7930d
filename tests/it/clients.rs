//! The published client packages, unmodified, in their own processes. The test command installs
//! them and tells where: `TEST_PYTHON`, an interpreter with `openai`; `TEST_PYTHON_OPENAI2`, one
//! with the major before; `TEST_NODE`, a Node whose packages are those of `tests/clients`;
//! `TEST_CHROMIUM`, a browser.

use std::path::Path;
use std::time::Duration;

use crate::support::{Harness, WIRES};

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
async fn openai_for_node() {
    drive("TEST_NODE", &["chat.mjs"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_for_node_on_responses() {
    drive("TEST_NODE", &["responses.mjs"]).await;
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
