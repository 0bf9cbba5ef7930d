//! A smith's turn on this wire: its thread and history, decisions on what waits, what is begun.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::fields::FIELDS;
use super::record::Stored;
use super::referred::{REFERRED_BYTES, Said};
use super::{WEB_SEARCH, WIRE};
use crate::auth::Principal;
use crate::edge::{Exchange, Gone, parse};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::ids;
use crate::model::{Lost, Turn};
use crate::run::{Link, ResponseRecord, RunRequest, Thread, Word};
use crate::tools::Mounted;
use crate::wire::decision;
use crate::wire::fields::Given;
use crate::wire::files;
use crate::wire::keyed::{Again, Key};
use crate::wire::responses::decode::unknown_item;
use crate::wire::responses::items::{Numbering, place_of};
use crate::wire::responses::tools::{is_web_search, warnings};
use crate::wire::responses::turns::push_turn;
use crate::wire::responses::{
    DecodedResponse, Head, Input, ResponsesRequest, Status, StreamEncoder, body_of, decode,
};
use crate::wire::turn::{RunTurn, check_thread_id};

/// What a request for a smith comes to.
pub(super) enum Turned {
    Run(Box<SmithTurn>),
    Background(Value),
    ClientLeft,
}

pub(super) struct SmithTurn {
    turn: RunTurn,
    head: Head,
    numbering: Numbering,
    encrypted: bool,
    stream: bool,
    own_tools: bool,
    /// `mcp_list_tools` items that the answer begins with.
    listed: Vec<Value>,
}

/// Whom a turn is for.
struct Owner<'a> {
    gateway: &'a Gateway,
    tenant_id: &'a Arc<str>,
    smith_id: &'a Arc<str>,
}

impl Owner<'_> {
    /// Where the turn's history is.
    async fn thread(
        &self,
        decoded: &DecodedResponse,
        header: Option<String>,
    ) -> Result<Thread, ApiError> {
        if let Some(id) = &decoded.conversation {
            if ids::body(ids::Kind::Conversation, id).is_none() {
                return Err(ApiError::new(
                    StatusCode::NOT_FOUND,
                    "conversation_not_found",
                    format!("there is no conversation '{id}' of this smith"),
                ));
            }
            if header.is_some_and(|thread| thread != *id) {
                let message = "IC-Thread-Id names another thread";
                return Err(ApiError::invalid("conversation", message));
            }
            return Ok(Thread::Kept(id.clone()));
        }
        if let Some(id) = &decoded.previous_response_id {
            let unknown = || ApiError::not_found("response", id).param("previous_response_id");
            let run_id = body_of(id).map(|body| format!("run_{body}"));
            let stored = match run_id {
                Some(run_id) => Stored::load(self.gateway, self.tenant_id, &run_id).await?,
                None => None,
            };
            let previous = stored.filter(|stored| stored.run.smith_id == **self.smith_id);
            let run = previous.ok_or_else(unknown)?.run;
            if run.is_under_way() {
                let message = format!("the response '{id}' is still under way");
                return Err(ApiError::conflict("conversation_locked", message));
            }
            return Ok(match run.exclusive {
                true => Thread::Kept(run.thread_id),
                false => Thread::Chain(Some(Link {
                    run_id: run.id,
                    thread_id: run.thread_id,
                })),
            });
        }
        match header {
            Some(thread) => {
                check_thread_id(&thread)?;
                Ok(Thread::Kept(thread))
            }
            None => Ok(Thread::Chain(None)),
        }
    }

    /// The input with what it refers to. What is in the turn's history anyway is left out.
    async fn turns(&self, input: Vec<Input>, thread: &Thread) -> Result<Vec<Turn>, ApiError> {
        let history = match thread {
            Thread::Kept(id) => Some(id.as_str()),
            Thread::Chain(Some(link)) => Some(link.thread_id.as_str()),
            Thread::Chain(None) | Thread::Stateless(_) => None,
        };
        let mut known: HashMap<String, Said> = HashMap::new();
        let mut turns = Vec::with_capacity(input.len());
        let mut left = REFERRED_BYTES;
        for input in input {
            let id = match input {
                Input::Turn(turn) => {
                    push_turn(&mut turns, turn);
                    continue;
                }
                // Of an earlier turn: what came of it is referred to.
                Input::Decision(..) => continue,
                Input::Reference(id) => id,
            };
            let body = place_of(&id).map(|(body, _)| body.to_owned());
            let body = body.ok_or_else(|| unknown_item(&id))?;
            if !known.contains_key(&body) {
                let said = self.said(&body, history, &mut left).await?;
                known.insert(body.clone(), said.ok_or_else(|| unknown_item(&id))?);
            }
            let Some(said) = known.get_mut(&body) else {
                continue;
            };
            if history == Some(said.thread_id.as_str()) {
                continue;
            }
            // What is referred to twice is said once: else a few bytes would stand for a whole answer,
            // as often as they are repeated.
            for turn in said.turns_of(&id).ok_or_else(|| unknown_item(&id))? {
                push_turn(&mut turns, turn);
            }
        }
        Ok(turns)
    }

    /// What items of this run or conversation are made of, which is not looked at for what is in the
    /// turn's history; `left`: how much more may be referred to.
    async fn said(
        &self,
        body: &str,
        history: Option<&str>,
        left: &mut usize,
    ) -> Result<Option<Said>, ApiError> {
        let is_history = |thread: &str| history == Some(thread);
        let store = &self.gateway.store;
        let run = store.run(self.tenant_id, &format!("run_{body}")).await?;
        if let Some(run) = run.filter(|run| run.smith_id == **self.smith_id) {
            let transcript = run.transcript.as_deref().unwrap_or("[]");
            let shown = if is_history(&run.thread_id) {
                "[]"
            } else {
                transcript
            };
            return Said::read(body, run.thread_id, shown, left).map(Some);
        }
        let id = format!("{}{body}", ids::Kind::Conversation.prefix());
        let found = store.conversation(self.tenant_id, &id).await?;
        match found.filter(|c| c.smith_id == **self.smith_id) {
            Some(found) => {
                let shown = if is_history(&found.id) {
                    "[]"
                } else {
                    &found.turns
                };
                Said::read(body, found.id, shown, left).map(Some)
            }
            None => Ok(None),
        }
    }
}

/// The input as the run's record shows it.
fn input_record(body: &[u8]) -> Value {
    let input = serde_json::from_slice::<Value>(body).map(|mut body| body["input"].take());
    match input.unwrap_or_default() {
        Value::String(text) => json!([{ "role": "user", "content": text }]),
        items @ Value::Array(_) => items,
        _ => json!([]),
    }
}

/// The decisions that the input ends with, and the run that they are about.
fn decisions(input: &[Input]) -> Result<Option<(String, Vec<Word>)>, ApiError> {
    let mut of: Option<&String> = None;
    let mut words = Vec::new();
    for input in input.iter().rev() {
        let Input::Decision(run, word) = input else {
            break;
        };
        if of.is_some_and(|other| other != run) {
            let message = "the decisions are about several responses";
            return Err(ApiError::invalid("input", message));
        }
        of = Some(run);
        words.push(word.clone());
    }
    words.reverse();
    Ok(of.map(|run| (run.clone(), words)))
}

/// A response that waited and goes on: the same response, of which the new items are sent.
async fn going_on(
    exchange: &mut Exchange,
    principal: &Arc<Principal>,
    smith_id: &Arc<str>,
    run_id: &str,
    words: Vec<Word>,
    body: &Bytes,
    stream: bool,
) -> Result<Turned, ApiError> {
    let gateway = exchange.gateway.clone();
    let stored = Stored::of_run(&gateway, &principal.tenant_id, run_id).await?;
    let stored = stored.filter(|stored| stored.run.smith_id == **smith_id);
    let stored = stored.ok_or_else(|| ApiError::not_found("pending approval", run_id))?;
    let asked = decision::Asked {
        run_id,
        words,
        places: stored.next_places(),
        body,
    };
    let decided = decision::decide(exchange, principal, smith_id, asked).await?;
    Ok(Turned::Run(Box::new(SmithTurn {
        turn: decided.turn,
        head: stored.head(),
        numbering: stored.numbering_at(decided.begun.places),
        encrypted: stored.record.encrypted,
        stream,
        own_tools: true,
        listed: Vec::new(),
    })))
}

/// What a call mounts for its turn alone, once it is known that the smith may have it.
async fn mounted(
    gateway: &Gateway,
    principal: &Principal,
    smith_id: &Arc<str>,
    decoded: &mut DecodedResponse,
) -> Result<Option<Box<Mounted>>, ApiError> {
    let mounts = std::mem::take(&mut decoded.mounts);
    if mounts.is_empty() {
        return Ok(None);
    }
    if !decoded.tools.is_empty() || decoded.response_format.is_some() {
        return Err(ApiError::bad_request(
            "unsupported_tools",
            "tools of type 'mcp' and 'file_search' are run here, and cannot be in one call with \
             functions that the client runs, nor with a structured answer",
        )
        .param("tools"));
    }
    let effective = gateway
        .smiths
        .effective(&principal.tenant_id, smith_id)
        .await?;
    gateway
        .tools
        .check_stores(&effective.caller(), &mounts)
        .await?;
    let mounted = gateway.tools.mount(&principal.tenant_id, mounts).await?;
    Ok(Some(Box::new(mounted)))
}

pub(super) async fn smith_turn(
    exchange: &mut Exchange,
    principal: &Arc<Principal>,
    smith_id: Arc<str>,
    header: Option<String>,
    body: &Bytes,
) -> Result<Turned, ApiError> {
    let decoded = decode(parse::<ResponsesRequest>(body)?)?;
    Given::of(exchange, body, FIELDS)?.tell(exchange, Lost::default());
    if let Some((run_id, words)) = decisions(&decoded.input)? {
        return going_on(
            exchange,
            principal,
            &smith_id,
            &run_id,
            words,
            body,
            decoded.stream,
        )
        .await;
    }
    let run_id = ids::mint(ids::Kind::Run);
    let in_background = decoded.background && !decoded.stream;
    let mine = match Key::claim(exchange, principal, body, &run_id, in_background).await? {
        Key::New(mine) => mine,
        Key::Again(again) => {
            let gateway = exchange.gateway.clone();
            return said_again(&gateway, *again, decoded, in_background).await;
        }
    };
    let begun = new_turn(exchange, principal, smith_id, run_id, header, decoded, body);
    Key::settle(mine, Box::pin(begun).await).await
}

/// The answer of the first call with the same key.
async fn said_again(
    gateway: &Gateway,
    again: Again,
    decoded: DecodedResponse,
    in_background: bool,
) -> Result<Turned, ApiError> {
    let run = &again.run;
    let stored = Stored::of_run(gateway, &run.tenant_id.as_str().into(), &run.id).await?;
    let stored = stored.ok_or_else(|| ApiError::not_found("response", &run.id))?;
    if in_background {
        return Ok(Turned::Background(stored.response()));
    }
    Ok(Turned::Run(Box::new(SmithTurn {
        turn: again.turn(),
        head: stored.head(),
        numbering: stored.answer_numbering(),
        encrypted: stored.record.encrypted,
        stream: decoded.stream,
        own_tools: decoded.tools.is_empty(),
        listed: stored.record.listed,
    })))
}

async fn new_turn(
    exchange: &mut Exchange,
    principal: &Arc<Principal>,
    smith_id: Arc<str>,
    run_id: String,
    header: Option<String>,
    mut decoded: DecodedResponse,
    body: &Bytes,
) -> Result<Turned, ApiError> {
    let gateway = exchange.gateway.clone();
    let owner = Owner {
        gateway: &gateway,
        tenant_id: &principal.tenant_id,
        smith_id: &smith_id,
    };
    let thread = owner.thread(&decoded, header).await?;
    let kept = match &thread {
        Thread::Kept(id) => Some(id.clone()),
        Thread::Chain(_) | Thread::Stateless(_) => None,
    };
    if kept.is_some() && decoded.response_format.is_some() {
        return Err(ApiError::bad_request(
            "invalid_response_format",
            "a structured answer is stateless: leave the thread or conversation out",
        )
        .param("text.format"));
    }
    let given = decoded.input.iter().filter_map(|input| match input {
        Input::Turn(turn) => Some(turn),
        _ => None,
    });
    files::check(&gateway, principal, given, body).await?;
    let turns = owner
        .turns(std::mem::take(&mut decoded.input), &thread)
        .await?;
    if turns.is_empty() && thread == Thread::Chain(None) {
        return Err(ApiError::invalid("input", "must hold something to answer"));
    }
    let mut echo = std::mem::take(&mut decoded.echo);
    if let Some(id) = kept.filter(|id| ids::body(ids::Kind::Conversation, id).is_some()) {
        echo.insert("conversation".into(), json!({ "id": id }));
    }
    let run_body = ids::body(ids::Kind::Run, &run_id).unwrap_or(&run_id);
    let mut numbering = Numbering::new(run_body);
    numbering.items(&turns);
    let head_id = format!("resp_{run_body}");
    let mounted = mounted(&gateway, principal, &smith_id, &mut decoded).await?;
    let listed = mounted.as_ref().map(|mounted| mounted.listed.clone());
    let listed = listed.unwrap_or_default();
    let mut record = ResponseRecord {
        store: decoded.store,
        encrypted: decoded.encrypted,
        results: decoded.results,
        listed: listed.clone(),
        input_turns: turns.len(),
        places: numbering.places(),
        echo,
    };
    let own_tools = decoded.tools.is_empty();
    if own_tools && decoded.left_out.iter().any(|kind| is_web_search(kind)) {
        let effective = gateway.smiths.effective(&principal.tenant_id, &smith_id);
        let enabled = &effective.await?.config.enabled_hosted_tools;
        if enabled.iter().any(|name| name == WEB_SEARCH) {
            decoded.left_out.retain(|kind| !is_web_search(kind));
        }
    }
    let warnings = warnings(&decoded.left_out);
    if !warnings.is_empty() {
        record
            .echo
            .insert("warnings".into(), Value::Array(warnings));
    }
    let detached = decoded.background || matches!(thread, Thread::Kept(_));
    let permit = gateway.admission.begin_run(principal, Some(&smith_id))?;
    let started = gateway
        .runs
        .start(RunRequest {
            run_id,
            thread,
            input: turns,
            input_record: input_record(body).to_string(),
            extra_instructions: decoded.system,
            model: decoded.model,
            client_tools: decoded.tools,
            tool_choice: decoded.tool_choice,
            parallel_tool_calls: decoded.parallel_tool_calls,
            response_format: decoded.response_format,
            params: decoded.params,
            metadata: decoded.metadata,
            mounted,
            response: Some(record),
            detached,
            ..RunRequest::of(principal, smith_id, WIRE, permit)
        })
        .await?;
    let head = Head {
        id: head_id,
        created_at: started.created_at / 1_000_000,
        echo: started.response.unwrap_or_default().echo,
    };
    if decoded.background && !decoded.stream {
        return Ok(Turned::Background(
            head.response(&Status::Queued, Vec::new()),
        ));
    }
    let begun = RunTurn::new(started.reader).begun(exchange, decoded.stream, &[]);
    let Some(turn) = begun.await? else {
        return Ok(Turned::ClientLeft);
    };
    Ok(Turned::Run(Box::new(SmithTurn {
        turn,
        head,
        numbering: numbering.with_results(decoded.results),
        encrypted: decoded.encrypted,
        stream: decoded.stream,
        own_tools,
        listed,
    })))
}

impl SmithTurn {
    pub(super) async fn answer(self, exchange: &mut Exchange) -> Result<(), Gone> {
        let run_id = self.turn.run().run_id.clone();
        let mut encoder = StreamEncoder::new(self.head, self.numbering, self.encrypted, None)
            .with_listed(self.listed);
        if self.own_tools {
            encoder = encoder.with_own_tools(&run_id);
        }
        if self.stream {
            exchange.start_stream(&[]).await?;
            return self.turn.stream(exchange, &mut encoder, WIRE).await;
        }
        match self.turn.through(exchange, &mut encoder).await? {
            Ok((stop, usage)) => {
                let body = encoder.response(&Status::Ended(stop, usage)).to_string();
                exchange.respond_json(StatusCode::OK, body.into()).await
            }
            Err(error) => exchange.respond_error(&error).await,
        }
    }
}
