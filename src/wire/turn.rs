//! What the client wires share: following a run or a model call, in the wire's own events or as
//! one answer, for as long as the client is there.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::auth::Principal;
use crate::block;
use crate::edge::stream::{self, Pieces};
use crate::edge::{Exchange, Extra, Gone};
use crate::error::ApiError;
use crate::frame::{self, Frame, StopReason};
use crate::gateway::Gateway;
use crate::ids;
use crate::model::{Completed, Lost, ModelCall, ModelRequest, ResponseFormat, Route};
use crate::run::{Collected, Collector, LiveRun, Reader, Runs, Spender};
use crate::sse::KEEP_ALIVE;
use crate::store::RunRow;
use crate::wire::headers;
use crate::wire::{AnswerEncoder, FrameEncoder, OneAnswer};

/// What a wire adds to a frame, about; what is not enough costs a longer buffer.
const ENVELOPE_BYTES: usize = 160;
/// The least that is made room for, so that deltas of all lengths fit.
const LEAST_ROOM: usize = 1024;

/// Room for what `frames` become in a client's wire.
fn room_for(frames: &[Frame]) -> BytesMut {
    let room = frames.iter().map(|frame| frame.weight() + ENVELOPE_BYTES);
    block::WRITTEN.with(|block| block.begin(room.sum::<usize>().max(LEAST_ROOM)))
}

fn written(out: BytesMut) -> Bytes {
    block::WRITTEN.with(|block| block.cut_off(out))
}

/// How often a run that lives on another node is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs `work` while the client waits; `None` when it left first. Pinned by the caller, as a future
/// that is handed over is held twice.
pub async fn while_client_waits<T>(
    exchange: &mut Exchange,
    work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let gateway = exchange.gateway.clone();
    tokio::select! {
        biased;
        done = work => Some(done),
        () = exchange.client_gone() => {
            gateway.metrics.cancelled_calls.inc();
            None
        }
    }
}

/// The same for a call whose answer is a stream: a client that waits long gets its head, and
/// comments.
pub async fn while_stream_waits<T>(
    exchange: &mut Exchange,
    work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let done = stream::before(exchange, &[], work).await;
    if done.is_none() {
        exchange.gateway.metrics.cancelled_calls.inc();
    }
    done
}

/// Refuses an `IC-Thread-Id` that cannot be kept.
pub fn check_thread_id(id: &str) -> Result<(), ApiError> {
    match ids::is_sane_thread_id(id) {
        true => Ok(()),
        false => Err(ApiError::bad_request(
            "invalid_request",
            "IC-Thread-Id must be 1 to 256 printable characters",
        )),
    }
}

/// Counts what a client was sent.
pub fn count_frames(exchange: &Exchange, wire: &str, count: u64) {
    let counter = &exchange.gateway.metrics.frames;
    counter.with_label_values(&[wire]).inc_by(count);
}

thread_local! {
    /// Frames on their way from a run to its client, so that a stream that waits has no room for them.
    static TAKEN: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

/// Most frames that a thread's room is kept for.
const MOST_TAKEN: usize = 256;

/// A smith's turn and the client that it answers.
pub struct RunTurn {
    reader: Reader,
}

impl RunTurn {
    /// Follows a run from where `reader` is.
    pub fn new(reader: Reader) -> Self {
        Self { reader }
    }

    /// Waits for the frames that tell how it goes: a refusal before the first token is an HTTP
    /// error, which clients retry by its status. One that comes late in a stream, whose head has
    /// `extra`, is told by the run's own frames. `None` when the client left.
    pub async fn begun(
        self,
        exchange: &mut Exchange,
        stream: bool,
        extra: &[Extra],
    ) -> Result<Option<Self>, ApiError> {
        // A client that leaves cancels the run, which counts that.
        let is_here = match stream {
            true => stream::before(exchange, extra, pin!(self.reader.ready(2))).await,
            false => tokio::select! {
                biased;
                () = self.reader.ready(2) => Some(()),
                () = exchange.client_gone() => None,
            },
        };
        if is_here.is_none() {
            return Ok(None);
        }
        if exchange.is_streaming() {
            return Ok(Some(self));
        }
        let has_failed = self.reader.peek(|frames| {
            matches!(
                frames.get(1).or(frames.first()),
                Some(Frame::RunFailed { .. } | Frame::RunCancelled { .. }) | None
            )
        });
        match has_failed {
            true => Err(self.failure()),
            false => Ok(Some(self)),
        }
    }

    /// The run.
    pub fn run(&self) -> &Arc<LiveRun> {
        self.reader.run()
    }

    fn failure(&self) -> ApiError {
        let failure = self.run().failure.get().cloned();
        failure.unwrap_or_else(|| ApiError::run_cancelled(b""))
    }

    /// Writes the run's frames as they come. The stream has begun.
    pub async fn stream(
        self,
        exchange: &mut Exchange,
        encoder: &mut impl FrameEncoder,
        wire: &str,
    ) -> Result<(), Gone> {
        let mut pieces = RunPieces {
            reader: self.reader,
            encoder,
        };
        let written = stream::write(exchange, &mut pieces).await;
        count_frames(exchange, wire, pieces.encoder.written());
        written
    }

    /// Hands all frames to `take`, while the client is there.
    async fn each(
        &mut self,
        exchange: &mut Exchange,
        mut take: impl FnMut(Frame),
    ) -> Result<(), Gone> {
        let mut frames = Vec::new();
        loop {
            tokio::select! {
                biased;
                more = self.reader.next(&mut frames) => if !more { return Ok(()) },
                () = exchange.client_gone() => return Err(Gone),
            }
            frames.drain(..).for_each(&mut take);
        }
    }

    /// Lets `encoder` have all frames without writing them, and tells how the run came to rest.
    pub async fn through(
        mut self,
        exchange: &mut Exchange,
        encoder: &mut impl FrameEncoder,
    ) -> Result<Result<(StopReason, frame::Usage), ApiError>, Gone> {
        let mut scratch = BytesMut::new();
        let mut end = None;
        self.each(exchange, |frame| {
            encoder.frame(&frame, &mut scratch);
            scratch.clear();
            match frame {
                Frame::RunCompleted { stop, usage, .. } => end = Some((stop, usage)),
                Frame::RunPaused { usage, .. } => end = Some((StopReason::EndTurn, usage)),
                _ => {}
            }
        })
        .await?;
        Ok(end.ok_or_else(|| self.failure()))
    }

    /// The whole answer, or why there is none; `one_answer` makes it one model's.
    pub async fn whole(
        mut self,
        exchange: &mut Exchange,
        one_answer: &mut OneAnswer,
    ) -> Result<Result<Collected, ApiError>, Gone> {
        let mut collector = Collector::default();
        let mut end = None;
        self.each(exchange, |frame| {
            one_answer.say(&frame, |frame| {
                collector.add(frame);
                if let Frame::RunCompleted { stop, usage, .. } = frame {
                    end = Some((*stop, *usage));
                }
            });
        })
        .await?;
        let Some((stop, usage)) = end else {
            return Ok(Err(self.failure()));
        };
        let mut answer = collector.finish();
        answer.stop = stop;
        answer.usage = usage;
        Ok(Ok(answer))
    }
}

/// A run's frames on their way to a client.
struct RunPieces<'a, E> {
    reader: Reader,
    encoder: &'a mut E,
}

impl<E: FrameEncoder> Pieces for RunPieces<'_, E> {
    async fn next(&mut self) -> Option<Bytes> {
        self.reader.ready(1).await;
        TAKEN.with_borrow_mut(|frames| {
            if !self.reader.take(frames) {
                return None;
            }
            let mut out = room_for(frames);
            for frame in frames.drain(..) {
                self.encoder.frame(&frame, &mut out);
            }
            frames.shrink_to(MOST_TAKEN);
            Some(written(out))
        })
    }
}

/// The frames of a run that somebody follows.
pub enum Followed {
    /// It is under way on this node.
    Live(Reader),
    /// It has ended, or lives on another node; with `true`, its end is waited for.
    Stored(Box<RunRow>, bool),
}

impl Followed {
    /// Of the run with this id, which may be none of the caller's.
    pub fn live(gateway: &Gateway, tenant_id: &str, run_id: &str) -> Option<Self> {
        let live = gateway.runs.live(tenant_id, run_id)?;
        Some(Self::Live(live.reader()))
    }

    /// A run where it is under way, else as it was read.
    pub fn of(
        gateway: &Gateway,
        tenant_id: &str,
        run_id: &str,
        read: Option<RunRow>,
    ) -> Result<Self, ApiError> {
        match (Self::live(gateway, tenant_id, run_id), read) {
            (Some(live), _) => Ok(live),
            (None, Some(run)) => Ok(Self::Stored(Box::new(run), true)),
            (None, None) => Err(ApiError::not_found("run", run_id)),
        }
    }

    /// Writes the frames, from the first on. The stream has begun.
    pub async fn stream(
        self,
        exchange: &mut Exchange,
        encoder: &mut impl FrameEncoder,
        wire: &str,
    ) -> Result<(), Gone> {
        match self {
            Self::Live(reader) => RunTurn::new(reader).stream(exchange, encoder, wire).await,
            Self::Stored(run, follow) => stored(exchange, &run, follow, encoder, wire).await,
        }
    }
}

async fn stored(
    exchange: &mut Exchange,
    run: &RunRow,
    follow: bool,
    encoder: &mut impl FrameEncoder,
    wire: &str,
) -> Result<(), Gone> {
    let gateway = exchange.gateway.clone();
    let (tenant, id) = (&run.tenant_id, &run.id);
    let bus = &gateway.bus;
    let mut under_way = run.is_under_way();
    // Before the first look, so that nothing falls between.
    let mut told = match follow && under_way {
        true => bus.follow(id),
        false => None,
    };
    let look_every = match told {
        Some(_) => LOOK_EVERY * 8,
        None => LOOK_EVERY,
    };
    let mut seen = 0;
    let mut heard = Instant::now();
    loop {
        let mut frames = match gateway.runs.logged_frames(tenant, id).await {
            Ok(frames) => frames,
            // The stream ends without a terminal frame: "unknown", which is the truth.
            Err(error) => {
                tracing::error!(%error, run_id = %run.id, "cannot read a frame log");
                return Err(Gone);
            }
        };
        if told.is_some() {
            frames.extend(bus.tail(id, frames.len()).await);
        }
        let new = frames.split_off(seen.min(frames.len()));
        seen += new.len();
        let ended = new.last().is_some_and(Frame::is_rest);
        write_frames(exchange, &new, encoder, wire).await?;
        if ended || !under_way || !follow {
            return Ok(());
        }
        let looked = Instant::now();
        if !new.is_empty() {
            heard = looked;
        }
        // What another node tells is written at once; the store is looked at when that has a gap,
        // and now and then.
        loop {
            let next = async {
                match &mut told {
                    Some(follower) => follower.next().await,
                    None => std::future::pending().await,
                }
            };
            let piece = tokio::select! {
                piece = next => piece,
                () = tokio::time::sleep_until((looked + look_every).into()) => None,
                () = exchange.client_gone() => return Err(Gone),
            };
            let Some(frames) = piece.and_then(|piece| piece.after(seen)) else {
                break;
            };
            seen += frames.len();
            heard = Instant::now();
            let ended = frames.last().is_some_and(Frame::is_rest);
            write_frames(exchange, &frames, encoder, wire).await?;
            if ended {
                return Ok(());
            }
        }
        if heard.elapsed() >= exchange.keep_alive() {
            exchange.write(Bytes::from_static(KEEP_ALIVE)).await?;
            heard = Instant::now();
        }
        under_way = match gateway.store.run(tenant, id).await {
            Ok(Some(run)) => run.is_under_way(),
            Ok(None) => false,
            Err(_) => true,
        };
    }
}

/// Writes frames that are there already.
pub async fn write_frames(
    exchange: &mut Exchange,
    frames: &[Frame],
    encoder: &mut impl FrameEncoder,
    wire: &str,
) -> Result<(), Gone> {
    let mut buf = BytesMut::with_capacity(frames.len() * 160);
    let before = encoder.written();
    for frame in frames {
        encoder.frame(frame, &mut buf);
    }
    count_frames(exchange, wire, encoder.written() - before);
    exchange.write(buf.freeze()).await
}

/// A model's answer that is translated, without a smith.
pub enum Answer {
    Stream(Box<ModelCall>),
    Whole(Box<Completed>),
}

impl Answer {
    /// Asks the first route that answers; `None` when the client left.
    pub async fn begin(
        exchange: &mut Exchange,
        tenant_id: &Arc<str>,
        routes: Vec<Route>,
        request: &ModelRequest,
        stream: bool,
    ) -> Result<Option<Self>, ApiError> {
        let models = exchange.gateway.models.clone();
        let no_smith = Arc::from("");
        let told = &headers::onward(exchange, &[]);
        if stream {
            let started = pin!(models.stream(tenant_id, &no_smith, routes, request, told));
            let call = while_stream_waits(exchange, started).await;
            let call = headers::answered(exchange, call)?;
            return Ok(call.map(Self::Stream));
        }
        let whole = pin!(models.complete(tenant_id, &no_smith, routes, request, told));
        let answer = while_client_waits(exchange, whole).await;
        let answer = headers::answered(exchange, answer)?;
        Ok(answer.map(|completed| Self::Whole(Box::new(completed))))
    }
}

impl Answer {
    /// Tells in the answer's header who answered.
    pub fn tell(&mut self, exchange: &mut Exchange) {
        let (route, beside) = match self {
            Self::Whole(completed) => {
                let beside = std::mem::take(&mut completed.beside);
                (&completed.route, beside)
            }
            Self::Stream(call) => {
                let beside = call.take_beside();
                (&call.route, beside)
            }
        };
        headers::tell(exchange, &route.provider, &route.model, beside);
    }

    /// What was asked for and was not sent.
    pub fn lost(&self) -> Lost {
        match self {
            Self::Whole(completed) => completed.lost,
            Self::Stream(call) => call.lost(),
        }
    }
}

/// Notes what an answer took, and what its provider wants back with the next turn; tells what it cost,
/// in nanos.
fn keep(exchange: &Exchange, caller: &Principal, route: &Route, answer: &Collected) -> Option<i64> {
    let gateway = &exchange.gateway;
    let continuity = &gateway.models.continuity;
    continuity.remember(&caller.tenant_id, &Arc::from(""), &answer.parts);
    gateway.accounting.add(
        &Spender::caller(caller),
        &route.provider,
        &route.model,
        &answer.usage,
    )
}

/// An answer that came in one piece, or why it is none.
pub async fn whole_answer(
    exchange: &mut Exchange,
    caller: &Principal,
    completed: &Completed,
) -> Result<Collected, ApiError> {
    let mut collector = Collector::default();
    for frame in &completed.frames {
        collector.add(frame);
    }
    let answer = collector.finish();
    let cost = keep(exchange, caller, &completed.route, &answer);
    headers::tell_cost(exchange, cost);
    if let Some(format) = &completed.held_to {
        let runs = &exchange.gateway.runs;
        // Boxed: what waits for a stream would hold room for it, too.
        Box::pin(runs.check_routed(&caller.tenant_id, format, &answer)).await?;
    }
    Ok(answer)
}

/// Writes a model's frames as they come.
pub async fn translate_stream(
    exchange: &mut Exchange,
    caller: &Principal,
    call: &mut ModelCall,
    encoder: &mut impl AnswerEncoder,
    wire: &str,
) -> Result<(), Gone> {
    let mut written = exchange.start_stream(&[]).await;
    let held = Held::of(exchange, &caller.tenant_id, call);
    let mut pieces = CallPieces {
        call,
        encoder,
        collector: match held {
            Some(_) => Collector::default(),
            None => Collector::brief(),
        },
        held,
        frames: Vec::new(),
        failed: None,
    };
    if written.is_ok() {
        written = stream::write(exchange, &mut pieces).await;
    }
    if written.is_err() {
        exchange.gateway.metrics.cancelled_calls.inc();
    }
    let failed = pieces.failed;
    exchange.end_recording(written.is_ok() && failed.is_none());
    let answer = pieces.into_answer();
    if let Some(kind) = failed {
        let errors = &exchange.gateway.metrics.provider_errors;
        errors
            .with_label_values(&[&*call.route.provider, kind])
            .inc();
    }
    keep(exchange, caller, &call.route, &answer);
    count_frames(exchange, wire, encoder.written());
    written
}

/// A model's frames on their way to a client.
struct CallPieces<'a, E> {
    call: &'a mut ModelCall,
    encoder: &'a mut E,
    collector: Collector,
    held: Option<Box<Held>>,
    frames: Vec<Frame>,
    /// The kind of the error that ended it.
    failed: Option<&'static str>,
}

/// The form that an answer must have, which its model was not held to.
struct Held {
    runs: Arc<Runs>,
    tenant_id: Arc<str>,
    format: ResponseFormat,
    /// All that was said, at its end.
    answer: Option<Collected>,
}

impl Held {
    fn of(exchange: &Exchange, tenant_id: &Arc<str>, call: &ModelCall) -> Option<Box<Self>> {
        let format = call.held_to()?.clone();
        Some(Box::new(Self {
            runs: exchange.gateway.runs.clone(),
            tenant_id: tenant_id.clone(),
            format,
            answer: None,
        }))
    }
}

impl<E: AnswerEncoder> CallPieces<'_, E> {
    /// Whether all that was said has the form that it must have. What was said is said: all that is
    /// left is an end that tells.
    async fn conforms(&mut self) -> Result<(), ApiError> {
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        let collector = &mut self.collector;
        let answer = held
            .answer
            .get_or_insert_with(|| std::mem::take(collector).finish());
        let (tenant_id, format) = (&held.tenant_id, &held.format);
        held.runs.check_routed(tenant_id, format, answer).await
    }

    /// What was said, for the record.
    fn into_answer(self) -> Collected {
        let whole = self.held.and_then(|held| held.answer);
        whole.unwrap_or_else(|| self.collector.finish())
    }
}

impl<E: AnswerEncoder> Pieces for CallPieces<'_, E> {
    async fn next(&mut self) -> Option<Bytes> {
        if self.encoder.is_ended() {
            return None;
        }
        // Boxed both: they come once, and a stream that waits would hold room for them.
        let read = self.call.frames(&mut self.frames).await.map_err(Box::new);
        let conforms = match read {
            Ok(false) if self.held.is_some() => Box::pin(self.conforms()).await.map_err(Box::new),
            _ => Ok(()),
        };
        let mut out = room_for(&self.frames);
        for frame in self.frames.drain(..) {
            self.collector.add(&frame);
            self.encoder.frame(&frame, &mut out);
        }
        match (read, conforms) {
            (Ok(true), _) => {}
            (Ok(false), Ok(())) => {
                let stop = self.collector.stop.unwrap_or(StopReason::EndTurn);
                let usage = self.collector.usage.unwrap_or_default();
                let (stop, usage) = match self.held.as_ref().and_then(|held| held.answer.as_ref()) {
                    Some(answer) => (answer.stop, answer.usage),
                    None => (stop, usage),
                };
                self.encoder.finish(stop, &usage, &mut out);
            }
            (Ok(false), Err(error)) => self.encoder.fail(&error, &mut out),
            (Err(error), _) => {
                self.failed = Some(error.kind());
                self.encoder.fail(&(*error).into(), &mut out);
            }
        }
        Some(written(out))
    }
}
