//! Blocks of Anthropic's among the parts of a message, as clients send them that keep their
//! conversations in its form and speak this wire: what was thought, calls, and results.

use serde_json::Value;

use crate::error::ApiError;
use crate::frame::Signer;
use crate::model::{Part, Signature};
use crate::wire::openai::content::{arguments_text, cache_mark, content_part, content_parts};

/// The parts of a content, or `None` where it holds no such blocks. `field`: where it stands.
pub(super) fn with_blocks(content: &Value, field: &str) -> Option<Result<Vec<Part>, ApiError>> {
    let list = content.as_array()?;
    let is_block = |item: &Value| {
        matches!(
            item["type"].as_str(),
            Some("tool_use" | "tool_result" | "thinking" | "redacted_thinking")
        )
    };
    list.iter().any(is_block).then(|| {
        let mut parts = Vec::with_capacity(list.len());
        for (at, item) in list.iter().enumerate().filter(|(_, item)| !item.is_null()) {
            parts.push(block(item, &format!("{field}[{at}]"))?);
            parts.extend(cache_mark(item));
        }
        Ok(parts)
    })
}

fn block(item: &Value, field: &str) -> Result<Part, ApiError> {
    let text = |name: &str| {
        let text = item[name].as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| ApiError::invalid(format!("{field}.{name}"), "is missing"))
    };
    let signed = |value: &Value| {
        let value = value.as_str().filter(|value| !value.is_empty())?;
        Some(Signature {
            signer: Signer::Anthropic,
            value: value.to_owned(),
        })
    };
    Ok(match item["type"].as_str() {
        Some("tool_use") => Part::ToolCall {
            id: text("id")?,
            name: text("name")?,
            arguments: arguments_text(&item["input"]),
            signature: None,
            server: None,
            approved: false,
        },
        Some("tool_result") => Part::ToolResult {
            tool_call_id: text("tool_use_id")?,
            content: content_parts(&item["content"], &format!("{field}.content"))?,
            is_error: item["is_error"].as_bool().unwrap_or(false),
        },
        Some("thinking") => Part::Reasoning {
            text: item["thinking"].as_str().unwrap_or_default().to_owned(),
            signature: signed(&item["signature"]),
            redacted: false,
        },
        Some("redacted_thinking") => Part::Reasoning {
            text: String::new(),
            signature: signed(&item["data"]),
            redacted: true,
        },
        _ => content_part(item, field)?,
    })
}
