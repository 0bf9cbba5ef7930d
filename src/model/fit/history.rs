//! One pass over the turns of a request, so that they are a conversation that the target takes:
//! calls are answered right behind their turn, each once; nothing is blank, empty or out of place;
//! roles alternate where they must. Turns that come from a store or from another maker's client
//! need not be any of this.

use std::borrow::Cow;
use std::collections::HashMap;

use super::names::CallNames;
use crate::config::{ProviderWire, Replay, Rules};
use crate::frame::Signer;
use crate::model::media;
use crate::model::provider::reasoning::Origin;
use crate::model::request::{ModelRequest, Part, Role, Signature, Turn};

/// Said for a tool that nobody heard of again.
const UNANSWERED: &str =
    "There is no result: this call was not answered before the conversation went on.";
const BEGINNING: &str = "(The beginning of this conversation is not shown.)";
const BEGIN: &str = "Begin.";
const CONTINUE: &str = "Continue.";
const UNDERSTOOD: &str = "Understood.";

/// Makes the turns of `request` acceptable.
pub fn fit_turns(request: &mut ModelRequest, wire: ProviderWire, provider: &str, rules: &Rules) {
    let mut turns = sorted(std::mem::take(&mut request.turns));
    for turn in &mut turns {
        turn.parts
            .retain(|part| goes_back(part, wire, provider, rules.replay));
        // These want what came of reasoning behind it.
        if matches!(
            wire,
            ProviderWire::Anthropic | ProviderWire::OpenaiResponses
        ) {
            let said = turn.parts.iter().rposition(|part| !says_nothing(part));
            let behind = turn.parts.split_off(said.map_or(0, |at| at + 1));
            let is_kept = |part: &Part| !matches!(part, Part::Reasoning { .. });
            turn.parts.extend(behind.into_iter().filter(is_kept));
        }
    }
    let mut turns = answered(turns);
    turns.retain_mut(|turn| !is_empty(turn));
    if !rules.repeats_roles {
        turns = merged(turns);
    }
    match turns.first().map(|turn| turn.role) {
        None => turns.push(Turn::text(Role::User, BEGIN)),
        Some(Role::Assistant) if rules.user_first => {
            turns.insert(0, Turn::text(Role::User, BEGINNING));
        }
        Some(_) => {}
    }
    if let Some(last) = turns.last_mut()
        && last.role == Role::Assistant
    {
        if !rules.prefill {
            turns.push(Turn::text(Role::User, CONTINUE));
        } else {
            // It is gone on with from there; a space at its end is refused, or doubled.
            let text = last.parts.iter_mut().rev().find_map(|part| match part {
                Part::Text { text } | Part::Refusal { text } => Some(text),
                _ => None,
            });
            if let Some(text) = text {
                text.truncate(text.trim_end().len());
            }
        }
    }
    name_calls(&mut turns, rules);
    // Generation 3 of Gemini takes images as parts of a result.
    let results_show = match wire {
        ProviderWire::OpenaiChat => false,
        ProviderWire::Gemini => request.model.contains("gemini-3"),
        ProviderWire::Anthropic | ProviderWire::OpenaiResponses => true,
    };
    if !results_show && let Cow::Owned(moved) = media::moved(&turns) {
        turns = moved;
    }
    if !rules.user_after_tool {
        turns = bridged(turns);
    }
    request.turns = turns;
}

/// Whose turn a part belongs to.
fn speaker(part: &Part, role: Role) -> Option<Role> {
    match part {
        Part::ToolCall { .. } => Some(Role::Assistant),
        Part::ToolResult { .. } => Some(Role::Tool),
        Part::Reasoning { .. } => (role == Role::Assistant).then_some(role),
        Part::Name { .. } | Part::CacheHere { .. } => Some(role),
        Part::Text { .. } | Part::Refusal { .. } if role == Role::Assistant => Some(role),
        // No wire lets the assistant show something.
        _ => Some(Role::User),
    }
}

/// Turns in which each part is at home, without blank text.
fn sorted(turns: Vec<Turn>) -> Vec<Turn> {
    let mut sorted: Vec<Turn> = Vec::with_capacity(turns.len());
    for turn in turns {
        let mut begins = true;
        for part in turn.parts {
            let Some(part) = proper(part) else {
                continue;
            };
            let Some(role) = speaker(&part, turn.role) else {
                continue;
            };
            match sorted.last_mut() {
                Some(last) if last.role == role && !begins => last.parts.push(part),
                _ => sorted.push(Turn {
                    role,
                    parts: vec![part],
                }),
            }
            begins = false;
        }
    }
    sorted.iter_mut().for_each(speak_before_calling);
    sorted
}

/// What is said behind a call in one turn, and who says it, goes before it: results come right
/// behind calls.
fn speak_before_calling(turn: &mut Turn) {
    let is_call = |part: &Part| matches!(part, Part::ToolCall { .. });
    let Some(first) = turn.parts.iter().position(is_call) else {
        return;
    };
    let is_said = |part: &Part| {
        matches!(
            part,
            Part::Text { .. } | Part::Refusal { .. } | Part::Name { .. }
        )
    };
    let behind = turn.parts.split_off(first);
    let (said, rest): (Vec<Part>, Vec<Part>) = behind.into_iter().partition(is_said);
    turn.parts.extend(said);
    turn.parts.extend(rest);
}

/// A part that says something.
fn proper(part: Part) -> Option<Part> {
    match part {
        Part::Text { text } | Part::Refusal { text } if text.trim().is_empty() => None,
        // It was for the reader.
        Part::Citation { .. } => None,
        Part::ToolResult {
            tool_call_id,
            content,
            is_error,
        } => Some(Part::ToolResult {
            tool_call_id,
            content: content
                .into_iter()
                .filter(|part| {
                    matches!(
                        part,
                        Part::Text { .. }
                            | Part::Refusal { .. }
                            | Part::Image { .. }
                            | Part::File { .. }
                            | Part::Audio { .. }
                            | Part::CacheHere { .. }
                    )
                })
                .filter_map(proper)
                .collect(),
            is_error,
        }),
        part => Some(part),
    }
}

/// Whether a part goes to the target at all: reasoning does to its maker.
fn goes_back(part: &Part, wire: ProviderWire, provider: &str, replay: Replay) -> bool {
    let Part::Reasoning {
        text, signature, ..
    } = part
    else {
        return true;
    };
    let signed = |signer| Signature::of(signature, signer).is_some();
    match wire {
        ProviderWire::Anthropic => signed(Signer::Anthropic),
        ProviderWire::OpenaiResponses => signed(Signer::OpenAi),
        // With text it is a summary, which goes nowhere.
        ProviderWire::Gemini => signed(Signer::Google) && text.is_empty(),
        ProviderWire::OpenaiChat => match (replay, Origin::of(signature)) {
            (Replay::Never, _) => false,
            (_, None) => signature.is_none() && !text.is_empty(),
            (Replay::WithTools, Some(origin)) => {
                origin.provider.is_empty() || origin.provider == provider
            }
            (Replay::Required | Replay::Always, Some(_)) => true,
        },
    }
}

/// Whether nothing of a turn is an utterance: reasoning alone is none, nor is whose turn it is.
fn is_empty(turn: &Turn) -> bool {
    turn.parts.iter().all(says_nothing)
}

fn says_nothing(part: &Part) -> bool {
    matches!(
        part,
        Part::Reasoning { .. } | Part::Name { .. } | Part::CacheHere { .. }
    )
}

struct Outcome {
    content: Vec<Part>,
    is_error: bool,
}

struct Call {
    turn: usize,
    result: Option<Outcome>,
}

/// The calls with one id, in their order.
#[derive(Default)]
struct Same {
    places: Vec<usize>,
    /// Of the latest turn that has such, the first that may be without a result.
    next: usize,
    /// Of all, the first that may be without one.
    first: usize,
}

/// The calls of a conversation, by their ids; the same id may come again, as often as it likes: no
/// call is looked at twice.
#[derive(Default)]
struct Calls {
    all: Vec<Call>,
    by_id: HashMap<String, Same>,
}

impl Calls {
    fn begin(&mut self, id: &str, turn: usize) {
        let same = self.by_id.entry(id.to_owned()).or_default();
        let last = same.places.last();
        if last.is_none_or(|last| self.all[*last].turn != turn) {
            same.next = same.places.len();
        }
        same.places.push(self.all.len());
        self.all.push(Call { turn, result: None });
    }

    /// The call that a result with this id is of: one of the latest turn that has such, the first
    /// without a result.
    fn called(&mut self, id: &str) -> Option<usize> {
        let Same { places, next, .. } = self.by_id.get_mut(id)?;
        first_open(&self.all, places, next).or_else(|| places.last().copied())
    }

    /// The first call with this id that has no result.
    fn open(&mut self, id: &str) -> Option<usize> {
        let Same { places, first, .. } = self.by_id.get_mut(id)?;
        first_open(&self.all, places, first)
    }

    fn answer(&mut self, at: usize, content: Vec<Part>, is_error: bool) {
        match &mut self.all[at].result {
            // Said twice is said once; said otherwise is said too.
            Some(result) => {
                if result.content != content {
                    result.content.extend(content);
                }
                result.is_error |= is_error;
            }
            none => *none = Some(Outcome { content, is_error }),
        }
    }
}

/// The first of `places`, from `next` on, whose call has no result: `next` goes there, for what has
/// a result keeps it.
fn first_open(all: &[Call], places: &[usize], next: &mut usize) -> Option<usize> {
    let rest = places.get(*next..)?;
    let open = rest.iter().position(|at| all[*at].result.is_none());
    *next += open.unwrap_or(rest.len());
    places.get(*next).copied()
}

/// Puts results right behind their calls, in their order; closes calls that have none, and tells of
/// results that have no call.
fn answered(turns: Vec<Turn>) -> Vec<Turn> {
    let mut calls = Calls::default();
    // Results that came before any call with their id, by their turn.
    let mut early: Vec<(usize, String, Vec<Part>, bool)> = Vec::new();
    let mut kept: Vec<Turn> = Vec::with_capacity(turns.len());
    for (at, turn) in turns.into_iter().enumerate() {
        let mut parts = Vec::with_capacity(turn.parts.len());
        for part in turn.parts {
            match part {
                Part::ToolResult {
                    tool_call_id,
                    content,
                    is_error,
                } => match calls.called(&tool_call_id) {
                    Some(call) => calls.answer(call, content, is_error),
                    None => early.push((at, tool_call_id, content, is_error)),
                },
                part => {
                    if let Part::ToolCall { id, .. } = &part {
                        calls.begin(id, at);
                    }
                    parts.push(part);
                }
            }
        }
        kept.push(Turn {
            role: turn.role,
            parts,
        });
    }
    let mut orphans: HashMap<usize, Vec<Part>> = HashMap::new();
    for (at, id, content, is_error) in early {
        match calls.open(&id) {
            Some(call) => calls.answer(call, content, is_error),
            None => orphans.entry(at).or_default().extend(told(&id, content)),
        }
    }
    let mut results = calls.all.into_iter();
    let mut out = Vec::with_capacity(kept.len() + 2);
    for (at, turn) in kept.into_iter().enumerate() {
        let ids: Vec<String> = turn.parts.iter().filter_map(call_id).collect();
        if !turn.parts.is_empty() {
            out.push(turn);
        }
        if !ids.is_empty() {
            let parts = ids
                .into_iter()
                .zip(results.by_ref())
                .map(|(id, call)| result_part(id, call.result))
                .collect();
            out.push(Turn {
                role: Role::Tool,
                parts,
            });
        }
        if let Some(parts) = orphans.remove(&at) {
            out.push(Turn {
                role: Role::User,
                parts,
            });
        }
    }
    out
}

fn call_id(part: &Part) -> Option<String> {
    match part {
        Part::ToolCall { id, .. } => Some(id.clone()),
        _ => None,
    }
}

fn result_part(tool_call_id: String, result: Option<Outcome>) -> Part {
    let result = result.unwrap_or_else(|| Outcome {
        content: vec![Part::Text {
            text: UNANSWERED.to_owned(),
        }],
        is_error: true,
    });
    Part::ToolResult {
        tool_call_id,
        content: result.content,
        is_error: result.is_error,
    }
}

/// A result whose call is not there, in the user's words.
fn told(id: &str, content: Vec<Part>) -> Vec<Part> {
    let note = Part::Text {
        text: format!("(A tool's result, of a call that is not shown here: {id})"),
    };
    std::iter::once(note).chain(content).collect()
}

/// Joins what one speaker says in several turns.
fn merged(turns: Vec<Turn>) -> Vec<Turn> {
    let mut merged: Vec<Turn> = Vec::with_capacity(turns.len());
    for turn in turns {
        match merged.last_mut() {
            Some(last) if last.role == turn.role => last.parts.extend(turn.parts),
            _ => merged.push(turn),
        }
    }
    merged
}

/// Lets the assistant say a word between a tool's result and the user.
fn bridged(turns: Vec<Turn>) -> Vec<Turn> {
    let mut bridged: Vec<Turn> = Vec::with_capacity(turns.len());
    for turn in turns {
        let after_tool = bridged.last().is_some_and(|last| last.role == Role::Tool);
        if after_tool && turn.role == Role::User {
            bridged.push(Turn::text(Role::Assistant, UNDERSTOOD));
        }
        bridged.push(turn);
    }
    bridged
}

/// Gives calls and their results ids that are taken, and calls the names that were declared.
fn name_calls(turns: &mut [Turn], rules: &Rules) {
    let mut names = CallNames::new(rules.call_ids);
    let mut open: Vec<String> = Vec::new();
    for turn in turns {
        // Results follow their calls, in the same order.
        let mut called = std::mem::take(&mut open).into_iter();
        for part in &mut turn.parts {
            match part {
                Part::ToolCall { id, name, .. } => {
                    *id = names.next(id);
                    *name = super::names::tool_name(name, rules.tool_name_chars as usize);
                    open.push(id.clone());
                }
                Part::ToolResult { tool_call_id, .. } => {
                    if let Some(id) = called.next() {
                        *tool_call_id = id;
                    }
                }
                _ => {}
            }
        }
    }
}
