//! Skills at work: what a model is told of them, and what it reads by tools, on each wire.

use reqwest::Method;
use serde_json::{Value, json};

use crate::control::{id, on_both_stores, start_on};
use crate::support::{Harness, ok, refused};

on_both_stores! {
    a_run_reads_the_skills_of_its_smith,
}

const MAIN: &str = "---\nname: greeter\ndescription: Greets people\n  warmly.\nlicense: MIT\n---\n\
                    # Greeting\n\nSay hello twice. See references/words.md.";

impl Harness {
    async fn skill(&self, path: &str, files: &[(&str, &str)]) -> Value {
        let mut form = String::new();
        for (name, content) in files {
            form += &format!(
                "--b\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"{name}\"\r\n\
                 \r\n{content}\r\n"
            );
        }
        let call = self.request(Method::POST, path);
        let call = call.header("content-type", "multipart/form-data; boundary=b");
        ok(call.body(form + "--b--\r\n").send().await).await
    }
}

async fn a_run_reads_the_skills_of_its_smith(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let long = "A line of a long file.\n".repeat(5_000);
    let made = harness
        .skill(
            "/v1/skills",
            &[
                ("greeter/SKILL.md", MAIN),
                ("greeter/references/words.md", "hello, good day"),
                ("greeter/scripts/run.sh", "echo hi"),
                ("greeter/assets/long.txt", &long),
                ("greeter/assets/icon.bin", "\0\u{1}\u{2}"),
            ],
        )
        .await;
    let skill = id(&made);
    let gone = id(&harness
        .skill("/v1/skills", &[("SKILL.md", "---\nname: gone\n---\nx")])
        .await);
    let body = json!({ "model": "openai-chat/script", "instructions": "Be brief.",
        "skills": [{ "skill_id": skill }, { "skill_id": gone }] });
    let smith = id(&ok(harness.post("/v1/smiths", &body).send().await).await);
    ok(harness
        .request(Method::DELETE, &format!("/v1/skills/{gone}"))
        .send()
        .await)
    .await;
    let script = "read_skill {\"name\": \"greeter\"}\n---\n\
                  read_skill_file {\"name\": \"greeter\", \"path\": \"references/words.md\"}\n\
                  read_skill_file {\"name\": \"greeter\", \"path\": \"greeter/scripts/run.sh\"}\n\
                  read_skill_file {\"name\": \"greeter\", \"path\": \"assets/icon.bin\"}\n\
                  read_skill_file {\"name\": \"greeter\", \"path\": \"../SKILL.md\"}\n\
                  read_skill_file {\"name\": \"other\", \"path\": \"x\"}\n\
                  read_skill_file {\"name\": \"greeter\", \"path\": \"assets/long.txt\", \"offset\": 114990}";
    let run = harness.run(&smith, script).await;
    assert_eq!(run["status"], "completed", "{run}");
    // What is gone is a warning, not a failure.
    let warnings = run["warnings"].to_string();
    assert!(
        warnings.contains("skill_files_unavailable") && warnings.contains(&gone),
        "{warnings}"
    );
    let said = run["output"]["content"].as_str().expect("text");
    for part in [
        "Say hello twice.",
        "references/words.md (15 bytes)",
        "hello, good day",
        "echo hi",
        "binary file of 3 bytes",
        "has no file",
        "ong file.",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    assert!(!said.contains("license:"), "{said}");
    let asked = harness.mock.last().body;
    let system = asked["messages"][0]["content"].to_string();
    assert!(
        system.contains("Be brief.") && system.contains("- greeter: Greets people warmly."),
        "{system}"
    );
    assert!(!system.contains("gone"), "{system}");

    // Other wires tell the model the same.
    let user = json!([{ "role": "user", "content": "read_skill {\"name\": \"greeter\"}" }]);
    for (path, body) in [
        ("/v1/chat/completions", json!({ "messages": user })),
        ("/v1/responses", json!({ "input": user })),
    ] {
        let call = harness.post(path, &body).header("IC-Smith-Id", &smith);
        let answer = ok(call.send().await).await.to_string();
        assert!(answer.contains("Say hello twice."), "{path}: {answer}");
    }

    // A published version holds the skill's version as it was.
    let agent = json!({ "name": "a", "model": "openai-chat/script",
        "skills": [{ "skill_id": skill }] });
    let agent = id(&ok(harness.post("/v1/agents", &agent).send().await).await);
    let publish = format!("/v1/agents/{agent}/versions");
    ok(harness.post(&publish, &json!({})).send().await).await;
    let frozen = json!({ "agent_id": agent });
    let frozen = id(&ok(harness.post("/v1/smiths", &frozen).send().await).await);
    let newer = MAIN.replace("twice", "three times");
    let versions = format!("/v1/skills/{skill}/versions");
    harness.skill(&versions, &[("SKILL.md", &newer)]).await;
    let newest = harness.post(
        &format!("/v1/skills/{skill}"),
        &json!({ "default_version": "2" }),
    );
    ok(newest.send().await).await;
    let body = json!({ "model": "openai-chat/script", "skills": [{ "skill_id": skill }] });
    let free = id(&ok(harness.post("/v1/smiths", &body).send().await).await);
    for (smith, words) in [(&frozen, "hello twice"), (&free, "hello three times")] {
        let run = harness
            .run(smith, "read_skill {\"name\": \"greeter\"}")
            .await;
        let said = run["output"]["content"].to_string();
        assert!(said.contains(words), "{said}");
    }
    // Of two that have one name, nobody could say which is meant.
    let twice = "--b\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"SKILL.md\"\r\n\r\n\
                 ---\nname: first\ndescription: x\nname: second\n---\nx\r\n--b--\r\n";
    let call = harness
        .request(Method::POST, "/v1/skills")
        .header("content-type", "multipart/form-data; boundary=b");
    let (status, error) = refused(call.body(twice).send().await).await;
    assert_eq!(status, 422, "{error}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("the key 'name' is there twice"), "{error}");
    // A smith's own skill is nobody else's.
    let token = harness
        .smith_token(&free, &["skills:read", "skills:write"])
        .await;
    let form = "--b\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"SKILL.md\"\r\n\r\n\
                ---\nname: own\n---\nMine.\r\n--b--\r\n";
    let own = harness.client.post(harness.url("/v1/skills"));
    let own = own.header("content-type", "multipart/form-data; boundary=b");
    let own = id(&ok(own.bearer_auth(&token).body(form).send().await).await);
    for (smith, is_its) in [(&free, true), (&frozen, false)] {
        let patch = harness.request(Method::PATCH, &format!("/v1/smiths/{smith}"));
        let patch = patch.json(&json!({ "skills": [{ "skill_id": own }] }));
        if let Ok(answer) = patch.send().await
            && answer.status().is_success()
        {
            let run = harness.run(smith, "read_skill {\"name\": \"own\"}").await;
            let said = run["output"]["content"].to_string();
            assert_eq!(said.contains("Mine."), is_its, "{said}");
        }
    }
}
