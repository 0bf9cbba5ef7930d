//! The sandbox as the rest of the gateway sees it: one call for each kind of work.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::archive;
use super::document::{Cutting, ExtractError};
use super::frame::MAX_BODY;
use super::job::{Refused, Told, Work};
use super::mail::Mail;
use super::pool::{Lost, Start, Worker};
use super::queue::{Class, Queue};
use crate::config;

/// Children without work are let go of after this.
const IDLE: Duration = Duration::from_secs(30);
/// How long somebody waits for a child, beyond the job's own time.
const PATIENCE: Duration = Duration::from_secs(30);
const PAGE_TIME: Duration = Duration::from_secs(10);
const MAIL_TIME: Duration = Duration::from_secs(10);
const SKILL_TIME: Duration = Duration::from_secs(5);
const SCHEMA_TIME: Duration = Duration::from_secs(3);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxError {
    /// The parser's own word.
    Refused {
        code: String,
        message: String,
    },
    /// In MiB.
    Memory(u64),
    /// In seconds.
    Time(u64),
    Busy,
    Unavailable,
}

impl SandboxError {
    /// In words about `what`.
    pub fn told(&self, what: &str) -> String {
        match self {
            Self::Refused { message, .. } => message.clone(),
            Self::Memory(limit) => {
                format!("{what} needs more memory than is allowed ({limit} MiB)")
            }
            Self::Time(limit) => format!("{what} takes longer than is allowed ({limit} s)"),
            Self::Busy => format!("{what} must wait: too much of this work is under way already"),
            Self::Unavailable => format!("{what} is not possible now: no worker can be started"),
        }
    }

    /// Whether another attempt may go better.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable)
    }
}

struct Waiting {
    work: Work,
    body: Vec<u8>,
    limit: Duration,
    answer: oneshot::Sender<Result<(Told, Vec<u8>), SandboxError>>,
}

struct State {
    queue: Queue<Waiting>,
    /// Children without work, with the number of when they were left.
    idle: Vec<(u64, Worker)>,
    left: u64,
    is_closed: bool,
}

/// Child processes that parse what strangers wrote.
pub struct Sandbox {
    start: Start,
    workers: usize,
    document_time: Duration,
    state: Mutex<State>,
    /// Ends what is under way.
    closed: CancellationToken,
}

impl Sandbox {
    /// No child yet: the first job starts one.
    pub fn new(settings: &config::Sandbox) -> Arc<Self> {
        let workers = settings.workers.max(1);
        Arc::new(Self {
            start: Start {
                program: settings.program.clone().unwrap_or_else(own_program),
                memory_bytes: settings.memory_mb.saturating_mul(1024 * 1024),
            },
            workers,
            document_time: Duration::from_secs(settings.document_timeout_s),
            state: Mutex::new(State {
                queue: Queue::new(workers),
                idle: Vec::new(),
                left: 0,
                is_closed: false,
            }),
            closed: CancellationToken::new(),
        })
    }

    /// A file's text, in chunks.
    pub async fn chunks(
        self: &Arc<Self>,
        tenant: &Arc<str>,
        cutting: Cutting,
        content: Vec<u8>,
    ) -> Result<Vec<String>, ExtractError> {
        let work = Work::Document(cutting);
        let done = self.run(tenant, Class::Long, work, content, self.document_time);
        match done.await {
            Ok((Told::Chunks, bytes)) => serde_json::from_slice(&bytes)
                .map_err(|_| ExtractError::Invalid(Refused::broken().message)),
            Ok(_) => Err(ExtractError::Invalid(Refused::broken().message)),
            Err(SandboxError::Refused { code, message }) => Err(ExtractError::of(&code, message)),
            Err(error) if error.may_pass() => Err(ExtractError::Later(error.told("the document"))),
            Err(error) => Err(ExtractError::Invalid(error.told("the document"))),
        }
    }

    /// The readable part of an HTML page.
    pub async fn page(
        self: &Arc<Self>,
        tenant: &Arc<str>,
        url: String,
        html: Vec<u8>,
    ) -> Result<String, SandboxError> {
        let done = self.run(tenant, Class::Short, Work::Page { url }, html, PAGE_TIME);
        let (_, text) = done.await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The files of a zip, with their paths.
    pub async fn archive(
        self: &Arc<Self>,
        tenant: &Arc<str>,
        bounds: archive::Bounds,
        zip: Vec<u8>,
    ) -> Result<Vec<(String, Vec<u8>)>, SandboxError> {
        let work = Work::Archive(bounds);
        let (told, bytes) = self
            .run(tenant, Class::Short, work, zip, SKILL_TIME)
            .await?;
        let Told::Files(list) = told else {
            return Err(refused(Refused::broken()));
        };
        let mut rest = bytes.as_slice();
        let mut files = Vec::with_capacity(list.len());
        for (path, length) in list {
            let split = rest.split_at_checked(length);
            let (file, others) = split.ok_or_else(|| refused(Refused::broken()))?;
            files.push((path, file.to_vec()));
            rest = others;
        }
        Ok(files)
    }

    /// What a message of e-mail holds, and its attachments.
    pub async fn mail(
        self: &Arc<Self>,
        tenant: &Arc<str>,
        raw: Vec<u8>,
    ) -> Result<(Mail, Vec<Vec<u8>>), SandboxError> {
        let done = self.run(tenant, Class::Short, Work::Mail, raw, MAIL_TIME);
        let (told, bytes) = done.await?;
        let broken = || refused(Refused::broken());
        let Told::Files(list) = told else {
            return Err(broken());
        };
        let mut rest = bytes.as_slice();
        let mut files = Vec::with_capacity(list.len());
        for (_, length) in list {
            let (file, others) = rest.split_at_checked(length).ok_or_else(broken)?;
            files.push(file.to_vec());
            rest = others;
        }
        let mut files = files.into_iter();
        let mail = files.next().unwrap_or_default();
        let mail = serde_json::from_slice(&mail).map_err(|_| broken())?;
        Ok((mail, files.collect()))
    }

    /// HTML as text.
    pub async fn html(
        self: &Arc<Self>,
        tenant: &Arc<str>,
        html: String,
    ) -> Result<String, SandboxError> {
        let html = html.into_bytes();
        let done = self.run(tenant, Class::Short, Work::Html, html, PAGE_TIME);
        let (_, text) = done.await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// YAML as JSON.
    pub async fn front_matter(
        self: &Arc<Self>,
        tenant: &Arc<str>,
        yaml: &str,
    ) -> Result<Value, SandboxError> {
        let yaml = yaml.as_bytes().to_vec();
        let done = self.run(tenant, Class::Short, Work::FrontMatter, yaml, SKILL_TIME);
        let (_, json) = done.await?;
        serde_json::from_slice(&json).map_err(|_| refused(Refused::broken()))
    }

    /// Compiles a schema, and holds a value to it: where and why it does not conform.
    pub(super) async fn schema(
        self: &Arc<Self>,
        tenant: &Arc<str>,
        schema: &Value,
        value: Option<&Value>,
    ) -> Result<Option<(String, String)>, SandboxError> {
        let mut body = schema.to_string().into_bytes();
        let work = Work::Schema {
            schema_bytes: body.len(),
        };
        if let Some(value) = value {
            body.extend(value.to_string().into_bytes());
        }
        let done = self.run(tenant, Class::Short, work, body, SCHEMA_TIME);
        Ok(match done.await?.0 {
            Told::Mismatch { path, why } => Some((path, why)),
            _ => None,
        })
    }

    /// Lets go of all children, whatever they do.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.queue.clear();
        state.idle.clear();
        self.closed.cancel();
    }

    async fn run(
        self: &Arc<Self>,
        tenant: &Arc<str>,
        class: Class,
        work: Work,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<(Told, Vec<u8>), SandboxError> {
        if body.len() > MAX_BODY {
            return Err(refused(Refused::too_much()));
        }
        let (answer, answered) = oneshot::channel();
        let size = body.len();
        let waiting = Waiting {
            work,
            body,
            limit,
            answer,
        };
        {
            let mut state = self.state.lock();
            if state.is_closed {
                return Err(SandboxError::Unavailable);
            }
            let kept = state.queue.push(tenant, class, size, waiting);
            kept.map_err(|_| SandboxError::Busy)?;
        }
        self.begin();
        // A document may stand behind others for long; who asks for it has a limit of their own.
        let told = match class {
            Class::Long => answered.await,
            Class::Short => tokio::time::timeout(limit + PATIENCE, answered)
                .await
                .map_err(|_| SandboxError::Busy)?,
        };
        let (told, bytes) = told.map_err(|_| SandboxError::Unavailable)??;
        match told {
            Told::Refused(why) => Err(refused(why)),
            told => Ok((told, bytes)),
        }
    }

    /// Begins as many jobs as there may be at once.
    fn begin(self: &Arc<Self>) {
        loop {
            let Some((tenant, class, waiting)) = self.state.lock().queue.next() else {
                return;
            };
            let sandbox = self.clone();
            tokio::spawn(async move {
                let ended = Ended {
                    sandbox,
                    tenant,
                    class,
                };
                ended.sandbox.work(&ended.tenant, waiting).await;
            });
        }
    }

    async fn work(self: &Arc<Self>, tenant: &Arc<str>, mut waiting: Waiting) {
        if waiting.answer.is_closed() {
            return;
        }
        let done = tokio::select! {
            done = self.attempt(tenant, waiting.work, &waiting.body, waiting.limit) => done,
            // Nobody waits any more; the child goes with the attempt.
            () = waiting.answer.closed() => return,
            () = self.closed.cancelled() => Err(SandboxError::Unavailable),
        };
        let _ = waiting.answer.send(done);
    }

    async fn attempt(
        self: &Arc<Self>,
        tenant: &Arc<str>,
        work: Work,
        body: &[u8],
        limit: Duration,
    ) -> Result<(Told, Vec<u8>), SandboxError> {
        let lost = |lost: Lost| match lost {
            Lost::Memory => SandboxError::Memory(self.start.memory_bytes / (1024 * 1024)),
            Lost::Time => SandboxError::Time(limit.as_secs()),
            Lost::Broken(why) => {
                tracing::error!(error = why, program = %self.start.program.display(),
                    "a sandbox worker is lost");
                SandboxError::Unavailable
            }
        };
        let mut worker = match self.idle_of(tenant) {
            Some(worker) => worker,
            None => Worker::start(&self.start, tenant.clone()).map_err(lost)?,
        };
        let done = worker.run(work, body, limit).await.map_err(lost)?;
        self.leave(worker);
        Ok(done)
    }

    /// A child that has worked for this tenant. One that has not makes room.
    fn idle_of(&self, tenant: &Arc<str>) -> Option<Worker> {
        let mut state = self.state.lock();
        let found = state
            .idle
            .iter_mut()
            .position(|(_, worker)| worker.serves(tenant));
        match found {
            Some(at) => Some(state.idle.swap_remove(at).1),
            None => {
                if state.idle.len() + 1 >= self.workers && !state.idle.is_empty() {
                    state.idle.remove(0);
                }
                None
            }
        }
    }

    fn leave(self: &Arc<Self>, worker: Worker) {
        let left = {
            let mut state = self.state.lock();
            if state.is_closed {
                return;
            }
            state.left += 1;
            let left = state.left;
            state.idle.push((left, worker));
            left
        };
        let sandbox = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            if let Some(sandbox) = sandbox.upgrade() {
                sandbox
                    .state
                    .lock()
                    .idle
                    .retain(|(number, _)| *number != left);
            }
        });
    }
}

/// Counts a job as running until it is dropped.
struct Ended {
    sandbox: Arc<Sandbox>,
    tenant: Arc<str>,
    class: Class,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.sandbox
            .state
            .lock()
            .queue
            .ended(&self.tenant, self.class);
        if tokio::runtime::Handle::try_current().is_ok() {
            self.sandbox.begin();
        }
    }
}

fn refused(why: Refused) -> SandboxError {
    SandboxError::Refused {
        code: why.code,
        message: why.message,
    }
}

/// This very program, also when another file has taken its place on the disk.
fn own_program() -> PathBuf {
    let running = Path::new("/proc/self/exe");
    match running.exists() {
        true => running.to_owned(),
        false => std::env::current_exe().unwrap_or_default(),
    }
}
