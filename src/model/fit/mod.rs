//! A request made to fit the target that it goes to.
//!
//! Lives here: [`fit`], called where a request is encoded for a route; the pass over its turns
//! ([`history`]), images, files and sounds ([`media`]), pictures that models made ([`pictures`]), ids
//! and names that the target takes ([`names`]), its tools and schemas ([`tools`]), what models say in
//! tags of their own ([`spoken`]), and [`Undo`], which turns the answer back into what the caller asked
//! for.

mod fence;
mod history;
mod media;
mod names;
mod pictures;
mod spoken;
mod textual;
mod tools;
mod undo;

use std::sync::Arc;

pub use media::{Refused, that_take};
pub use pictures::pictures_apart;
pub use spoken::Spoken;
pub use undo::Undo;

use super::error::ModelError;
use super::request::{Effort, ModelRequest};
use super::routing::Route;
use crate::config::{Allowed, CallIds, ProviderWire, Rules};

/// Makes `request` one that `route` takes; gives the way back.
pub fn fit(request: &mut ModelRequest, route: &Route) -> Result<Undo, ModelError> {
    request.model.clone_from(&route.model);
    let mut undo = Undo::new(route.provider.clone(), route.wire);
    fit_to(request, route.wire, &route.rules, &mut undo)?;
    Ok(undo)
}

fn fit_to(
    request: &mut ModelRequest,
    wire: ProviderWire,
    rules: &Rules,
    undo: &mut Undo,
) -> Result<(), ModelError> {
    fit_params(request, rules);
    tools::fit_format(request, rules, undo)?;
    tools::fit_tools(request, rules, undo);
    if rules.tags && wire == ProviderWire::OpenaiChat {
        undo.spoken = Some(Box::new(Spoken::new(&request.tools)));
    }
    pictures::show_again(&mut request.turns);
    media::fit_media(&mut request.turns, wire, rules);
    history::fit_turns(request, wire, undo.provider(), rules);
    tools::declare_past(request, rules);
    Ok(())
}

fn fit_params(request: &mut ModelRequest, rules: &Rules) {
    if !rules.tools_with_reasoning && !request.tools.is_empty() {
        request.params.effort = Some(Effort::None);
    }
    (request.params.temperature, request.params.top_p) = rules.samplers(request);
    let params = &mut request.params;
    // What takes no other sampling takes none of it.
    if !rules.may_send(rules.sampling, params.effort) {
        params.top_k = None;
    }
    params.max_tokens = rules.max_tokens(params.max_tokens);
    let may_send = |allowed: Allowed| rules.may_send(allowed, params.effort);
    if !may_send(rules.stop) {
        params.stop = Vec::new();
    }
    if !may_send(rules.penalties) {
        params.presence_penalty = None;
        params.frequency_penalty = None;
        params.logit_bias = None;
    }
    if !rules.parallel_tool_calls {
        request.parallel_tool_calls = None;
    }
}

impl Route {
    /// The route as a request takes it: models that do not reason with tools on Chat Completions do
    /// on Responses, where the provider speaks that too.
    pub fn of_request(&self, request: &ModelRequest) -> Option<Self> {
        let reasons = self.rules.reasons(request.params.effort);
        if self.wire != ProviderWire::OpenaiChat
            || !self.responses
            || self.rules.tools_with_reasoning
            || request.tools.is_empty()
            || !reasons
        {
            return None;
        }
        let mut other = self.clone();
        other.wire = ProviderWire::OpenaiResponses;
        let rules = Arc::make_mut(&mut other.rules);
        rules.tools_with_reasoning = true;
        rules.call_ids = CallIds::Word;
        Some(other)
    }
}

#[cfg(test)]
mod tests;
