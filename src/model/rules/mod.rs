//! What a model takes: one table of rules by wire, host and model, which the operator adds to.
//!
//! Lives here: the [`table`], and which of its entries are meant. The words that it is written in
//! are `config`'s, since the operator writes in them too. Provider wires ask these rules and hold no
//! names of models themselves. May import `config` and the neutral request.

mod table;

pub use crate::config::{
    Allowed, CallIds, Dialect, Efforts, LimitName, MediaKinds, ModelRule, Patch, Replay, Rules,
    Structured, SystemRole, Thinking,
};

use super::request::{Effort, ModelRequest, ToolChoice};
use crate::config::ProviderWire;

/// An entry of the table.
struct Entry {
    /// Of these wires; empty: of all.
    wires: &'static [ProviderWire],
    /// Of these hosts: `example.com` is also each name below it, `*` stands for any text. Empty:
    /// wherever it is.
    hosts: &'static [&'static str],
    /// Of these models: `*` stands for any text. Empty: all.
    models: &'static [&'static str],
    says: Patch,
}

/// What is known of `model` at `host` (with its port where the URL has one): each matching entry
/// of the table, then the operator's; later ones win.
pub fn resolve(wire: ProviderWire, host: &str, model: &str, own: &[ModelRule]) -> Rules {
    let (host, name) = (host.to_ascii_lowercase(), plain_name(model));
    let mut rules = Rules::default();
    for entry in table::entries() {
        let is_meant = (entry.wires.is_empty() || entry.wires.contains(&wire))
            && (entry.hosts.is_empty() || entry.hosts.iter().any(|h| is_host(h, &host)))
            && (entry.models.is_empty() || entry.models.iter().any(|m| matches(m, &name)));
        if is_meant {
            rules.apply(&entry.says);
        }
    }
    let whole = model.to_ascii_lowercase();
    for rule in own {
        let is_meant = rule.models.is_empty()
            || rule.models.iter().any(|pattern| {
                let pattern = pattern.to_ascii_lowercase();
                matches(&pattern, &whole) || matches(&pattern, &name)
            });
        if is_meant {
            rules.apply(&rule.set);
        }
    }
    rules
}

/// A model's name without its maker, in one spelling: `anthropic/Claude-Opus-4.7` and
/// `us.anthropic.claude-opus-4-7` are `claude-opus-4-7`.
fn plain_name(model: &str) -> String {
    let model = model.rsplit('/').next().unwrap_or(model);
    let name = model.to_ascii_lowercase().replace(['.', '@', ':'], "-");
    match name.find("anthropic-claude-") {
        Some(at) => name[at + "anthropic-".len()..].to_owned(),
        None => name,
    }
}

fn is_host(pattern: &str, host: &str) -> bool {
    let bare = match pattern.contains(':') {
        true => host,
        false => host.split(':').next().unwrap_or(host),
    };
    matches(pattern, bare)
        || bare
            .strip_suffix(pattern)
            .is_some_and(|above| above.ends_with('.'))
}

/// Whether `text` is `pattern`, whose stars stand for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl Rules {
    /// The effort that is sent for the one that is asked for; `None` where the model takes none.
    pub fn effort(&self, asked: Option<Effort>) -> Option<Effort> {
        self.efforts.nearest(asked?)
    }

    /// Whether a call is answered with reasoning.
    pub fn reasons(&self, asked: Option<Effort>) -> bool {
        match self.effort(asked) {
            Some(effort) => effort != Effort::None,
            None => self.reasons_by_default,
        }
    }

    /// Whether a parameter that is `allowed` so may be sent.
    pub fn may_send(&self, allowed: Allowed, asked: Option<Effort>) -> bool {
        match allowed {
            Allowed::Always => true,
            Allowed::WithoutReasoning => !self.reasons(asked),
            Allowed::Never => false,
        }
    }

    /// `temperature` and `top_p` as they may be sent.
    pub fn samplers(&self, request: &ModelRequest) -> (Option<f64>, Option<f64>) {
        let params = &request.params;
        if !self.may_send(self.sampling, params.effort) {
            return (None, None);
        }
        let temperature = params
            .temperature
            .map(|t| t.clamp(0.0, self.max_temperature));
        let top_p = params
            .top_p
            .filter(|_| !self.one_sampler || temperature.is_none());
        (temperature, top_p)
    }

    /// The limit of the answer's tokens as it may be sent.
    pub fn max_tokens(&self, asked: Option<u32>) -> Option<u32> {
        asked.map(|asked| asked.min(self.max_output_tokens))
    }
}

/// Whether a call of a tool is forced.
pub fn is_forced(choice: Option<&ToolChoice>) -> bool {
    matches!(choice, Some(ToolChoice::Required | ToolChoice::Named(_)))
}

#[cfg(test)]
mod tests;
