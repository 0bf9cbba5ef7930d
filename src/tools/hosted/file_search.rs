//! `file_search`: the vector stores that the smith's configuration names.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Answer, Function, Hosted, Parts, ToolUser, object};

const SHOWN: usize = 8;

pub struct FileSearch;

#[async_trait]
impl Hosted for FileSearch {
    fn name(&self) -> &'static str {
        "file_search"
    }

    fn description(&self) -> &'static str {
        "Searches the smith's vector stores."
    }

    fn functions(&self) -> Vec<Function> {
        let query = json!({ "type": "string", "minLength": 1, "maxLength": 4096 });
        vec![Function {
            name: "file_search",
            description: "Search the documents that you were given. Name the file that an answer \
                          is from.",
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
        let mut found = Vec::new();
        let mut searched = 0;
        for id in &caller.vector_store_ids {
            let hits = parts.documents.search(caller, id, query, SHOWN).await?;
            if let Some(hits) = hits {
                searched += 1;
                found.extend(hits);
            }
        }
        if searched == 0 {
            return Err("there are no documents to search".to_owned());
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(SHOWN);
        let lines: Vec<String> = found
            .into_iter()
            .map(|hit| {
                json!({ "file": hit.filename, "file_id": hit.file_id, "text": hit.text,
                    "score": hit.score })
                .to_string()
            })
            .collect();
        match lines.is_empty() {
            true => Ok("Nothing was found.".to_owned().into()),
            false => Ok(lines.join("\n").into()),
        }
    }
}
