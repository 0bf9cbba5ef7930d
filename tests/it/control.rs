//! The control plane's resources, through HTTP.

use reqwest::Method;
use serde_json::{Value, json};
use smithgate::config::{Config, Price};

use crate::support::{Harness, ok, refused, text};

pub fn code(error: &Value) -> &str {
    error["code"].as_str().unwrap_or_default()
}

pub fn id(made: &Value) -> String {
    made["id"].as_str().expect("an id").to_owned()
}

/// A gateway on SQLite, or on the PostgreSQL database of `url`.
pub async fn start_on(url: Option<String>, change: impl FnOnce(&mut Config)) -> Harness {
    Harness::start_with(|config, _| {
        config.store.url = url;
        change(config);
    })
    .await
}

macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(None).await;
            })+
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(Some(crate::store::postgres_url().await)).await;
            })+
        }
    };
}

pub(crate) use on_both_stores;

on_both_stores!(
    agents_are_drafted_published_and_rolled_out,
    smiths_override_inherit_and_go_back,
    smiths_become_agents_and_move_between_them,
    customers_memory_and_recall,
    conversations_hold_what_was_said,
    runs_leave_events_traces_and_usage,
    budgets_warn_and_block,
    files_pass_through_in_pieces,
    an_organization_manages_projects,
    limits_are_told_and_kept,
    a_key_answers_once_even_with_a_secret,
    a_run_is_run_again,
    agents_have_templates,
);

impl Harness {
    async fn made(&self, path: &str, body: Value) -> Value {
        ok(self.post(path, &body).send().await).await
    }

    async fn read(&self, path: &str) -> Value {
        ok(self.get(path).send().await).await
    }

    async fn patched(&self, path: &str, body: Value) -> Value {
        ok(self.request(Method::PATCH, path).json(&body).send().await).await
    }

    async fn deleted(&self, path: &str) -> u16 {
        let answer = self.request(Method::DELETE, path).send().await;
        answer.expect("an answer").status().as_u16()
    }

    /// A turn of a smith, ended.
    async fn turn(&self, smith: &str, thread: &str, said: &str) -> Value {
        let body = json!({ "input": [{ "role": "user", "content": said }], "thread_id": thread });
        let run = self.made(&format!("/v1/smiths/{smith}/runs"), body).await;
        assert_eq!(run["status"], "completed", "{run}");
        run
    }
}

async fn agents_are_drafted_published_and_rolled_out(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let body = json!({ "name": "Support Agent", "instructions": "v1", "model": "openai-chat/text",
        "variables": [{ "name": "plan", "default": "free" }] });
    let agent = harness.made("/v1/agents", body).await;
    let path = format!("/v1/agents/{}", id(&agent));
    assert_eq!(agent["slug"], "support-agent");
    assert_eq!(agent["draft"]["instructions"], "v1");
    assert_eq!(agent["active_version"], Value::Null);
    let taken = json!({ "name": "x", "slug": "support-agent" });
    let (status, error) = refused(harness.post("/v1/agents", &taken).send().await).await;
    assert_eq!((status, code(&error)), (409, "agent_exists"));
    // A null clears, an absent member stays.
    let changed = harness
        .patched(
            &path,
            json!({ "name": "Helper", "model": null, "slug": "ignored" }),
        )
        .await;
    assert_eq!(changed["name"], "Helper");
    assert_eq!(changed["slug"], "support-agent");
    assert_eq!(changed["draft"]["model"], Value::Null);
    assert_eq!(changed["draft"]["instructions"], "v1");
    harness
        .patched(&path, json!({ "model": "openai-chat/text" }))
        .await;
    // The first version goes live by itself, the next ones do not.
    let versions = format!("{path}/versions");
    let first = harness.made(&versions, json!({ "note": "first" })).await;
    assert_eq!(
        (&first["version"], &first["note"]),
        (&json!(1), &json!("first"))
    );
    harness
        .patched(&path, json!({ "instructions": "v2" }))
        .await;
    assert_eq!(harness.made(&versions, json!({})).await["version"], 2);
    assert_eq!(harness.read(&path).await["active_version"], 1);
    let listed = harness.read(&format!("{versions}?limit=1")).await;
    assert_eq!(listed["data"][0]["version"], 2);
    let cursor = listed["next_cursor"].as_str().expect("a cursor");
    let rest = harness.read(&format!("{versions}?cursor={cursor}")).await;
    assert_eq!(rest["data"][0]["snapshot"]["instructions"], "v1");
    // A staged rollout is sticky; both versions are met among enough smiths.
    let rollout = format!("{path}/rollout");
    let staged = harness
        .made(&rollout, json!({ "version": 2, "percent": 50 }))
        .await;
    assert_eq!(staged["rollout_version"], 2);
    assert_eq!(staged["rollout_percent"], 50);
    let mut seen = Vec::new();
    for n in 0..24 {
        let body = json!({ "external_id": format!("u{n}"), "agent_id": id(&agent) });
        let smith = harness.made("/v1/smiths", body).await;
        let again = harness.read(&format!("/v1/smiths/{}", id(&smith))).await;
        assert_eq!(smith["agent_version"], again["agent_version"]);
        seen.push(smith["agent_version"].as_i64().expect("a version"));
    }
    assert!(seen.contains(&1) && seen.contains(&2), "{seen:?}");
    let whole = harness.made(&rollout, json!({ "version": 2 })).await;
    assert_eq!(whole["active_version"], 2);
    assert_eq!(whole["rollout_version"], Value::Null);
    for (body, expected) in [
        (
            json!({ "version": 2, "percent": 101 }),
            (400, "invalid_percent"),
        ),
        (json!({ "version": 9 }), (404, "not_found")),
    ] {
        let (status, error) = refused(harness.post(&rollout, &body).send().await).await;
        assert_eq!((status, code(&error)), expected);
    }
    let (status, error) = refused(harness.request(Method::DELETE, &path).send().await).await;
    assert_eq!((status, code(&error)), (409, "agent_in_use"));
    let spare = harness
        .made("/v1/agents", json!({ "name": "Support Agent" }))
        .await;
    assert_eq!(spare["slug"], "support-agent-2");
    assert_eq!(
        harness.deleted(&format!("/v1/agents/{}", id(&spare))).await,
        204
    );
    assert_eq!(
        harness.deleted(&format!("/v1/agents/{}", id(&spare))).await,
        404
    );
}

async fn smiths_override_inherit_and_go_back(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let body = json!({ "name": "A", "instructions": "Hi {{ name }}", "model": "openai-chat/text",
        "variables": [{ "name": "name", "required": true }] });
    let agent = id(&harness.made("/v1/agents", body).await);
    harness
        .made(&format!("/v1/agents/{agent}/versions"), json!({}))
        .await;
    let body = json!({ "external_id": "u1", "agent_id": agent, "display_name": "Ada",
        "model": "anthropic/text", "metadata": { "name": "Ada" } });
    let made = harness
        .post("/v1/smiths", &body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(made.status(), 201);
    let smith: Value = made.json().await.expect("JSON");
    assert_eq!(smith["model"], "anthropic/text");
    assert_eq!(smith["inherited"]["model"], "openai-chat/text");
    assert_eq!(smith["override_keys"], json!(["model"]));
    assert_eq!(smith["config_source"], "override");
    assert_eq!(smith["rendered_instructions"], "Hi Ada");
    let again = harness
        .post("/v1/smiths", &body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(again.status(), 200);
    assert_eq!(
        again.json::<Value>().await.expect("JSON")["id"],
        smith["id"]
    );
    let path = format!("/v1/smiths/{}", id(&smith));
    let (status, error) = refused(
        harness
            .request(Method::PATCH, &path)
            .json(&json!({}))
            .send()
            .await,
    )
    .await;
    assert_eq!((status, code(&error)), (400, "empty_patch"));
    // A null clears the override; the smith follows its agent again.
    let cleared = harness
        .patched(&path, json!({ "model": null, "locale": "de" }))
        .await;
    assert_eq!(cleared["model"], "openai-chat/text");
    assert_eq!(cleared["override_keys"], json!([]));
    assert_eq!(cleared["config_source"], "agent");
    let customer = id(&harness.made("/v1/customers", json!({ "name": "C" })).await);
    let owned = harness
        .patched(&path, json!({ "customer_id": customer }))
        .await;
    assert_eq!(owned["customer_id"], json!(customer));
    let bad = json!({ "customer_id": "cus_none" });
    let (status, error) = refused(
        harness
            .request(Method::PATCH, &path)
            .json(&bad)
            .send()
            .await,
    )
    .await;
    assert_eq!(
        (status, error["param"].as_str()),
        (404, Some("customer_id"))
    );
    let freed = harness.patched(&path, json!({ "customer_id": "" })).await;
    assert_eq!(freed["customer_id"], Value::Null);
    // Every change is a revision, and each can be had back.
    let revisions = harness.read(&format!("{path}/revisions")).await;
    let versions: Vec<i64> = revisions["data"]
        .as_array()
        .expect("revisions")
        .iter()
        .filter_map(|r| r["version"].as_i64())
        .collect();
    assert_eq!(versions, [4, 3, 2, 1]);
    let back = harness
        .made(&format!("{path}/revisions/1/restore"), json!({}))
        .await;
    assert_eq!(
        (&back["version"], &back["note"]),
        (&json!(5), &json!("restored revision 1"))
    );
    assert_eq!(back["snapshot"]["locale"], Value::Null);
    let back = harness.read(&path).await;
    assert_eq!(back["model"], "anthropic/text");
    assert_eq!(back["locale"], Value::Null);
    let newest = harness.read(&format!("{path}/revisions?limit=1")).await;
    assert_eq!(newest["data"][0]["version"], 5);
    assert_eq!(newest["data"][0]["note"], "restored revision 1");
    let (status, _) = refused(
        harness
            .post(&format!("{path}/revisions/9/restore"), &json!({}))
            .send()
            .await,
    )
    .await;
    assert_eq!(status, 404);
    // The natural key is free again once the smith is gone.
    assert_eq!(harness.deleted(&path).await, 204);
    let (status, _) = refused(harness.get(&path).send().await).await;
    assert_eq!(status, 404);
    let fresh = harness
        .post("/v1/smiths", &body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(fresh.status(), 201);
}

async fn smiths_become_agents_and_move_between_them(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let body = json!({ "external_id": "u1", "model": "openai-chat/text", "instructions": "Same" });
    let smith = id(&harness.made("/v1/smiths", body).await);
    let import = json!({ "from_smith": smith, "name": "From a smith" });
    let agent = harness.made("/v1/agents/import", import).await;
    assert_eq!(agent["draft"]["instructions"], "Same");
    let agent = id(&agent);
    let published = format!("/v1/agents/{agent}/versions");
    harness.made(&published, json!({})).await;
    let other = json!({ "external_id": "u2", "model": "anthropic/text", "instructions": "Same" });
    harness.made("/v1/smiths", other).await;
    let attach = format!("/v1/agents/{agent}/attach");
    let attached = harness.made(&attach, json!({ "all": true })).await;
    assert_eq!(attached["count"], 2);
    let mut keys: Vec<Value> = attached["attached"]
        .as_array()
        .expect("attached")
        .iter()
        .map(|a| a["override_keys"].clone())
        .collect();
    keys.sort_by_key(Value::to_string);
    // What the agent says anyway is no override any more.
    assert_eq!(keys, [json!(["model"]), json!([])]);
    let moved = harness.read(&format!("/v1/smiths/{smith}")).await;
    assert_eq!(moved["agent_id"], json!(agent));
    assert_eq!(moved["config_source"], "agent");
    let (status, error) = refused(harness.post(&attach, &json!({})).send().await).await;
    assert_eq!((status, code(&error)), (400, "nothing_to_update"));
}

async fn customers_memory_and_recall(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let body = json!({ "name": "Acme", "external_ids": { "crm": "7" }, "metadata": { "a": 1 } });
    let customer = harness.made("/v1/customers", body).await;
    let path = format!("/v1/customers/{}", id(&customer));
    assert_eq!(customer["external_ids"]["crm"], "7");
    let smith = harness.smith("openai-chat/text").await;
    let of_smith = format!("/v1/smiths/{smith}");
    harness
        .patched(&of_smith, json!({ "customer_id": id(&customer) }))
        .await;
    assert_eq!(harness.read(&path).await["smith_count"], 1);
    let renamed = harness.patched(&path, json!({ "name": "Acme Ltd" })).await;
    assert_eq!(renamed["name"], "Acme Ltd");
    assert_eq!(renamed["metadata"]["a"], 1);
    assert_eq!(harness.deleted(&path).await, 204);
    assert_eq!(harness.read(&of_smith).await["customer_id"], Value::Null);
    let memory = format!("{of_smith}/memory");
    assert_eq!(harness.read(&memory).await["content"], "");
    let put = harness
        .request(Method::PUT, &memory)
        .json(&json!({ "content": "likes tea" }));
    assert_eq!(ok(put.send().await).await["content"], "likes tea");
    assert_eq!(harness.read(&memory).await["content"], "likes tea");
    harness.turn(&smith, "t1", "the blue whale").await;
    harness.turn(&smith, "t2", "a red fox").await;
    let query = json!({ "query": "Whale, blue?" });
    let found = harness.made(&format!("{memory}/recall"), query).await;
    assert_eq!(found["data"][0]["thread_id"], "t1");
    assert_eq!(found["data"][0]["content"], "the blue whale");
    assert_eq!(found["data"][0]["score"], 1.0);
    let reader = harness.smith_token(&smith, &["memories:read"]).await;
    let write = harness
        .client
        .put(harness.url(&memory))
        .bearer_auth(&reader);
    let (status, error) = refused(write.json(&json!({ "content": "x" })).send().await).await;
    assert_eq!((status, code(&error)), (403, "insufficient_scope"));
}

async fn conversations_hold_what_was_said(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let smith = harness.smith("openai-chat/text").await;
    let as_smith = |request: reqwest::RequestBuilder| request.header("IC-Smith-Id", &smith);
    let (status, error) = refused(harness.post("/v1/conversations", &json!({})).send().await).await;
    assert_eq!((status, code(&error)), (400, "smith_required"));
    let body = json!({ "metadata": { "a": 1 }, "items": [
        { "type": "message", "role": "user", "content": "Earlier" },
        { "type": "message", "role": "assistant",
          "content": [{ "type": "output_text", "text": "Indeed" }] },
    ] });
    let made = ok(as_smith(harness.post("/v1/conversations", &body))
        .send()
        .await)
    .await;
    assert_eq!(made["object"], "conversation");
    assert!(made["created_at"].is_i64());
    let conversation = id(&made);
    harness
        .turn(&smith, &conversation, "  What   is new? ")
        .await;
    // What it was made with went to the model, before the new turn.
    let sent = harness.mock.last().body;
    let contents: Vec<&Value> = sent["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|m| &m["content"])
        .collect();
    assert!(contents.contains(&&json!("Earlier")), "{sent}");
    harness.turn(&smith, &conversation, "And now?").await;
    let path = format!("/v1/conversations/{conversation}");
    let read = ok(as_smith(harness.get(&path)).send().await).await;
    assert_eq!(read["title"], "What is new?");
    let items = format!("{path}/items");
    let list = async |query: &str| {
        ok(as_smith(harness.get(&format!("{items}{query}")))
            .send()
            .await)
        .await
    };
    let all = list("?order=asc").await;
    let ids = |page: &Value| -> Vec<String> {
        let data = page["data"].as_array().expect("items");
        data.iter().map(id).collect()
    };
    let forward = ids(&all);
    assert_eq!(forward.len(), 6, "{all}");
    assert_eq!(all["data"][0]["content"][0]["text"], "Earlier");
    assert_eq!(all["data"][5]["role"], "assistant");
    assert_eq!(all["data"][5]["content"][0]["annotations"], json!([]));
    // Pages of any size, in both orders, give each item once.
    let mut backward = forward.clone();
    backward.reverse();
    for (order, whole) in [("asc", &forward), ("desc", &backward)] {
        for limit in [1, 2, 4] {
            let mut paged = Vec::new();
            let mut after = String::new();
            loop {
                let page = list(&format!("?order={order}&limit={limit}&after={after}")).await;
                paged.extend(ids(&page));
                after = page["last_id"].as_str().unwrap_or_default().to_owned();
                if page["has_more"] == false {
                    break;
                }
            }
            assert_eq!(&paged, whole, "{order} {limit}");
        }
    }
    let patch = json!({ "title": "Mine", "metadata": { "b": 2 } });
    let changed = ok(as_smith(harness.post(&path, &patch)).send().await).await;
    assert_eq!(changed["metadata"], json!({ "a": 1, "b": 2 }));
    // Another smith does not see it, on any wire.
    let other = harness.smith("openai-chat/text").await;
    let asked = harness
        .get(&path)
        .header("IC-Smith-Id", &other)
        .send()
        .await;
    let (status, error) = refused(asked).await;
    assert_eq!((status, code(&error)), (404, "conversation_not_found"));
    let body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    let turn = harness
        .post("/v1/chat/completions", &body)
        .header("IC-Smith-Id", &other)
        .header("IC-Thread-Id", &conversation);
    let (status, error) = refused(turn.send().await).await;
    assert_eq!((status, code(&error)), (404, "conversation_not_found"));
    let deletion = harness.request(Method::DELETE, &path);
    let gone = ok(as_smith(deletion).send().await).await;
    assert_eq!(gone["object"], "conversation.deleted");
    let (status, _) = refused(as_smith(harness.get(&path)).send().await).await;
    assert_eq!(status, 404);
}

async fn runs_leave_events_traces_and_usage(url: Option<String>) {
    let harness = start_on(url, |config| {
        let price = Price {
            input: 1000.0,
            output: 2000.0,
            ..Price::default()
        };
        config.prices.models.insert("text".to_owned(), price);
    })
    .await;
    let smith = harness.smith("openai-chat/text").await;
    let run = harness.turn(&smith, "t", "hi").await;
    let cost = run["usage"]["cost"].as_f64().expect("a cost");
    let input = run["usage"]["input_tokens"].as_f64().expect("tokens");
    let output = run["usage"]["output_tokens"].as_f64().expect("tokens");
    assert!((cost - (input * 1000.0 + output * 2000.0) / 1e6).abs() < 1e-9);
    let failing = harness.smith("openai-chat/status-500").await;
    let body = json!({ "input": [{ "role": "user", "content": "x" }] });
    let failed = harness
        .made(&format!("/v1/smiths/{failing}/runs"), body)
        .await;
    assert_eq!(failed["status"], "failed");
    // The feed.
    let feed = harness.read("/v1/events?type=run").await;
    let kinds: Vec<&str> = feed["data"]
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|e| e["type"].as_str())
        .collect();
    assert_eq!(kinds, ["run.failed", "run.completed"]);
    let event = &feed["data"][1];
    assert_eq!(event["v"], 1);
    assert_eq!(event["smith_id"], json!(smith));
    assert_eq!(event["data"]["run_id"], run["id"]);
    assert_eq!(event["data"]["stop_reason"], "end_turn");
    assert_eq!(event["actor"]["kind"], "tenant");
    let since = event["created_at"]
        .as_str()
        .expect("a time")
        .replace('+', "%2B");
    for (query, count) in [
        ("type=run.failed".to_owned(), 1),
        ("type=slack".to_owned(), 0),
        (format!("smith_id={smith}"), 1),
        (format!("since={since}"), 2),
        ("since=2999-01-01T00:00:00Z".to_owned(), 0),
    ] {
        let page = harness.read(&format!("/v1/events?{query}")).await;
        assert_eq!(
            page["data"].as_array().map(Vec::len),
            Some(count),
            "{query}"
        );
    }
    // The trace.
    let run_id = id(&run);
    let trace = harness.read(&format!("/v1/runs/{run_id}/trace")).await;
    assert_eq!(trace["id"], json!(run_id.replace("run_", "trc_")));
    assert_eq!(trace["status"], "ok");
    let root = &trace["span_tree"][0];
    assert_eq!(root["kind"], "run");
    let call = &root["children"][0];
    assert_eq!(call["kind"], "model_call");
    assert_eq!(call["name"], "openai-chat/text");
    assert_eq!(call["parent_span_id"], root["id"]);
    assert_eq!(call["input_tokens"], run["usage"]["input_tokens"]);
    assert_eq!(trace["spans"].as_array().map(Vec::len), Some(2));
    let errors = harness.read("/v1/traces?status=error").await;
    assert_eq!(errors["data"][0]["run_id"], failed["id"]);
    // Usage is summed once a second.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let usage = harness.read("/v1/usage?group_by=smith").await;
    assert_eq!(usage["groups"][0]["smith"], json!(smith));
    assert_eq!(usage["groups"][0]["run_count"], 1);
    assert!((usage["totals"]["cost"].as_f64().expect("a cost") - cost).abs() < 1e-9);
    let csv = text(
        harness
            .get("/v1/usage?group_by=model&format=csv")
            .send()
            .await,
    )
    .await;
    assert!(
        csv.starts_with("model,tokens,") && csv.contains("\r\ntext,"),
        "{csv}"
    );
    let tenant = harness.read("/v1/tenant/usage").await;
    assert_eq!(tenant["totals"]["runs"], 1);
    let ledger = harness.read("/v1/usage/events").await;
    assert_eq!(ledger["data"][0]["run_id"], json!(run_id));
    let meter = json!({ "meter": "pages", "quantity": 2.5, "smith_id": smith });
    harness.made("/v1/usage/events", meter).await;
    let usage = harness.read("/v1/usage").await;
    assert_eq!(usage["meters"][0]["meter"], "pages");
    assert_eq!(usage["meters"][0]["quantity"], 2.5);
    assert_eq!(usage["meters"][0]["customer"], format!("principal:{smith}"));
    for query in ["group_by=x", "period=2026-13", "from=x"] {
        let (status, _) = refused(harness.get(&format!("/v1/usage?{query}")).send().await).await;
        assert_eq!(status, 400, "{query}");
    }
    // Spans of the caller's own.
    let spans = json!({ "spans": [
        { "trace_id": "mine", "id": "a", "kind": "tool_call", "name": "x" },
        { "trace_id": "mine", "id": "b", "parent_span_id": "a", "kind": "nonsense" },
    ] });
    let taken = harness
        .post("/v1/traces:ingest", &spans)
        .send()
        .await
        .expect("an answer");
    assert_eq!(taken.status(), 202);
    let mine = harness.read("/v1/traces/mine").await;
    assert_eq!(mine["span_tree"][0]["children"][0]["kind"], "runtime_event");
}

async fn budgets_warn_and_block(url: Option<String>) {
    let harness = start_on(url, |config| {
        let price = Price {
            input: 1000.0,
            output: 1000.0,
            ..Price::default()
        };
        config.prices.models.insert("text".to_owned(), price);
    })
    .await;
    let smith = harness.smith("openai-chat/text").await;
    let other = harness.smith("openai-chat/text").await;
    let body = json!({ "scope": "smith", "scope_id": smith, "limit": 0.001, "action": "block" });
    let budget = harness.made("/v1/budgets", body.clone()).await;
    assert_eq!(budget["period"], "monthly");
    assert_eq!(budget["currency"], "eur");
    let (status, error) = refused(harness.post("/v1/budgets", &body).send().await).await;
    assert_eq!((status, code(&error)), (409, "budget_exists"));
    for (bad, expected) in [
        (
            json!({ "scope": "smith", "limit": 1 }),
            (400, "scope_id_required"),
        ),
        (
            json!({ "scope": "tenant", "limit": 0 }),
            (400, "invalid_threshold"),
        ),
        (
            json!({ "scope": "tenant", "limit": 1, "period": "daily" }),
            (400, "invalid_period"),
        ),
        (
            json!({ "scope": "agent", "scope_id": "agt_x", "limit": 1 }),
            (404, "not_found"),
        ),
    ] {
        let (status, error) = refused(harness.post("/v1/budgets", &bad).send().await).await;
        assert_eq!((status, code(&error)), expected);
    }
    harness.turn(&smith, "t", "hi").await;
    let path = format!("/v1/budgets/{}", id(&budget));
    let mut over = Value::Null;
    for _ in 0..50 {
        over = harness.read(&format!("{path}/status")).await;
        if over["over"] == true {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(over["remaining"], 0.0, "{over}");
    // Seen by new runs when the cache has turned over.
    let run = json!({ "input": [{ "role": "user", "content": "again" }] });
    let mut answer = (0, Value::Null);
    for _ in 0..50 {
        let asked = harness
            .post(&format!("/v1/smiths/{smith}/runs"), &run)
            .send()
            .await;
        let asked = asked.expect("an answer");
        if asked.status() == 402 {
            assert!(!asked.headers().contains_key("retry-after"));
            answer = (402, asked.json().await.expect("JSON"));
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(answer.0, 402);
    assert_eq!(answer.1["error"]["code"], "budget_exceeded");
    harness.turn(&other, "t", "I have no budget").await;
    // Both thresholds were passed at once: the higher one is told, once.
    let mut told = Value::Null;
    for _ in 0..50 {
        told = harness.read("/v1/events?type=budget.threshold").await;
        if told["data"].as_array().is_some_and(|d| !d.is_empty()) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(told["data"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told["data"][0]["data"]["threshold"], 100);
    let raised = harness.patched(&path, json!({ "limit": 1000 })).await;
    assert_eq!(raised["limit"], 1000.0);
    harness.turn(&smith, "t", "and on").await;
    assert_eq!(harness.deleted(&path).await, 204);
}

async fn files_pass_through_in_pieces(url: Option<String>) {
    let harness = start_on(url, |config| {
        config.limits.max_file_bytes = 4 * 1024 * 1024;
    })
    .await;
    let content: Vec<u8> = (0..2_700_001u32).map(|n| (n % 251) as u8).collect();
    let upload = |content: Vec<u8>, purpose: &str| {
        let boundary = "----b0undary";
        let mut body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; \
             filename=\"a.bin\"\r\nContent-Type: text/html\r\n\r\n"
        )
        .into_bytes();
        body.extend(content);
        body.extend(format!("\r\n--{boundary}--\r\n").bytes());
        harness
            .request(Method::POST, "/v1/files")
            .header(
                "content-type",
                format!("multipart/form-data; boundary={boundary}"),
            )
            .body(body)
    };
    let made = ok(upload(content.clone(), "user_data").send().await).await;
    assert_eq!(made["object"], "file");
    assert_eq!(made["bytes"], content.len());
    assert_eq!(made["filename"], "a.bin");
    assert_eq!(made["status"], "processed");
    let path = format!("/v1/files/{}", id(&made));
    let answer = harness
        .get(&format!("{path}/content"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.headers()["content-type"], "application/octet-stream");
    assert_eq!(
        answer.headers()["content-length"],
        content.len().to_string()
    );
    assert_eq!(answer.bytes().await.expect("content"), content);
    let empty = ok(upload(Vec::new(), "vision").send().await).await;
    let nothing = harness
        .get(&format!("/v1/files/{}/content", id(&empty)))
        .send()
        .await;
    assert_eq!(
        nothing.expect("an answer").bytes().await.expect("content"),
        ""
    );
    let listed = harness
        .read("/v1/files?purpose=user_data&limit=10000")
        .await;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
    let (status, error) = refused(upload(vec![0; 16], "nonsense").send().await).await;
    assert_eq!((status, error["param"].as_str()), (400, Some("purpose")));
    let large = upload(vec![0; 5 * 1024 * 1024], "user_data").send().await;
    let (status, error) = refused(large).await;
    assert_eq!((status, code(&error)), (413, "payload_too_large"));
    // What was refused is nowhere to be seen.
    let all = harness.read("/v1/files").await;
    assert_eq!(all["data"].as_array().map(Vec::len), Some(2));
    let gone = ok(harness.request(Method::DELETE, &path).send().await).await;
    assert_eq!(gone["deleted"], true);
    let (status, _) = refused(harness.get(&path).send().await).await;
    assert_eq!(status, 404);
}

async fn an_organization_manages_projects(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let store = harness.gateway.store.clone();
    let organization = smithgate::gateway::organization(store.as_ref())
        .await
        .expect("one");
    let auth = &harness.gateway.auth;
    let key = auth
        .mint_organization_key(&organization.id, None, None)
        .await
        .expect("a key")
        .1;
    assert!(key.starts_with("tho_live_"));
    let call = |method: Method, path: &str, bearer: &str| {
        harness
            .client
            .request(method, harness.url(path))
            .bearer_auth(bearer)
    };
    let projects = "/v1/organization/projects";
    let listed = ok(call(Method::GET, projects, &key).send().await).await;
    assert_eq!(listed["data"][0]["id"], json!(harness.tenant));
    let body = json!({ "name": "second", "metadata": { "a": 1 } });
    let made = ok(call(Method::POST, projects, &key).json(&body).send().await).await;
    let project = format!("{projects}/{}", id(&made));
    let named = ok(call(Method::GET, &format!("{projects}?name=second"), &key)
        .send()
        .await)
    .await;
    assert_eq!(named["data"].as_array().map(Vec::len), Some(1));
    let minted = call(Method::POST, &format!("{project}/tokens"), &key).json(&json!({}));
    let token = ok(minted.send().await).await["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    // The new project is empty, and its token reaches nothing of the first one.
    let smith = harness.smith("openai-chat/text").await;
    let smiths = ok(call(Method::GET, "/v1/smiths", &token).send().await).await;
    assert_eq!(smiths["data"], json!([]));
    let (status, _) = refused(
        call(Method::GET, &format!("/v1/smiths/{smith}"), &token)
            .send()
            .await,
    )
    .await;
    assert_eq!(status, 404);
    let kept = |tenant: &str| smithgate::store::KeptCall {
        tenant_id: tenant.to_owned(),
        smith_id: String::new(),
        call: "call_1".to_owned(),
        kept: "{}".to_owned(),
        created_at: 1,
    };
    let both = [kept(&id(&made)), kept(&harness.tenant)];
    store.keep_calls(&both).await.expect("kept");
    // Each kind of token has its own realm.
    let (status, error) = refused(call(Method::GET, "/v1/smiths", &key).send().await).await;
    assert_eq!((status, code(&error)), (403, "tenant_token_required"));
    let (status, error) = refused(call(Method::GET, projects, &token).send().await).await;
    assert_eq!((status, code(&error)), (403, "organization_required"));
    let gone = call(Method::DELETE, &project, &key)
        .send()
        .await
        .expect("an answer");
    assert_eq!(gone.status(), 204);
    let (status, _) = refused(call(Method::GET, "/v1/smiths", &token).send().await).await;
    assert_eq!(status, 401);
    let calls = ["call_1".to_owned()];
    for (tenant, left) in [(id(&made), 0), (harness.tenant.clone(), 1)] {
        let kept = store.kept_calls(&tenant, "", &calls);
        assert_eq!(kept.await.expect("read").len(), left, "{tenant}");
    }
    let keys = "/v1/organization/keys";
    let second = ok(call(Method::POST, keys, &key)
        .json(&json!({ "name": "ci" }))
        .send()
        .await)
    .await;
    let secret = second["token"].as_str().expect("a key").to_owned();
    ok(call(Method::GET, keys, &secret).send().await).await;
    let revoked = call(Method::DELETE, &format!("{keys}/{}", id(&second)), &key)
        .send()
        .await;
    assert_eq!(revoked.expect("an answer").status(), 204);
    let (status, _) = refused(call(Method::GET, keys, &secret).send().await).await;
    assert_eq!(status, 401);
}

async fn limits_are_told_and_kept(url: Option<String>) {
    let harness = start_on(url, |config| {
        config.limits.rate.token_per_minute = 8;
        config.limits.concurrency.smith_runs = 1;
        config.limits.idle_timeout_ms = 20_000;
    })
    .await;
    let smith = harness.smith("openai-chat/fault-stall").await;
    let answer = harness.get("/v1/smiths").send().await.expect("an answer");
    assert_eq!(answer.headers()["x-ratelimit-limit-requests"], "8");
    assert_eq!(answer.headers()["x-ratelimit-remaining-requests"], "6");
    assert!(
        answer.headers()["x-ratelimit-reset-requests"]
            .to_str()
            .expect("text")
            .ends_with('s')
    );
    let run = json!({ "stream": true, "input": [{ "role": "user", "content": "x" }] });
    let path = format!("/v1/smiths/{smith}/runs");
    let first = harness.post(&path, &run).send().await.expect("an answer");
    assert_eq!(first.status(), 200);
    let second = harness.post(&path, &run).send().await.expect("an answer");
    assert_eq!(second.status(), 429);
    assert_eq!(second.headers()["retry-after"], "1");
    let error: Value = second.json().await.expect("JSON");
    assert_eq!(error["error"]["code"], "concurrency_limit_exceeded");
    drop(first);
    for _ in 0..4 {
        ok(harness.get("/v1/smiths").send().await).await;
    }
    let late = harness.get("/v1/smiths").send().await.expect("an answer");
    assert_eq!(late.status(), 429);
    assert_eq!(late.headers()["x-ratelimit-remaining-requests"], "0");
    let wait: u64 = late.headers()["retry-after"]
        .to_str()
        .expect("text")
        .parse()
        .expect("seconds");
    assert!((1..=8).contains(&wait), "{wait}");
    let error: Value = late.json().await.expect("JSON");
    assert_eq!(error["error"]["code"], "rate_limit_exceeded");
    assert_eq!(error["error"]["type"], "rate_limit_error");
}

async fn agents_have_templates(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let agent = harness.made("/v1/agents", json!({ "name": "A" })).await;
    let path = format!("/v1/agents/{}/ui", id(&agent));
    let upload = |html: &str, metadata: Value| harness.put_panel(&id(&agent), html, &metadata);
    let metadata = json!({ "name": "panel", "csp": { "connectDomains": ["https://x.example"] },
        "tool": { "description": "Shows it", "mutating": true } });
    let made = ok(upload("<p>one</p>", metadata.clone()).send().await).await;
    // The SHA-256 of the bytes, which the IaC client compares.
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"<p>one</p>");
    assert_eq!(made["content_hash"], hex::encode(digest.as_ref()));
    assert_eq!(made["tool"]["mutating"], true);
    ok(upload("<p>two</p>", metadata).send().await).await;
    let listed = harness.read(&path).await;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
    let answer = harness
        .get(&format!("{path}/panel/content"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(answer.text().await.expect("text"), "<p>two</p>");
    let draft = harness.read(&format!("/v1/agents/{}", id(&agent))).await;
    assert_eq!(draft["draft"]["ui_resources"][0]["name"], "panel");
    let (status, error) = refused(upload("x", json!({ "name": "A b" })).send().await).await;
    assert_eq!((status, code(&error)), (400, "invalid_name"));
    assert_eq!(harness.deleted(&format!("{path}/panel")).await, 204);
    assert_eq!(harness.deleted(&format!("{path}/panel")).await, 404);
    let (status, _) = refused(harness.get(&format!("{path}/panel/content")).send().await).await;
    assert_eq!(status, 404);
}

async fn a_run_is_run_again(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let smith = harness.smith("openai-chat/text").await;
    let first = harness.turn(&smith, "t", "once more").await;
    let path = format!("/v1/smiths/{smith}/runs/{}/replay", id(&first));
    let again = harness.made(&path, json!({})).await;
    assert_ne!(again["id"], first["id"]);
    assert_ne!(again["thread_id"], first["thread_id"]);
    assert_eq!(again["input"], first["input"]);
    assert_eq!(again["metadata"]["replay"]["of"], first["id"]);
    assert_eq!(again["output"], first["output"]);
    let stream = harness.post(&path, &json!({ "stream": true })).send().await;
    assert!(text(stream).await.contains("event: run.completed"));
    let other = harness.smith("openai-chat/text").await;
    let path = format!("/v1/smiths/{other}/runs/{}/replay", id(&first));
    let (status, _) = refused(harness.post(&path, &json!({})).send().await).await;
    assert_eq!(status, 404);
    // A chat turn with a system message has no native form.
    let body = json!({ "messages": [{ "role": "system", "content": "x" },
        { "role": "user", "content": "y" }] });
    let chat = harness
        .post("/v1/chat/completions", &body)
        .header("IC-Smith-Id", &other);
    ok(chat.send().await).await;
    let runs = harness.read(&format!("/v1/smiths/{other}/runs")).await;
    let path = format!("/v1/smiths/{other}/runs/{}/replay", id(&runs["data"][0]));
    let (status, error) = refused(harness.post(&path, &json!({})).send().await).await;
    assert_eq!((status, code(&error)), (400, "replay_unsupported"));
}

async fn a_key_answers_once_even_with_a_secret(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let mint = |name: &str| {
        harness
            .post(
                "/v1/tenant/tokens",
                &json!({ "scope": "admin", "name": name }),
            )
            .header("Idempotency-Key", "once")
    };
    let first = ok(mint("a").send().await).await;
    let again = mint("a").send().await.expect("an answer");
    assert_eq!(again.status(), 201);
    assert_eq!(again.json::<Value>().await.expect("JSON"), first);
    let (status, error) = refused(mint("b").send().await).await;
    assert_eq!((status, code(&error)), (409, "idempotency_key_reused"));
    // The kept answer is sealed: the secret is nowhere in the store.
    let secret = first["token"].as_str().expect("a token");
    for entry in std::fs::read_dir(&harness.config.data_dir).expect("the data directory") {
        let bytes = std::fs::read(entry.expect("an entry").path()).unwrap_or_default();
        let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found, "the token is readable in the store");
    }
}
