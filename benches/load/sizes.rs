//! What a call costs when 10, 1,000 and 100,000 tenants are registered, each with a token, an
//! agent, a smith and an MCP server's tool. Ten of them call, then a thousand: what is registered
//! must cost nothing, what is in use may.

use std::path::Path;
use std::time::Duration;

use smithgate::auth::{Mint, MintedScope};
use smithgate::config::Config;
use smithgate::gateway::Gateway;
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::Bench;
use crate::client::{percentile, throughput, timed};
use crate::gateway::{Smithgate, chat_as};
use crate::roles::Failure;

/// Callers of different tenants.
const CALLERS: [u64; 2] = [10, 1000];
/// The bodies of ids: 26 characters of which the last ones count.
const BODY: &str = "01K00000000000000";

/// Copies the first tenant's rows `count` times.
async fn seed(file: &Path, count: u64) -> Result<(), Failure> {
    let numbers = format!(
        "(WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {count}) \
         SELECT n FROM t)"
    );
    let id = |kind: &str| format!("'{kind}_{BODY}' || printf('%09d', n)");
    let tool = r#"[{"name":"look","description":"Looks.","input_schema":{"type":"object","properties":{"at":{"type":"string"}}}}]"#;
    // Listed far in the future: it is not asked for again.
    let listed = i64::MAX / 2;
    let url = format!("sqlite://{}", file.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await?;
    let statements = [
        format!(
            "INSERT INTO tenants (id, name, created_at, organization_id) SELECT {}, 't', n, o \
             FROM {numbers}, (SELECT organization_id AS o FROM tenants LIMIT 1)",
            id("proj")
        ),
        format!(
            "INSERT INTO tokens (id, tenant_id, sub, scopes, created_at) SELECT {}, {}, {}, s, n \
             FROM {numbers}, (SELECT scopes AS s FROM tokens LIMIT 1)",
            id("tok"),
            id("proj"),
            id("proj")
        ),
        format!(
            "INSERT INTO agents (id, tenant_id, name, is_default, draft, active_version, \
             rollout_percent, created_at, updated_at) SELECT {}, {}, 'a', 1, d, v, 0, n, n \
             FROM {numbers}, (SELECT draft AS d, active_version AS v FROM agents LIMIT 1)",
            id("agt"),
            id("proj")
        ),
        format!(
            "INSERT INTO agent_versions (tenant_id, agent_id, version, snapshot, created_at) \
             SELECT {}, {}, v, s, n FROM {numbers}, \
             (SELECT version AS v, snapshot AS s FROM agent_versions LIMIT 1)",
            id("proj"),
            id("agt")
        ),
        format!(
            "INSERT INTO smiths (id, tenant_id, agent_id, profile, overrides, created_at) \
             SELECT {}, {}, {}, p, o, n FROM {numbers}, \
             (SELECT profile AS p, overrides AS o FROM smiths LIMIT 1)",
            id("smt"),
            id("proj"),
            id("agt")
        ),
        format!(
            "INSERT INTO mcp_servers (id, tenant_id, name, url, settings, tools, \
             tools_refreshed_at, created_at, updated_at) SELECT {}, {}, 'looks', \
             'https://mcp.example/mcp', '{{\"auth\":\"none\"}}', '{tool}', {listed}, n, n \
             FROM {numbers}",
            id("mcp"),
            id("proj")
        ),
        "ANALYZE".to_owned(),
    ];
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
    }
    let made = sqlx::query("SELECT count(*) AS n FROM smiths")
        .fetch_one(&mut connection)
        .await?;
    if made.get::<i64, _>("n") != count as i64 + 1 {
        return Err("the tables were not filled".into());
    }
    Ok(())
}

/// Tokens of `callers` tenants, spread over all.
async fn tokens(config: &Path, count: u64, callers: u64) -> Result<Vec<(u64, String)>, Failure> {
    let (gateway, _) = Gateway::start(Config::load(Some(config), &[])?).await?;
    let mut tokens = Vec::new();
    for caller in 0..callers {
        let n = 1 + caller * count / callers;
        let minted = gateway
            .auth
            .mint(Mint {
                tenant_id: format!("proj_{BODY}{n:09}"),
                scope: MintedScope::Admin,
                ttl_seconds: None,
                name: None,
            })
            .await
            .map_err(|error| error.message.to_string())?;
        tokens.push((n, minted.token));
    }
    gateway.drain().await;
    Ok(tokens)
}

/// 10, 1,000 and 100,000 of each.
pub async fn sizes(bench: &Bench) -> Result<(), Failure> {
    println!(
        "| registered | callers | what               | a second  | processor time each | first call p50, p99 ms |"
    );
    println!(
        "| ---------: | ------: | ------------------ | --------: | ------------------: | ---------------------: |"
    );
    for callers in CALLERS {
        for count in [10, 1000, 100_000] {
            if count >= callers {
                size(bench, count, callers).await?;
            }
        }
    }
    println!();
    Ok(())
}

async fn size(bench: &Bench, count: u64, callers: u64) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let gateway = Smithgate::start(dir.path(), bench.provider, 0).await?;
    gateway.smith("chat-mock/m").await?;
    let token = gateway.token.clone();
    drop(gateway);
    seed(&dir.path().join("data/smithgate.db"), count).await?;
    let config = dir.path().join("smithgate.toml");
    let tokens = tokens(&config, count, callers).await?;
    let gateway = Smithgate::restart(&config, token).await?;
    let of = |stream: bool, smith: bool| -> Vec<Vec<u8>> {
        let call = |(n, token): &(u64, String)| match smith {
            false => chat_as(token, "chat-mock/m", stream, &[]),
            true => {
                let smith = format!("smt_{BODY}{n:09}");
                chat_as(token, "", stream, &[("IC-Smith-Id", &smith)])
            }
        };
        tokens.iter().map(call).collect()
    };
    for (what, requests) in [
        ("not streamed", of(false, false)),
        ("forwarded", of(true, false)),
        ("smith run", of(true, true)),
    ] {
        // The first call of each caller finds nothing in memory.
        let mut cold = timed(gateway.address, &requests).await?;
        cold.sort_by(f64::total_cmp);
        throughput(gateway.address, &requests, 32, Duration::from_millis(500)).await?;
        let time = Duration::from_secs_f64(bench.seconds);
        let before = gateway.process.busy();
        let rate = throughput(gateway.address, &requests, 32, time).await?;
        let busy = gateway.process.busy() - before;
        let each = busy.as_secs_f64() * 1e6 / (rate * bench.seconds);
        println!(
            "| {count:>10} | {callers:>7} | {what:<18} | {rate:>9.0} | {each:>16.1} us | {:>10.2}, {:>10.2} |",
            percentile(&cold, 0.5),
            percentile(&cold, 0.99)
        );
    }
    Ok(())
}
