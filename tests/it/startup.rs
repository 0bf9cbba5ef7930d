//! What keeps the gateway from starting is told in a sentence, and nothing is overwritten.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use sqlx::Connection;

use crate::cli::{Running, smithgate, token_in};
use crate::support::free_address;

/// Starts it where it cannot; answers what it says.
async fn refusal(dir: &Path, set: &[(&str, &str)]) -> String {
    let mut command = smithgate(dir);
    command.env("SMITHGATE_SERVER__LISTEN", free_address().to_string());
    command.env("SMITHGATE_METRICS__LISTEN", free_address().to_string());
    command.envs(set.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.spawn().expect("started").wait_with_output();
    let output = tokio::time::timeout(Duration::from_secs(40), output);
    let output = output.await.expect("it ends").expect("output");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        !said.contains("panicked") && !said.contains("backtrace"),
        "{said}"
    );
    let line = said.lines().find(|line| line.starts_with("smithgate: "));
    line.unwrap_or_else(|| panic!("no sentence: {said}"))
        .to_owned()
}

async fn begun(dir: &Path) -> Running {
    let mut command = smithgate(dir);
    command.env("SMITHGATE_DATA_DIR", dir.join("data"));
    Running::start(command, "listens on").await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_be_says_why_in_a_sentence() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path();
    let data = dir.join("data");
    let data_dir = data.to_string_lossy().into_owned();
    let here = [("SMITHGATE_DATA_DIR", data_dir.as_str())];
    let mut running = begun(dir).await;

    // Two processes on one directory.
    let said = refusal(dir, &here).await;
    assert!(said.contains("another smithgate serves from it"), "{said}");
    // A port that is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").to_string();
    let elsewhere = dir.join("elsewhere").to_string_lossy().into_owned();
    let set = [
        ("SMITHGATE_DATA_DIR", elsewhere.as_str()),
        ("SMITHGATE_SERVER__LISTEN", port.as_str()),
    ];
    let said = refusal(dir, &set).await;
    assert!(
        said.contains("server.listen") && said.contains(&port),
        "{said}"
    );
    running.child.kill().await.expect("killed");

    // Another key, by configuration or in the file; then none.
    let before = std::fs::read(data.join("master.key")).expect("a key");
    let wrong = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let set = [here[0], ("SMITHGATE_SECRETS__MASTER_KEY", wrong)];
    let said = refusal(dir, &set).await;
    assert!(
        said.contains("secrets.master_key") && said.contains("not the key"),
        "{said}"
    );
    assert_eq!(
        std::fs::read(data.join("master.key")).expect("a key"),
        before
    );
    std::fs::remove_file(data.join("master.key")).expect("removed");
    let said = refusal(dir, &here).await;
    assert!(said.contains("master.key is missing"), "{said}");
    assert!(
        !data.join("master.key").exists(),
        "a key was made that fits nothing"
    );
    std::fs::write(data.join("master.key"), &before).expect("written");

    // A schema of another time.
    let file = data.join("smithgate.db");
    let mut database = sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display()))
        .await
        .expect("opened");
    sqlx::raw_sql(
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, \
         execution_time) VALUES (9999, 'later', '2030-01-01', TRUE, x'00', 1)",
    )
    .execute(&mut database)
    .await
    .expect("written");
    let said = refusal(dir, &here).await;
    assert!(
        said.contains("newer smithgate") && said.contains("9999"),
        "{said}"
    );
    sqlx::raw_sql(
        "DELETE FROM _sqlx_migrations WHERE version = 9999; PRAGMA wal_checkpoint(TRUNCATE)",
    )
    .execute(&mut database)
    .await
    .expect("written");
    database.close().await.expect("closed");

    // A file that is cut short, emptied, or none of a database.
    let whole = std::fs::read(&file).expect("the database");
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(data.join(format!("smithgate.db{suffix}")));
    }
    for (content, why) in [
        (whole[..whole.len() / 2].to_vec(), "cut short"),
        (whole[..50].to_vec(), "cut short"),
        (Vec::new(), "cut short"),
        (
            b"This is a text, and a long one at that. ".repeat(500),
            "no database",
        ),
    ] {
        std::fs::write(&file, &content).expect("written");
        let said = refusal(dir, &here).await;
        assert!(
            said.contains(why) && said.contains("smithgate.db"),
            "{why}: {said}"
        );
        assert_eq!(
            std::fs::read(&file).expect("read"),
            content,
            "{why}: it was changed"
        );
    }
    std::fs::write(&file, &whole).expect("written");
    let mut command = smithgate(dir);
    command.env("SMITHGATE_DATA_DIR", &data_dir);
    let (_running, printed) = Running::start(command, "listens on").await;
    assert_eq!(token_in(&printed), None, "it is the store of before");

    // A directory that cannot be, and a PostgreSQL that does not answer.
    std::fs::write(dir.join("file"), "x").expect("written");
    let below = dir.join("file/data").to_string_lossy().into_owned();
    let said = refusal(dir, &[("SMITHGATE_DATA_DIR", below.as_str())]).await;
    assert!(
        said.contains("data directory") && said.contains(&below),
        "{said}"
    );
    let url = format!("postgres://somebody:secret@{}/x", free_address());
    let said = refusal(dir, &[("SMITHGATE_STORE__URL", url.as_str())]).await;
    assert!(
        said.contains("store.url") && !said.contains("secret"),
        "{said}"
    );
}
