//! `recall`: the smith's past messages, by words.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Answer, Function, Hosted, Parts, ToolUser, object};
use crate::error::ApiError;
use crate::model::{Role, Turn, joined_text};
use crate::store::{RunFilter, Store};

const SHOWN: usize = 8;
/// Runs that are looked at, newest first.
const RUNS: i64 = 500;
/// Characters of a message that are shown.
const CHARS: usize = 2000;

/// A message that was found.
#[derive(Debug)]
pub struct Hit {
    pub thread_id: String,
    pub content: String,
    /// The share of the query's words that it holds.
    pub score: f64,
}

/// The smith's messages that share words with `query`, best first.
pub async fn search(
    store: &dyn Store,
    tenant_id: &str,
    smith_id: &str,
    query: &str,
    limit: usize,
) -> Result<Vec<Hit>, ApiError> {
    let words = words(query);
    if words.is_empty() {
        return Err(ApiError::invalid("query", "must hold a word"));
    }
    let filter = RunFilter {
        smith_id: Some(smith_id.to_owned()),
        status: Some("completed".to_owned()),
        ..RunFilter::default()
    };
    let mut found = Vec::new();
    let mut left = RUNS;
    let mut before: Option<String> = None;
    while left > 0 {
        let page = store
            .runs(tenant_id, &filter, before.as_deref(), left)
            .await?;
        left -= page.len() as i64;
        before = page.last().map(|run| run.id.clone());
        if !page.is_cut() {
            left = 0;
        }
        for run in page {
            let transcript = run.transcript.as_deref().unwrap_or("[]");
            let turns: Vec<Turn> = serde_json::from_str(transcript).map_err(ApiError::internal)?;
            for turn in turns {
                if !matches!(turn.role, Role::User | Role::Assistant) {
                    continue;
                }
                let text = joined_text(&turn.parts);
                let score = score(&words, &text);
                if score > 0.0 {
                    found.push(Hit {
                        thread_id: run.thread_id.clone(),
                        content: text.chars().take(CHARS).collect(),
                        score,
                    });
                }
            }
        }
    }
    // The sort is stable: of equal scores the newest comes first.
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(limit);
    Ok(found)
}

fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = text
        .to_lowercase()
        .split(|ch: char| !ch.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    words.sort();
    words.dedup();
    words
}

fn score(query: &[String], text: &str) -> f64 {
    let held = words(text);
    let hits = query
        .iter()
        .filter(|word| held.binary_search(word).is_ok())
        .count();
    hits as f64 / query.len() as f64
}

pub struct Recall;

#[async_trait]
impl Hosted for Recall {
    fn name(&self) -> &'static str {
        "recall"
    }

    fn description(&self) -> &'static str {
        "Searches the smith's past messages."
    }

    fn functions(&self) -> Vec<Function> {
        let query = json!({ "type": "string", "minLength": 1, "maxLength": 1000 });
        vec![Function {
            name: "recall",
            description: "Search what was said in earlier conversations with this person",
            parameters: object(json!({ "query": query }), &["query"]),
        }]
    }

    async fn call(
        &self,
        _function: &str,
        args: &Map<String, Value>,
        caller: &ToolUser,
        parts: &Parts,
    ) -> Result<Answer, String> {
        let query = super::text(args, "query")?;
        let store = parts.store.as_ref();
        let found = search(store, &caller.tenant_id, &caller.smith_id, query, SHOWN).await;
        let found = found.map_err(|error| error.message.into_owned())?;
        if found.is_empty() {
            return Ok("Nothing was said about that.".to_owned().into());
        }
        let lines: Vec<String> = found
            .into_iter()
            .map(|hit| json!({ "thread_id": hit.thread_id, "content": hit.content }).to_string())
            .collect();
        Ok(lines.join("\n").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_scores_by_shared_words() {
        let query = words("Blue whale, blue sea");
        assert_eq!(query, ["blue", "sea", "whale"]);
        assert!((score(&query, "The BLUE sea.") - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(score(&query, "nothing"), 0.0);
    }
}
