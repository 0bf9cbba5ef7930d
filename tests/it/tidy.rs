//! What the compiler does not hold: pages name files that exist, walls between modules stand, files
//! stay short, both engines end with the same schema.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sqlx::Connection;

use crate::store::postgres_url;
use crate::support::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All source files, with their text.
pub fn sources() -> Vec<(String, String)> {
    let mut folders = vec![root().join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                let name = path.strip_prefix(root()).expect("below the root");
                found.push((name.display().to_string(), text));
            }
        }
    }
    assert!(found.len() > 200, "{} files", found.len());
    found
}

/// The code of a file: without the tests beside it, and without comments.
pub fn code_of(text: &str) -> String {
    let code = text
        .rsplit_once("#[cfg(test)]")
        .map_or(text, |(code, _)| code);
    let lines = code.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A path of which all before the first placeholder must exist.
fn known_part(path: &str) -> PathBuf {
    let known = path.split('<').next().unwrap_or_default();
    let whole = root().join(known);
    match path.contains('<') && !known.ends_with('/') {
        true => whole.parent().unwrap_or(&whole).to_path_buf(),
        false => whole,
    }
}

#[test]
fn pages_name_files_that_exist() {
    let mut named = 0;
    for entry in root().join("docs").read_dir().expect("docs").flatten() {
        let page = entry.path();
        if !entry.file_name().to_string_lossy().starts_with("adding-") {
            continue;
        }
        let text = std::fs::read_to_string(&page).expect("a page");
        for path in text.split('`').skip(1).step_by(2) {
            if ["src/", "tests/", "docs/"]
                .iter()
                .any(|top| path.starts_with(top))
            {
                named += 1;
                assert!(known_part(path).exists(), "{}: {path}", page.display());
            }
        }
    }
    assert!(named > 25, "{named} paths");
}

#[test]
fn documents_that_comments_cite_exist() {
    let mut cited = 0;
    for (file, text) in sources() {
        for line in text
            .lines()
            .filter(|line| line.trim_start().starts_with("//"))
        {
            for word in line.split('`').skip(1).step_by(2) {
                if !word.ends_with(".md") || word.contains(['/', ' ', '*']) || word == "SKILL.md" {
                    continue;
                }
                cited += 1;
                let found = ["docs/contract", "docs", ""]
                    .iter()
                    .any(|folder| root().join(folder).join(word).exists());
                assert!(found, "{file}: {word}");
            }
        }
    }
    assert!(cited > 15, "{cited} citations");
}

/// Who must not know whom: files that begin so, and modules that they must not name.
const WALLS: [(&str, &[&str]); 13] = [
    (
        "src/frame/",
        &[
            "store", "model", "run", "wire", "api", "edge", "config", "upstream",
        ],
    ),
    (
        "src/sse/",
        &[
            "store", "model", "run", "wire", "api", "edge", "config", "upstream",
        ],
    ),
    (
        "src/upstream/",
        &["store", "model", "run", "wire", "api", "edge", "tools"],
    ),
    (
        "src/store/",
        &[
            "model", "run", "wire", "api", "edge", "tools", "upstream", "auth",
        ],
    ),
    (
        "src/model/",
        &["run", "wire", "api", "edge", "tools", "auth"],
    ),
    ("src/tools/", &["run", "wire", "api", "edge"]),
    ("src/edge/", &["wire", "run", "api", "routes", "server"]),
    ("src/wire/", &["api", "routes", "server"]),
    ("src/api/", &["wire", "routes", "server"]),
    ("src/run/", &["wire", "api", "edge", "webhook"]),
    (
        "src/lane/",
        &["wire", "api", "edge", "channel", "schedule", "routes"],
    ),
    (
        "src/schedule/",
        &["wire", "api", "edge", "channel", "routes"],
    ),
    ("src/channel/", &["wire", "api", "routes", "server"]),
];

#[test]
fn walls_stand() {
    for (file, text) in sources() {
        let code = code_of(&text);
        for (room, strangers) in WALLS {
            if !file.starts_with(room) {
                continue;
            }
            for line in code.lines() {
                for stranger in strangers {
                    let named = format!("crate::{stranger}");
                    let found = line.find(&named).map(|at| &line[at + named.len()..]);
                    assert!(
                        !found.is_some_and(|rest| rest.starts_with([':', ';', ',', ' ', '}'])),
                        "{file} must not know {stranger}: {line}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_wire_knows_no_other() {
    let wires = [
        "chat",
        "responses",
        "messages",
        "gemini",
        "ui",
        "native",
        "mcp",
    ];
    for (file, text) in sources() {
        let Some(inside) = file.strip_prefix("src/wire/") else {
            continue;
        };
        let own = inside.split(['/', '.']).next().unwrap_or_default();
        for other in wires.iter().filter(|wire| **wire != own) {
            let named = format!("wire::{other}");
            assert!(!code_of(&text).contains(&named), "{file} knows {other}");
        }
    }
}

/// Lines of a source file, tests beside the code among them. The longest of today set it: it is to
/// come down, never up.
const LONGEST: usize = 700;

#[test]
fn files_stay_short() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LONGEST, "{file} has {lines} lines");
    }
}

/// Extractors that say who may call.
const CALLERS: [&str; 6] = [
    ": Admin",
    ": Organization",
    ": May<",
    ": Anyone",
    ": Uses<",
    ": Acting",
];

#[test]
fn handlers_name_who_may_call() {
    let mut handlers = 0;
    for (file, text) in sources() {
        for documented in text.split("#[utoipa::path(").skip(1) {
            let Some((about, rest)) = documented.split_once("async fn ") else {
                continue;
            };
            let (name, rest) = rest.split_once('(').expect("parameters");
            let (parameters, _) = rest.split_once("{\n").expect("a body");
            handlers += 1;
            if parameters.contains("Exchange") {
                // Served natively: who calls is what the wire asks first.
                continue;
            }
            let is_open = about.contains("security(");
            let names = CALLERS.iter().any(|caller| parameters.contains(caller));
            assert!(is_open != names, "{file}: {name} says not who may call it");
        }
        assert!(
            !file.starts_with("src/api/") || !text.contains("require_admin("),
            "{file}: the extractor `Admin` says it in the signature"
        );
    }
    assert!(handlers > 100, "{handlers} handlers");
}

type Schema = (BTreeMap<String, BTreeSet<String>>, BTreeSet<String>);

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_end_with_the_same_schema() {
    let harness = Harness::start().await;
    let file = harness.config.data_dir.join("smithgate.db");
    let url = format!("sqlite://{}", file.display());
    let mut sqlite = sqlx::SqliteConnection::connect(&url).await.expect("opened");
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c \
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         AND m.name <> '_sqlx_migrations'",
    )
    .fetch_all(&mut sqlite)
    .await
    .expect("read");
    let indexes: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
    )
    .fetch_all(&mut sqlite)
    .await
    .expect("read");
    let here = schema(columns, indexes);

    let url = postgres_url().await;
    let _other = Harness::start_with(|config, _| config.store.url = Some(url.clone())).await;
    let mut postgres = sqlx::PgConnection::connect(&url).await.expect("connected");
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT table_name::text, column_name::text FROM information_schema.columns \
         WHERE table_schema = current_schema() AND table_name <> '_sqlx_migrations'",
    )
    .fetch_all(&mut postgres)
    .await
    .expect("read");
    // Those that constraints brought have no name on SQLite.
    let indexes: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() \
         AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid)",
    )
    .fetch_all(&mut postgres)
    .await
    .expect("read");
    let there = schema(columns, indexes);
    assert!(here.0.len() > 30 && here.1.len() > 20, "{here:?}");
    assert_eq!(here, there);
}

fn schema(columns: Vec<(String, String)>, indexes: Vec<String>) -> Schema {
    let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (table, column) in columns {
        tables.entry(table).or_default().insert(column);
    }
    (tables, indexes.into_iter().collect())
}
