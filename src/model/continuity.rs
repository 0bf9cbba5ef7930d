//! What a provider wants back with the next turn (thinking blocks and their signatures, thought
//! signatures of tool calls), kept for clients that send history without it.
//!
//! Chat Completions has no place for these; clients that keep unknown fields send them back, the
//! others are helped by this cache, keyed by tenant and tool call id.

use std::sync::Arc;
use std::time::Duration;

use super::request::{ModelRequest, Part, Role};

type Key = (Arc<str>, String);

/// What belongs to one tool call.
#[derive(Debug, Default)]
struct Kept {
    signature: Option<String>,
    /// The reasoning parts before the first call of the turn.
    reasoning: Arc<Vec<Part>>,
}

/// The cache. One for the whole gateway, bounded.
pub struct Continuity {
    kept: moka::sync::Cache<Key, Arc<Kept>>,
}

impl Default for Continuity {
    fn default() -> Self {
        Self {
            kept: moka::sync::Cache::builder()
                .max_capacity(100_000)
                .time_to_live(Duration::from_secs(6 * 3600))
                .build(),
        }
    }
}

impl Continuity {
    /// Remembers what came with the tool calls of an assistant turn.
    pub fn remember(&self, tenant_id: &Arc<str>, parts: &[Part]) {
        let reasoning: Vec<Part> = parts
            .iter()
            .filter(|p| {
                matches!(
                    p,
                    Part::Reasoning {
                        signature: Some(_),
                        ..
                    }
                )
            })
            .cloned()
            .collect();
        let reasoning = Arc::new(reasoning);
        for part in parts {
            if let Part::ToolCall { id, signature, .. } = part
                && (signature.is_some() || !reasoning.is_empty())
            {
                let kept = Kept {
                    signature: signature.clone(),
                    reasoning: reasoning.clone(),
                };
                self.kept
                    .insert((tenant_id.clone(), id.clone()), Arc::new(kept));
            }
        }
    }

    /// Puts back into `request` what its assistant turns lack.
    pub fn restore(&self, tenant_id: &Arc<str>, request: &mut ModelRequest) {
        for turn in &mut request.turns {
            if turn.role != Role::Assistant {
                continue;
            }
            let mut reasoning = None;
            for part in &mut turn.parts {
                let Part::ToolCall { id, signature, .. } = part else {
                    continue;
                };
                if let Some(kept) = self.kept.get(&(tenant_id.clone(), id.clone())) {
                    if signature.is_none() {
                        signature.clone_from(&kept.signature);
                    }
                    reasoning.get_or_insert_with(|| kept.reasoning.clone());
                }
            }
            let has_reasoning = turn
                .parts
                .iter()
                .any(|p| matches!(p, Part::Reasoning { .. }));
            if let Some(reasoning) = reasoning
                && !has_reasoning
            {
                turn.parts.splice(0..0, reasoning.iter().cloned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Signer;
    use crate::model::{Signature, Turn};

    #[test]
    fn signatures_come_back_to_their_tenant_only() {
        let continuity = Continuity::default();
        let call = |signature: Option<&str>| Part::ToolCall {
            id: "call_1".into(),
            name: "f".into(),
            arguments: "{}".into(),
            signature: signature.map(str::to_owned),
            server: None,
            approved: false,
        };
        let thought = Part::Reasoning {
            text: "hm".into(),
            signature: Some(Signature {
                signer: Signer::Anthropic,
                value: "s".into(),
            }),
            redacted: false,
        };
        let (here, there): (Arc<str>, Arc<str>) = ("proj_a".into(), "proj_b".into());
        continuity.remember(&here, &[thought.clone(), call(Some("g"))]);
        let bare = || ModelRequest {
            turns: vec![Turn {
                role: Role::Assistant,
                parts: vec![call(None)],
            }],
            ..ModelRequest::default()
        };
        let mut request = bare();
        continuity.restore(&here, &mut request);
        assert_eq!(request.turns[0].parts, vec![thought, call(Some("g"))]);
        let mut request = bare();
        continuity.restore(&there, &mut request);
        assert_eq!(request.turns[0].parts, vec![call(None)]);
    }
}
