//! The same suite on both engines. PostgreSQL is the server at `TEST_POSTGRES_URL`, which
//! the test command starts; each test has a database of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use serde_json::json;
use smithgate::frame::{self, Escaped, Frame};
use smithgate::store::*;
use sqlx::Connection;

use crate::support::{Harness, ok, said, text};

/// The URL of a new, empty database.
pub async fn postgres_url() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = std::env::var("TEST_POSTGRES_URL")
        .expect("TEST_POSTGRES_URL names no PostgreSQL server; `.ci/test` starts one and sets it");
    let name = format!(
        "smithgate_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let mut connection = sqlx::PgConnection::connect(&server)
        .await
        .expect("PostgreSQL");
    // A language's order, as many servers have it by default: it must not matter. Servers before 15
    // cannot be asked for one that is there everywhere.
    let ordered = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US' \
        LOCALE 'C.UTF-8'";
    for how in [ordered, ""] {
        let make = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name} {how}"));
        match sqlx::raw_sql(make).execute(&mut connection).await {
            Ok(_) => break,
            Err(error) => assert!(!how.is_empty(), "a database: {error}"),
        }
    }
    let (server, _) = server.rsplit_once('/').expect("a URL with a database");
    format!("{server}/{name}")
}

pub async fn sqlite() -> (Arc<dyn Store>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&dir.path().join("s.db"), 2)
        .await
        .expect("SQLite");
    (Arc::new(store), dir)
}

pub async fn postgres() -> (Arc<dyn Store>, ()) {
    let store = PostgresStore::open(&postgres_url().await, 4)
        .await
        .expect("PostgreSQL");
    (Arc::new(store), ())
}

macro_rules! on_both_engines {
    ($($test:ident),+ $(,)?) => {
        mod on_sqlite {$(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let (store, _kept) = super::sqlite().await;
                super::$test(store).await;
            }
        )+}
        mod on_postgres {$(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let (store, _kept) = super::postgres().await;
                super::$test(store).await;
            }
        )+}
    };
}

pub(crate) use on_both_engines;

on_both_engines!(
    tenants_and_signing_keys,
    tokens_are_listed_and_revoked,
    agents_have_slugs_and_versions,
    smiths_are_upserted_and_filtered,
    model_keys_stay_apart,
    runs_and_their_frames,
    a_thread_is_held_by_one_run,
    leases_lapse,
    usage_adds_up,
    idempotency_keys_are_claimed_once,
    a_failed_batch_leaves_nothing,
    concurrent_writers_agree,
);

pub const HERE: &str = "proj_here";
pub const THERE: &str = "proj_there";

pub async fn two_tenants(store: &Arc<dyn Store>) {
    for (at, id) in [HERE, THERE].into_iter().enumerate() {
        let tenant = Tenant {
            id: id.into(),
            name: format!("Tenant {id}"),
            created_at: 1_000 + at as i64,
        };
        store.create_tenant(&tenant).await.expect("made");
    }
}

pub fn agent(tenant_id: &str, id: &str, slug: Option<&str>) -> AgentRow {
    AgentRow {
        id: id.into(),
        tenant_id: tenant_id.into(),
        slug: slug.map(str::to_owned),
        name: "Ann's \"agent\" 😀".into(),
        is_default: slug.is_none(),
        draft: AgentConfig {
            instructions: Some("Be brief, {{ who }}.".into()),
            model: Some("openai/gpt".into()),
            ..AgentConfig::default()
        },
        active_version: None,
        rollout_version: None,
        rollout_percent: 0,
        created_at: 5,
        updated_at: 5,
    }
}

pub fn smith(tenant_id: &str, id: &str, agent_id: &str, external_id: Option<&str>) -> SmithRow {
    SmithRow {
        id: id.into(),
        tenant_id: tenant_id.into(),
        agent_id: agent_id.into(),
        external_id: external_id.map(str::to_owned),
        profile: SmithProfile {
            display_name: Some("Zoë".into()),
            metadata: json!({ "plan": "gold" })
                .as_object()
                .cloned()
                .map(Into::into),
            ..SmithProfile::default()
        },
        customer_id: Some(format!("customer_of_{id}")),
        pin: Some(3),
        overrides: Overrides([("model".to_owned(), json!("a/b"))].into()),
        created_at: 7,
    }
}

fn run(tenant_id: &str, id: &str, smith_id: &str, thread_id: &str) -> RunRow {
    RunRow {
        id: id.into(),
        tenant_id: tenant_id.into(),
        smith_id: smith_id.into(),
        agent_id: "agt_1".into(),
        thread_id: thread_id.into(),
        channel: "api".into(),
        status: RunStatus::Running,
        exclusive: true,
        include_mask: 1,
        input: r#"[{"role":"user","content":"hi"}]"#.into(),
        transcript: None,
        output: None,
        stop_reason: None,
        error_code: None,
        error: None,
        warnings: "[]".into(),
        token_usage: None,
        metadata: Some(r#"{"k":"v"}"#.into()),
        actor: Some("u-1".into()),
        node_id: "node_a".into(),
        lease_until: 100,
        created_at: 10,
        updated_at: 10,
        previous_run_id: None,
        response: None,
        cancel_reason: None,
        takings: 0,
        turn: None,
    }
}

fn end(tenant_id: &str, id: &str, status: &'static str, transcript: Option<&str>) -> RunEnd {
    RunEnd {
        tenant_id: tenant_id.into(),
        id: id.into(),
        node_id: "node_a".into(),
        has_state: false,
        status: RunStatus::of(status).expect("a status"),
        transcript: transcript.map(str::to_owned),
        output: Some(r#"{"content":"hello"}"#.into()),
        stop_reason: Some("end_turn"),
        error_code: None,
        error: None,
        warnings: "[]".into(),
        token_usage: Some("{}".into()),
        frames: None,
        event: None,
        trace: None,
        ledger: None,
        of_lane: false,
        updated_at: 20,
    }
}

fn published(outcome: Result<Publication>) -> AgentVersionRow {
    match outcome.expect("published") {
        Publication::Done(version) => *version,
        other => panic!("{other:?}"),
    }
}

fn ids<T>(rows: &[T], id: impl Fn(&T) -> &str) -> Vec<String> {
    rows.iter().map(|row| id(row).to_owned()).collect()
}

async fn tenants_and_signing_keys(store: Arc<dyn Store>) {
    assert_eq!(store.first_tenant().await.expect("read"), None);
    two_tenants(&store).await;
    let first = store.first_tenant().await.expect("read").expect("a tenant");
    assert_eq!((first.id.as_str(), first.created_at), (HERE, 1_000));
    let other = store.tenant(THERE).await.expect("read").expect("a tenant");
    assert_eq!(other.name, "Tenant proj_there");
    assert_eq!(store.tenant("proj_none").await.expect("read"), None);
    for (kid, created_at) in [("old", 1), ("new", 2)] {
        let key = SigningKeyRow {
            kid: kid.into(),
            sealed: vec![0, 255, 1],
            jwk: "{}".into(),
            created_at,
        };
        store.add_signing_key(&key).await.expect("made");
    }
    let keys = store.signing_keys().await.expect("read");
    assert_eq!(ids(&keys, |k| &k.kid), ["new", "old"]);
    assert_eq!(keys[0].sealed, [0, 255, 1]);
    store.ping().await.expect("up");
}

async fn tokens_are_listed_and_revoked(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    let token = |tenant: &str, n: u32| TokenRow {
        id: format!("tok_{n}"),
        tenant_id: tenant.into(),
        name: Some("ci".into()),
        sub: "tenant".into(),
        scopes: r#"["runs:write"]"#.into(),
        prefix: Some("tha_live_abc".into()),
        created_at: i64::from(n),
        expires_at: Some(i64::from(n) + 100),
        revoked_at: None,
        grant_id: None,
    };
    for n in 1..=5 {
        store.insert_token(&token(HERE, n)).await.expect("made");
    }
    store.insert_token(&token(THERE, 6)).await.expect("made");
    let page = store.tokens(HERE, None, 2).await.expect("read");
    assert_eq!(ids(&page, |t| &t.id), ["tok_5", "tok_4"]);
    let page = store.tokens(HERE, Some("tok_4"), 9).await.expect("read");
    assert_eq!(ids(&page, |t| &t.id), ["tok_3", "tok_2", "tok_1"]);
    assert_eq!(
        store.token(HERE, "tok_1").await.expect("read"),
        Some(token(HERE, 1))
    );
    assert_eq!(store.token(THERE, "tok_1").await.expect("read"), None);
    assert!(!store.revoke_token(THERE, "tok_1", 50).await.expect("tried"));
    assert_eq!(store.revoked_since(0).await.expect("read"), []);
    assert!(store.revoke_token(HERE, "tok_1", 50).await.expect("done"));
    assert!(store.revoke_token(THERE, "tok_6", 60).await.expect("done"));
    let revoked = store
        .token(HERE, "tok_1")
        .await
        .expect("read")
        .expect("kept");
    assert_eq!(revoked.revoked_at, Some(50));
    // Every node must hear of every tenant's revocations.
    let mut since = store.revoked_since(50).await.expect("read");
    since.sort();
    assert_eq!(since, [("tok_1".to_owned(), 50), ("tok_6".to_owned(), 60)]);
    assert_eq!(
        store.revoked_since(51).await.expect("read"),
        [("tok_6".to_owned(), 60)]
    );
}

async fn agents_have_slugs_and_versions(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    let made = agent(HERE, "agt_1", Some("helper"));
    assert!(store.insert_agent(&made).await.expect("made"));
    assert!(
        !store
            .insert_agent(&agent(HERE, "agt_2", Some("helper")))
            .await
            .expect("tried")
    );
    assert!(
        store
            .insert_agent(&agent(THERE, "agt_3", Some("helper")))
            .await
            .expect("made")
    );
    assert!(
        store
            .insert_agent(&agent(HERE, "agt_4", Some("helper-2")))
            .await
            .expect("made")
    );
    assert_eq!(store.agent(HERE, "agt_1").await.expect("read"), Some(made));
    assert_eq!(store.agent(THERE, "agt_1").await.expect("read"), None);
    let mut slugs = store.agent_slugs(HERE, "helper").await.expect("read");
    slugs.sort();
    assert_eq!(slugs, ["helper", "helper-2"]);
    // `_` and `%` in a prefix are letters like any other.
    assert!(
        store
            .agent_slugs(HERE, "h_lper")
            .await
            .expect("read")
            .is_empty()
    );
    let default = store
        .default_agent(&agent(HERE, "agt_5", None))
        .await
        .expect("made");
    let again = store
        .default_agent(&agent(HERE, "agt_6", None))
        .await
        .expect("found");
    assert_eq!((default.id.as_str(), &again), ("agt_5", &default));
    let page = store.agents(HERE, None, 2).await.expect("read");
    assert_eq!(ids(&page, |a| &a.id), ["agt_5", "agt_4"]);
    let page = store.agents(HERE, Some("agt_4"), 2).await.expect("read");
    assert_eq!(ids(&page, |a| &a.id), ["agt_1"]);

    let elsewhere = store.publish_agent(THERE, "agt_1", None, None, 9).await;
    assert_eq!(elsewhere.expect("tried"), Publication::Missing);
    for (n, note) in [(1, Some("first")), (2, None)] {
        let version = published(
            store
                .publish_agent(HERE, "agt_1", Some("tok_1"), note, 9 + n)
                .await,
        );
        assert_eq!((version.version, version.note.as_deref()), (n, note));
        assert_eq!(version.snapshot.model.as_deref(), Some("openai/gpt"));
    }
    let live = store
        .agent(HERE, "agt_1")
        .await
        .expect("read")
        .expect("kept");
    assert_eq!(live.active_version, Some(1));
    let versions = store
        .agent_versions(HERE, "agt_1", None, 9)
        .await
        .expect("read");
    assert_eq!(
        versions.iter().map(|v| v.version).collect::<Vec<_>>(),
        [2, 1]
    );
    let versions = store
        .agent_versions(HERE, "agt_1", Some(2), 9)
        .await
        .expect("read");
    assert_eq!(versions.iter().map(|v| v.version).collect::<Vec<_>>(), [1]);
    assert!(
        store
            .agent_version(HERE, "agt_1", 2)
            .await
            .expect("read")
            .is_some()
    );
    assert!(
        store
            .agent_version(HERE, "agt_1", 3)
            .await
            .expect("read")
            .is_none()
    );
    assert!(
        store
            .agent_version(THERE, "agt_1", 2)
            .await
            .expect("read")
            .is_none()
    );
    assert!(
        store
            .agent_versions(THERE, "agt_1", None, 9)
            .await
            .expect("read")
            .is_empty()
    );
}

async fn smiths_are_upserted_and_filtered(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    for (tenant, id, slug) in [
        (HERE, "agt_1", "a"),
        (HERE, "agt_2", "b"),
        (THERE, "agt_3", "a"),
    ] {
        assert!(
            store
                .insert_agent(&agent(tenant, id, Some(slug)))
                .await
                .expect("made")
        );
    }
    let first = smith(HERE, "smt_1", "agt_1", Some("user-1"));
    assert_eq!(
        store.upsert_smith(&first).await.expect("made"),
        (first.clone(), true)
    );
    let twin = smith(HERE, "smt_2", "agt_1", Some("user-1"));
    assert_eq!(
        store.upsert_smith(&twin).await.expect("found"),
        (first.clone(), false)
    );
    for other in [
        smith(HERE, "smt_3", "agt_2", Some("user-1")),
        smith(HERE, "smt_4", "agt_1", Some("user-2")),
        smith(HERE, "smt_5", "agt_1", None),
        smith(HERE, "smt_6", "agt_1", None),
        smith(THERE, "smt_7", "agt_3", Some("user-1")),
    ] {
        assert!(
            store.upsert_smith(&other).await.expect("made").1,
            "{}",
            other.id
        );
    }
    assert_eq!(store.smith(HERE, "smt_1").await.expect("read"), Some(first));
    assert_eq!(store.smith(THERE, "smt_1").await.expect("read"), None);
    assert_eq!(store.smith_count(HERE, "agt_1").await.expect("read"), 4);
    assert_eq!(store.smith_count(THERE, "agt_1").await.expect("read"), 0);
    let some = |text: &str| Some(text.to_owned());
    let none = SmithFilter::default();
    for (filter, expected) in [
        (
            none.clone(),
            vec!["smt_6", "smt_5", "smt_4", "smt_3", "smt_1"],
        ),
        (
            SmithFilter {
                external_id: some("user-1"),
                ..none.clone()
            },
            vec!["smt_3", "smt_1"],
        ),
        (
            SmithFilter {
                external_id_prefix: some("user-"),
                ..none.clone()
            },
            vec!["smt_4", "smt_3", "smt_1"],
        ),
        (
            SmithFilter {
                external_id_prefix: some("user_"),
                ..none.clone()
            },
            vec![],
        ),
        (
            SmithFilter {
                external_id_prefix: some("%"),
                ..none.clone()
            },
            vec![],
        ),
        (
            SmithFilter {
                customer_id: some("customer_of_smt_4"),
                ..none.clone()
            },
            vec!["smt_4"],
        ),
        (
            SmithFilter {
                agent_id: some("agt_2"),
                external_id: some("user-1"),
                ..none.clone()
            },
            vec!["smt_3"],
        ),
        (
            SmithFilter {
                agent_id: some("agt_3"),
                ..none.clone()
            },
            vec![],
        ),
    ] {
        let found = store.smiths(HERE, &filter, None, 9).await.expect("read");
        assert_eq!(ids(&found, |s| &s.id), expected, "{filter:?}");
    }
    let page = store
        .smiths(HERE, &none, Some("smt_5"), 2)
        .await
        .expect("read");
    assert_eq!(ids(&page, |s| &s.id), ["smt_4", "smt_3"]);
}

async fn model_keys_stay_apart(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    let key = |tenant: &str, smith: &str, provider: &str, sealed: u8| ModelKeyRow {
        tenant_id: tenant.into(),
        smith_id: smith.into(),
        provider: provider.into(),
        base_url: Some("https://models.example".into()),
        sealed: vec![sealed],
        updated_at: 1,
    };
    for row in [
        key(HERE, "", "openai", 1),
        key(HERE, "", "anthropic", 2),
        key(HERE, "smt_1", "openai", 3),
        key(THERE, "", "openai", 4),
        key(HERE, "", "openai", 5),
    ] {
        store.put_model_key(&row).await.expect("put");
    }
    let sealed = async |tenant: &str, smith: &str, provider: &str| {
        let found = store
            .model_key(tenant, smith, provider)
            .await
            .expect("read");
        found.map(|key| key.sealed[0])
    };
    assert_eq!(sealed(HERE, "", "openai").await, Some(5));
    assert_eq!(sealed(HERE, "smt_1", "openai").await, Some(3));
    assert_eq!(sealed(HERE, "smt_1", "anthropic").await, None);
    assert_eq!(sealed(THERE, "", "openai").await, Some(4));
    let listed = store.model_keys(HERE, "").await.expect("read");
    assert_eq!(ids(&listed, |k| &k.provider), ["anthropic", "openai"]);
    assert!(
        !store
            .delete_model_key(THERE, "", "anthropic")
            .await
            .expect("tried")
    );
    assert!(
        store
            .delete_model_key(HERE, "", "openai")
            .await
            .expect("done")
    );
    assert_eq!(sealed(HERE, "", "openai").await, None);
    assert_eq!(sealed(HERE, "smt_1", "openai").await, Some(3));
    assert_eq!(sealed(THERE, "", "openai").await, Some(4));
}

fn frames_op(tenant: &str, run: &str, first: i64, frames: &[Frame]) -> Op {
    let mut buf = bytes::BytesMut::new();
    for frame in frames {
        frame::encode(frame, &mut buf);
    }
    Op::Frames {
        tenant_id: tenant.into(),
        run_id: run.into(),
        node_id: "node_a".into(),
        first,
        frames: buf.to_vec(),
    }
}

async fn runs_and_their_frames(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    assert!(
        store
            .insert_agent(&agent(HERE, "agt_1", Some("a")))
            .await
            .expect("made")
    );
    let owner = smith(HERE, "smt_1", "agt_1", Some("user-1"));
    store.upsert_smith(&owner).await.expect("made");
    let said = [
        Frame::RunStarted {
            smith_id: Bytes::from_static(b"smt_1"),
            thread_id: Bytes::from_static(b"t"),
        },
        Frame::Text(Escaped::escape("Hello")),
        Frame::Text(Escaped::escape(" \"wörld\"")),
        Frame::RunCancelled {
            reason: Bytes::new(),
        },
    ];
    let mut last = bytes::BytesMut::new();
    frame::encode(&said[3], &mut last);
    let ended = RunEnd {
        frames: Some((3, last.to_vec())),
        ..end(HERE, "run_1", "completed", Some(r#"[{"turn":1}]"#))
    };
    let taken = store
        .apply(&[
            Op::CreateRun(Arc::new(run(HERE, "run_1", "smt_1", "t")), None),
            frames_op(HERE, "run_1", 0, &said[..2]),
            frames_op(HERE, "run_1", 2, &said[2..3]),
            Op::EndRun(Box::new(ended)),
            Op::Barrier,
        ])
        .await
        .expect("applied");
    assert_eq!(taken, [true; 5]);
    let stored = store.run(HERE, "run_1").await.expect("read").expect("kept");
    let expected = RunRow {
        status: RunStatus::Completed,
        transcript: Some(r#"[{"turn":1}]"#.into()),
        output: Some(r#"{"content":"hello"}"#.into()),
        stop_reason: Some("end_turn".into()),
        token_usage: Some("{}".into()),
        updated_at: 20,
        ..run(HERE, "run_1", "smt_1", "t")
    };
    assert_eq!(stored, expected);
    let log = store
        .run_frames(HERE, "run_1")
        .await
        .expect("read")
        .concat();
    assert_eq!(frame::decode_all(Bytes::from(log)).expect("frames"), said);
    assert_eq!(store.run(THERE, "run_1").await.expect("read"), None);
    assert!(
        store
            .run_frames(THERE, "run_1")
            .await
            .expect("read")
            .is_empty()
    );
    // What has ended does not end again, and another tenant cannot end it.
    for ended in [
        end(HERE, "run_1", "failed", None),
        end(THERE, "run_1", "failed", None),
        end(HERE, "run_none", "failed", None),
    ] {
        let taken = store
            .apply(&[Op::EndRun(Box::new(ended))])
            .await
            .expect("applied");
        assert_eq!(taken, [false]);
    }
    assert_eq!(
        store.run(HERE, "run_1").await.expect("read"),
        Some(expected)
    );

    let mut ops = Vec::new();
    for n in 2..=4 {
        let id = format!("run_{n}");
        ops.push(Op::CreateRun(Arc::new(run(HERE, &id, "smt_1", "t")), None));
        let (status, turns) = match n {
            3 => ("failed", None),
            _ => ("completed", Some(format!(r#"[{{"turn":{n}}}]"#))),
        };
        ops.push(Op::EndRun(Box::new(end(
            HERE,
            &id,
            status,
            turns.as_deref(),
        ))));
    }
    ops.push(Op::CreateRun(
        Arc::new(run(HERE, "run_5", "smt_2", "t")),
        None,
    ));
    assert!(
        store
            .apply(&ops)
            .await
            .expect("applied")
            .iter()
            .all(|taken| *taken)
    );
    let history = async |tenant: &str, smith: &str, limit: i64| {
        store
            .thread_transcripts(tenant, smith, "t", limit)
            .await
            .expect("read")
    };
    let turns = [r#"[{"turn":1}]"#, r#"[{"turn":2}]"#, r#"[{"turn":4}]"#];
    assert_eq!(history(HERE, "smt_1", 9).await, turns);
    assert_eq!(history(HERE, "smt_1", 2).await, turns[1..]);
    assert!(history(HERE, "smt_2", 9).await.is_empty());
    assert!(history(THERE, "smt_1", 9).await.is_empty());

    let some = |text: &str| Some(text.to_owned());
    let none = RunFilter::default();
    for (filter, expected) in [
        (
            none.clone(),
            vec!["run_5", "run_4", "run_3", "run_2", "run_1"],
        ),
        (
            RunFilter {
                smith_id: some("smt_2"),
                ..none.clone()
            },
            vec!["run_5"],
        ),
        (
            RunFilter {
                status: some("failed"),
                ..none.clone()
            },
            vec!["run_3"],
        ),
        (
            RunFilter {
                agent_id: some("agt_9"),
                ..none.clone()
            },
            vec![],
        ),
        (
            RunFilter {
                external_id_prefix: some("user"),
                ..none.clone()
            },
            vec!["run_4", "run_3", "run_2", "run_1"],
        ),
        (
            RunFilter {
                external_id_prefix: some("u_er"),
                ..none.clone()
            },
            vec![],
        ),
    ] {
        let found = store.runs(HERE, &filter, None, 9).await.expect("read");
        assert_eq!(ids(&found, |r| &r.id), expected, "{filter:?}");
        assert!(
            store
                .runs(THERE, &filter, None, 9)
                .await
                .expect("read")
                .is_empty()
        );
    }
    let page = store
        .runs(HERE, &none, Some("run_4"), 2)
        .await
        .expect("read");
    assert_eq!(ids(&page, |r| &r.id), ["run_3", "run_2"]);
}

async fn a_thread_is_held_by_one_run(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    let create = |tenant: &str, id: &str, thread: &str, exclusive: bool| {
        let row = run(tenant, id, "smt_1", thread);
        Op::CreateRun(Arc::new(RunRow { exclusive, ..row }), None)
    };
    let taken = store
        .apply(&[
            create(HERE, "run_1", "t", true),
            create(HERE, "run_2", "t", true),
            create(HERE, "run_3", "t", false),
            create(HERE, "run_4", "u", true),
            create(THERE, "run_5", "t", true),
        ])
        .await
        .expect("applied");
    assert_eq!(taken, [true, false, true, true, true]);
    assert_eq!(store.run(HERE, "run_2").await.expect("read"), None);
    let taken = store
        .apply(&[
            Op::EndRun(Box::new(end(HERE, "run_1", "failed", None))),
            create(HERE, "run_6", "t", true),
        ])
        .await
        .expect("applied");
    assert_eq!(taken, [true, true]);
    // Of two runs that saw the same history one takes the turn, however soon it ends.
    let see = async || store.see_thread(HERE, "smt_1", "v").await.expect("seen");
    for n in 0..3 {
        let seen = see().await;
        assert_eq!((seen.is_held, seen.turn), (false, n));
        let takes = |id: String| {
            let row = RunRow {
                exclusive: true,
                turn: Some(seen.turn + 1),
                ..run(HERE, &id, "smt_1", "v")
            };
            Op::CreateRun(Arc::new(row), None)
        };
        let first = format!("run_1{n}b");
        let taken = store.apply(&[takes(first.clone())]).await;
        assert_eq!(taken.expect("applied"), [true]);
        assert!(see().await.is_held);
        let over = Op::EndRun(Box::new(end(HERE, &first, "completed", None)));
        assert_eq!(store.apply(&[over]).await.expect("applied"), [true]);
        let late = [takes(format!("run_1{n}c")), takes(format!("run_1{n}a"))];
        let taken = store.apply(&late).await.expect("applied");
        assert_eq!(taken, [false, false]);
    }
}

async fn leases_lapse(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    let leased = |tenant: &str, id: &str, node: &str| {
        let row = run(tenant, id, "smt_1", id);
        Op::CreateRun(
            Arc::new(RunRow {
                node_id: node.into(),
                ..row
            }),
            None,
        )
    };
    store
        .apply(&[
            leased(HERE, "run_1", "node_a"),
            leased(HERE, "run_2", "node_b"),
            leased(THERE, "run_3", "node_b"),
            leased(HERE, "run_4", "node_b"),
            Op::EndRun(Box::new(RunEnd {
                node_id: "node_b".into(),
                ..end(HERE, "run_4", "completed", None)
            })),
        ])
        .await
        .expect("applied");
    let lapsed = async |before: i64| {
        let mut found = Vec::new();
        for tenant in store
            .lapsed_tenants(before, "node_c", 10)
            .await
            .expect("read")
        {
            let runs = store.lapsed_runs(&tenant, before, "node_c", 10);
            found.extend(runs.await.expect("read"));
        }
        found.sort();
        found
    };
    assert!(lapsed(100).await.is_empty());
    assert_eq!(lapsed(101).await, ["run_1", "run_2", "run_3"]);
    store.renew_leases("node_a", 500).await.expect("renewed");
    assert_eq!(lapsed(101).await, ["run_2", "run_3"]);
    assert_eq!(lapsed(i64::MAX).await, ["run_1", "run_2", "run_3"]);
    // Each taking is counted, until its node turns out to be alive.
    let takings = async || {
        store
            .run(HERE, "run_2")
            .await
            .expect("read")
            .map(|r| r.takings)
    };
    let lease = Lease {
        node_id: "node_c",
        until: 102,
        now: 101,
    };
    for taken in [true, false] {
        let taking = store.take_lapsed_run(HERE, "run_2", 101, &lease).await;
        assert_eq!(taking.expect("tried"), taken);
        assert_eq!(takings().await, Some(1));
    }
    for _ in 0..2 {
        store.uncount_taking(HERE, "run_2").await.expect("written");
        assert_eq!(takings().await, Some(0));
    }
}

async fn usage_adds_up(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    let row = |tenant: &str, day: &str, input: i64| UsageRow {
        tenant_id: tenant.into(),
        day: day.into(),
        provider: "openai".into(),
        model: "gpt".into(),
        calls: 1,
        input,
        output: 2,
        cache_read: 3,
        cache_write: 4,
        reasoning: 5,
    };
    let of_smith = |row: UsageRow, smith: &str, cost: i64| SmithUsage {
        tenant_id: row.tenant_id,
        day: row.day,
        smith_id: smith.into(),
        agent_id: if smith.is_empty() { "" } else { "agt_1" }.into(),
        customer_id: if smith == "smt_2" { "cus_1" } else { "" }.into(),
        key_id: if smith.is_empty() { "key_1" } else { "" }.into(),
        provider: row.provider,
        model: row.model,
        calls: row.calls,
        input: row.input,
        output: row.output,
        cache_read: row.cache_read,
        cache_write: row.cache_write,
        reasoning: row.reasoning,
        cost,
    };
    let mut smiths = ["", "smt_1", "smt_2", ""].into_iter();
    let ops: Vec<Op> = [
        row(HERE, "2026-11-01", 10),
        row(HERE, "2026-11-01", 20),
        row(HERE, "2026-11-02", 30),
        row(THERE, "2026-11-01", 40),
    ]
    .map(|row| {
        let smith = smiths.next().unwrap_or_default();
        Op::Usage(Box::new(of_smith(row, smith, 7)))
    })
    .into();
    store.apply(&ops).await.expect("applied");
    let mut days = store.usage(HERE).await.expect("read");
    days.sort_by(|a, b| a.day.cmp(&b.day));
    let sum = UsageRow {
        calls: 2,
        output: 4,
        cache_read: 6,
        cache_write: 8,
        reasoning: 10,
        ..row(HERE, "2026-11-01", 30)
    };
    assert_eq!(days, [sum, row(HERE, "2026-11-02", 30)]);
    let filter = |from: &str, to: &str| UsageFilter {
        from: from.into(),
        to: to.into(),
        smith_id: None,
        customer_id: None,
        key_id: None,
    };
    let groups = async |filter: UsageFilter, by: UsageGroup| {
        let rows = store.usage_groups(HERE, &filter, by).await.expect("read");
        let mut named: Vec<(String, i64, i64)> = rows
            .into_iter()
            .map(|row| (row.name, row.input, row.cost))
            .collect();
        named.sort();
        named
    };
    let november = filter("2026-11-01", "2026-11-30");
    assert_eq!(
        groups(november.clone(), UsageGroup::Model).await,
        [("gpt".to_owned(), 60, 21)]
    );
    let keys = groups(november.clone(), UsageGroup::Key).await;
    assert_eq!(keys, [("key_1".to_owned(), 10, 7)]);
    let of_key = UsageFilter {
        key_id: Some("key_1".to_owned()),
        ..november.clone()
    };
    let models = groups(of_key, UsageGroup::Model).await;
    assert_eq!(models, [("gpt".to_owned(), 10, 7)]);
    assert_eq!(
        groups(november.clone(), UsageGroup::Smith).await,
        [
            (String::new(), 10, 7),
            ("smt_1".to_owned(), 20, 7),
            ("smt_2".to_owned(), 30, 7)
        ]
    );
    assert_eq!(
        groups(november, UsageGroup::Customer).await,
        [
            (String::new(), 10, 7),
            ("cus_1".to_owned(), 30, 7),
            ("principal:smt_1".to_owned(), 20, 7)
        ]
    );
    assert_eq!(
        groups(filter("2026-11-02", "2026-11-02"), UsageGroup::App).await,
        [("agt_1".to_owned(), 30, 7)]
    );
    let spent = async |scope: &str, id: &str| {
        let spent = store.spent(HERE, "2026-11", scope, id).await;
        spent.expect("read")
    };
    assert_eq!(spent("tenant", "").await, 21);
    assert_eq!(spent("agent", "agt_1").await, 14);
    assert_eq!(spent("smith", "smt_2").await, 7);
    assert_eq!(spent("customer", "cus_1").await, 7);
    assert_eq!(spent("customer", "cus_2").await, 0);
}

async fn idempotency_keys_are_claimed_once(store: Arc<dyn Store>) {
    const HOUR: i64 = 3_600_000_000;
    two_tenants(&store).await;
    let begin = async |tenant: &str, body: &str, now: i64| {
        store
            .begin_idempotent(tenant, "k", body, Some("run_1"), now)
            .await
            .expect("judged")
    };
    let run_id = Some("run_1".to_owned());
    let busy = Idempotency::InProgress {
        run_id: run_id.clone(),
    };
    assert_eq!(begin(HERE, "body", 0).await, Idempotency::New);
    assert_eq!(begin(HERE, "body", 1).await, busy);
    assert_eq!(begin(HERE, "other", 1).await, Idempotency::Mismatch);
    assert_eq!(begin(THERE, "other", 1).await, Idempotency::New);
    let given_up = store.abandon_idempotent(HERE, "k", Some("run_1"));
    given_up.await.expect("given up");
    assert_eq!(begin(HERE, "other", 2).await, Idempotency::New);
    store
        .finish_idempotent(HERE, "k", 201, b"{\"id\":1}")
        .await
        .expect("kept");
    let done = Idempotency::Done {
        status: 201,
        body: b"{\"id\":1}".to_vec(),
        run_id,
    };
    assert_eq!(begin(HERE, "other", 3).await, done);
    // The other tenant's claim is its own.
    assert!(matches!(
        begin(THERE, "other", 3).await,
        Idempotency::InProgress { .. }
    ));
    assert_eq!(begin(HERE, "other", 23 * HOUR).await, done);
    // A claim that came to nothing is given up, one that has a run is not.
    assert_eq!(begin(THERE, "other", 30_000_000).await, busy);
    assert_eq!(begin(THERE, "other", 61_000_001).await, Idempotency::New);
    let started = Op::CreateRun(Arc::new(run(THERE, "run_1", "smt_1", "t")), None);
    store.apply(&[started]).await.expect("applied");
    assert_eq!(begin(THERE, "other", HOUR).await, busy);
    assert_eq!(begin(HERE, "new", 25 * HOUR).await, Idempotency::New);
}

async fn a_failed_batch_leaves_nothing(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    let orphan = run("proj_none", "run_2", "smt_1", "t");
    let failed = store
        .apply(&[
            Op::CreateRun(Arc::new(run(HERE, "run_1", "smt_1", "t")), None),
            Op::CreateRun(Arc::new(orphan), None),
        ])
        .await;
    assert!(matches!(failed, Err(StoreError::Database(_))), "{failed:?}");
    assert_eq!(store.run(HERE, "run_1").await.expect("read"), None);
}

async fn concurrent_writers_agree(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    assert!(
        store
            .insert_agent(&agent(HERE, "agt_1", Some("a")))
            .await
            .expect("made")
    );
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let claim = store
                    .begin_idempotent(HERE, "k", "b", None, 1)
                    .await
                    .expect("judged");
                let row = smith(HERE, &format!("smt_{n:02}"), "agt_1", Some("same"));
                let (row, made) = store.upsert_smith(&row).await.expect("upserted");
                let version = published(store.publish_agent(HERE, "agt_1", None, None, 1).await);
                let default = agent(HERE, &format!("agt_d{n:02}"), None);
                let default = store.default_agent(&default).await.expect("found");
                let held = run(HERE, &format!("run_{n:02}"), "smt_1", "t");
                let held = store
                    .apply(&[Op::CreateRun(Arc::new(held), None)])
                    .await
                    .expect("applied");
                (
                    claim == Idempotency::New,
                    made,
                    row.id,
                    version.version,
                    default.id,
                    held[0],
                )
            })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.expect("no panic"));
    }
    assert_eq!(seen.iter().filter(|s| s.0).count(), 1, "one claim is new");
    assert_eq!(seen.iter().filter(|s| s.1).count(), 1, "one smith is made");
    assert!(seen.iter().all(|s| s.2 == seen[0].2), "all see that smith");
    let mut versions: Vec<i64> = seen.iter().map(|s| s.3).collect();
    versions.sort_unstable();
    assert_eq!(
        versions,
        (1..=16).collect::<Vec<_>>(),
        "versions have no gap and no twin"
    );
    assert!(seen.iter().all(|s| s.4 == seen[0].4), "one default agent");
    assert_eq!(
        seen.iter().filter(|s| s.5).count(),
        1,
        "one run holds the thread"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_store_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("s.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&file, 1).await.expect("SQLite"));
    two_tenants(&store).await;
    drop(store);
    let store = SqliteStore::open(&file, 1).await.expect("SQLite");
    assert!(store.tenant(THERE).await.expect("read").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_runs_on_postgres() {
    let url = postgres_url().await;
    let harness = Harness::start_with(|config, _| config.store.url = Some(url)).await;
    let smith = harness.smith("anthropic/text").await;
    let turn = |content: &str| {
        let messages = json!([{ "role": "user", "content": content }]);
        let body = json!({ "model": "", "stream": true, "messages": messages });
        harness
            .post("/v1/chat/completions", &body)
            .header("IC-Smith-Id", &smith)
            .header("IC-Thread-Id", "t")
            .send()
    };
    let stream = text(turn("first").await).await;
    assert_eq!(said(&stream), "Hello, \"wörld\" \n😀", "{stream}");
    text(turn("second").await).await;
    let sent = harness.mock.last().body;
    assert_eq!(sent["messages"].as_array().map(Vec::len), Some(3), "{sent}");
    let runs = ok(harness
        .get(&format!("/v1/runs?smith_id={smith}"))
        .send()
        .await)
    .await;
    assert_eq!(runs["data"].as_array().map(Vec::len), Some(2), "{runs}");
    let id = runs["data"][0]["id"].as_str().expect("an id").to_owned();
    // Another gateway on the same database: same keys, same tokens, same log.
    let before = text(
        harness
            .get(&format!("/v1/smiths/{smith}/runs/{id}/events"))
            .send()
            .await,
    )
    .await;
    let harness = harness.restart().await;
    let after = text(
        harness
            .get(&format!("/v1/smiths/{smith}/runs/{id}/events"))
            .send()
            .await,
    )
    .await;
    assert!(before.contains("run.completed"), "{before}");
    assert_eq!(before, after);
}
