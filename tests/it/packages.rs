//! The TypeScript packages of `clients/`: built from the gateway's own document, and run against
//! it.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Harness, text};

fn clients() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The packages are published with what this document says.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_is_made_of_the_document_that_is_served() {
    let harness = Harness::start().await;
    let served = text(harness.get("/openapi.json").send().await).await;
    let kept = clients().join("sdk/openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&kept, &served).expect("written");
    }
    let kept = std::fs::read_to_string(kept).unwrap_or_default();
    assert!(
        kept == served,
        "clients/sdk/openapi.json is of another version: run this test with UPDATE_OPENAPI=1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_packages_build_and_work() {
    let node = std::env::var("TEST_NODE").expect("TEST_NODE; `.ci/test` installs the clients");
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/text").await;
    let token = harness
        .smith_token(&smith, &["runs:write", "runs:read"])
        .await;
    let run = async |program: &str, arguments: &[&str]| {
        let child = tokio::process::Command::new(program)
            .args(arguments)
            .current_dir(clients())
            .env("GATEWAY", harness.url(""))
            .env("TOKEN", &harness.token)
            .env("SMITH", &smith)
            .env("SMITH_TOKEN", &token)
            .env("NO_PROXY", "127.0.0.1")
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(180), child)
            .await
            .expect("an end in time")
            .expect("a start");
        let told = String::from_utf8_lossy(&output.stdout);
        let trouble = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}\n{told}\n{trouble}");
    };
    run("npm", &["run", "build", "--silent"]).await;
    run(&node, &["--test", "test/packages.test.mjs"]).await;
}
