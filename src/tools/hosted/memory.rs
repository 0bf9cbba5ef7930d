//! The working memory: one text a smith, read and rewritten by its model. It comes with
//! `auto_memory`.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Answer, Function, Hosted, Parts, ToolUser, object};
use crate::store::now_micros;

/// As large as the API takes it.
const MAX_BYTES: usize = 64 * 1024;

pub struct Memory;

#[async_trait]
impl Hosted for Memory {
    fn name(&self) -> &'static str {
        "working_memory"
    }

    fn description(&self) -> &'static str {
        "Reads and updates the smith's working memory."
    }

    fn is_listed(&self) -> bool {
        false
    }

    fn functions(&self) -> Vec<Function> {
        let content = json!({ "type": "string", "maxLength": MAX_BYTES });
        vec![
            Function {
                name: "read_memory",
                description: "Read the notes that you keep about this person",
                parameters: object(json!({}), &[]),
            },
            Function {
                name: "update_memory",
                description: "Replace the notes that you keep about this person. Give all that \
                              shall be kept, what was noted before included.",
                parameters: object(json!({ "content": content }), &["content"]),
            },
        ]
    }

    async fn call(
        &self,
        function: &str,
        args: &Map<String, Value>,
        caller: &ToolUser,
        parts: &Parts,
    ) -> Result<Answer, String> {
        let (tenant, smith) = (&caller.tenant_id, &caller.smith_id);
        let failed = |_| "the memory cannot be reached now".to_owned();
        if function == "read_memory" {
            let content = parts.store.smith_memory(tenant, smith).await;
            return Ok(content.map_err(failed)?.into());
        }
        let content = super::text(args, "content")?;
        if content.len() > MAX_BYTES {
            return Err(format!("the memory holds at most {MAX_BYTES} bytes"));
        }
        let put = parts
            .store
            .put_smith_memory(tenant, smith, content, now_micros());
        put.await.map_err(failed)?;
        Ok("Noted.".to_owned().into())
    }
}
