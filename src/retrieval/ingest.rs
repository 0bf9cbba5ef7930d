//! The worker that takes files in. What it holds when a process dies is taken again by another one
//! once the hold has passed.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::{MAX_STORE_BYTES, Retrieval};
use crate::error::ApiError;
use crate::model::vector_bytes;
use crate::store::{VectorChunkRow, VectorFileRow, VectorOutcome, now_micros};
use crate::untrusted::{Cutting, ExtractError};

/// Tokens of a chunk, and of what it repeats of the one before it, when a client names none
/// (<https://platform.openai.com/docs/api-reference/vector-stores/create>).
pub const DEFAULT_CHUNK_TOKENS: i64 = 800;
pub const DEFAULT_OVERLAP_TOKENS: i64 = 400;

/// What this node attaches is taken in at once; this finds what others left.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Files at once; the sandbox has its own bound on those whose text is being read.
const AT_ONCE: usize = 4;
/// A claimed file is nobody else's for so long.
const HOLD: Duration = Duration::from_secs(600);
/// Ends before the hold does.
const LIMIT: Duration = Duration::from_secs(540);
const MAX_ATTEMPTS: i64 = 5;
/// A file is taken up so often without a word of what became of it; then it is taken for the cause.
const MAX_TAKINGS: i64 = 2;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Larger files are not taken in, in bytes.
const MAX_FILE: i64 = 64 * 1024 * 1024;
/// Texts of one call for vectors, and chunks of one write.
const BATCH: usize = 64;

/// Why a file is not taken in.
#[derive(Debug, thiserror::Error)]
enum IngestError {
    #[error("{0}")]
    Extract(#[from] ExtractError),
    #[error("{}", .0.message)]
    Api(ApiError),
    #[error("it took too long")]
    Late,
    #[error("its node ended {0} times while it was taken in")]
    Deadly(i64),
    #[error("the store may hold {MAX_STORE_BYTES} bytes of text and vectors")]
    Full,
}

impl From<ApiError> for IngestError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<crate::store::StoreError> for IngestError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Api(error.into())
    }
}

impl IngestError {
    /// What the client is told, when trying again makes no sense.
    fn final_code(&self, attempts: i64) -> Option<&'static str> {
        match self {
            Self::Extract(error @ ExtractError::Later(_)) => {
                (attempts >= MAX_ATTEMPTS).then_some(error.code())
            }
            Self::Extract(error) => Some(error.code()),
            Self::Full | Self::Deadly(_) => Some("invalid_file"),
            Self::Api(error) if error.status.is_client_error() && error.status != 429 => {
                Some("server_error")
            }
            Self::Api(_) | Self::Late => (attempts >= MAX_ATTEMPTS).then_some("server_error"),
        }
    }
}

impl Retrieval {
    /// Takes files in, for ever.
    pub async fn work(self: Arc<Self>) {
        let mut interval = tokio::time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = self.attached.notified() => {}
                Some(_) = under_way.join_next() => {}
            }
            let room = AT_ONCE - under_way.len();
            if room == 0 {
                continue;
            }
            for file in self.claim(room).await {
                let worker = self.clone();
                under_way.spawn(async move { worker.take_in(&file).await });
            }
        }
    }

    /// Takes up to `room` files, first of tenants that have none under way here: who attaches
    /// thousands is not waited for.
    async fn claim(&self, room: usize) -> Vec<VectorFileRow> {
        let now = now_micros();
        let hold_until = now + HOLD.as_micros() as i64;
        let mut claimed = Vec::new();
        while claimed.len() < room {
            let mut busy: Vec<String> = {
                let held = self.held.lock();
                held.values().map(|file| file.tenant_id.clone()).collect()
            };
            busy.sort_unstable();
            busy.dedup();
            let mut found = self.store.claim_vector_file(now, hold_until, &busy).await;
            if matches!(found, Ok(None)) && !busy.is_empty() {
                found = self.store.claim_vector_file(now, hold_until, &[]).await;
            }
            match found {
                Ok(Some(file)) => {
                    self.held.lock().insert(held_as(&file), file.clone());
                    claimed.push(file);
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "cannot look for files to take in");
                    break;
                }
            }
        }
        claimed
    }

    async fn take_in(&self, file: &VectorFileRow) {
        let taken = if file.takings > MAX_TAKINGS {
            Err(IngestError::Deadly(file.takings - 1))
        } else {
            let taken = tokio::time::timeout(LIMIT, self.put_chunks(file)).await;
            taken.unwrap_or(Err(IngestError::Late))
        };
        let message;
        let outcome = match &taken {
            Ok(usage_bytes) => VectorOutcome::Completed {
                usage_bytes: *usage_bytes,
            },
            Err(error) => {
                message = error.to_string();
                match error.final_code(file.attempts) {
                    Some(code) => VectorOutcome::Failed {
                        code,
                        message: &message,
                    },
                    None => {
                        let pause = FIRST_PAUSE * 4_u32.pow(file.attempts.clamp(1, 5) as u32 - 1);
                        VectorOutcome::Later(now_micros() + pause.as_micros() as i64)
                    }
                }
            }
        };
        if let Err(error) = self.store.finish_vector_file(file, outcome).await {
            tracing::warn!(%error, file = file.id, "cannot record how a file was taken in");
        }
        self.held.lock().remove(&held_as(file));
    }

    /// Puts a file's chunks, a few at a time: others write meanwhile. Answers their bytes.
    async fn put_chunks(&self, file: &VectorFileRow) -> Result<i64, IngestError> {
        let chunks = self.chunks(file).await?;
        for (at, part) in chunks.chunks(BATCH).enumerate() {
            // What is another's by now is not recorded as completed either.
            if !self.store.put_vector_chunks(file, part, at == 0).await? {
                break;
            }
        }
        Ok(chunks.iter().map(bytes_of).sum())
    }

    /// Gives back what is under way when this node shuts down.
    pub async fn release(&self) {
        let held = std::mem::take(&mut *self.held.lock());
        for file in held.into_values() {
            let later = VectorOutcome::Later(now_micros());
            if let Err(error) = self.store.finish_vector_file(&file, later).await {
                tracing::warn!(%error, file = file.id, "cannot give a file back");
            }
        }
    }

    async fn chunks(&self, file: &VectorFileRow) -> Result<Vec<VectorChunkRow>, IngestError> {
        let (tenant_id, store_id) = (&file.tenant_id, &file.vector_store_id);
        let row = self.store.vector_store(tenant_id, store_id).await?;
        let row = row.ok_or_else(|| ApiError::not_found("vector store", store_id))?;
        let (filename, content) = self.content(file).await?;
        let cutting = Cutting {
            filename,
            chunk_tokens: file.chunk_tokens as usize,
            overlap_tokens: file.overlap_tokens as usize,
        };
        let tenant: Arc<str> = tenant_id.as_str().into();
        let texts = self.sandbox.chunks(&tenant, cutting, content).await?;
        let counts = self
            .store
            .vector_file_counts(tenant_id, store_id, None)
            .await?;
        let mut bytes = counts.usage_bytes;
        let mut chunks = Vec::with_capacity(texts.len());
        for batch in texts.chunks(BATCH) {
            let vectors = match &row.embedding_model {
                Some(model) => self.vectors(&row, model, batch).await?,
                None => Vec::new(),
            };
            for (place, text) in batch.iter().enumerate() {
                let chunk = VectorChunkRow {
                    file_id: file.id.clone(),
                    number: chunks.len() as i64,
                    content: text.clone(),
                    embedding: vectors.get(place).map(|vector| vector_bytes(vector)),
                };
                bytes += bytes_of(&chunk);
                if bytes > MAX_STORE_BYTES {
                    return Err(IngestError::Full);
                }
                chunks.push(chunk);
            }
        }
        Ok(chunks)
    }

    /// The file's name and bytes.
    async fn content(&self, file: &VectorFileRow) -> Result<(String, Vec<u8>), IngestError> {
        let row = self.store.file(&file.tenant_id, &file.id).await?;
        let row = row.ok_or_else(|| ApiError::not_found("file", &file.id))?;
        if row.bytes > MAX_FILE {
            let message = format!("the file is larger than {MAX_FILE} bytes");
            return Err(ExtractError::Invalid(message).into());
        }
        let mut content = Vec::with_capacity(row.bytes as usize);
        for number in 0.. {
            let piece = self.store.file_piece(&row.tenant_id, &row.id, number);
            match piece.await? {
                Some(piece) => content.extend_from_slice(&piece),
                None => break,
            }
        }
        Ok((row.filename, content))
    }
}

/// What a file is held by: its store and its id.
fn held_as(file: &VectorFileRow) -> (String, String) {
    (file.vector_store_id.clone(), file.id.clone())
}

fn bytes_of(chunk: &VectorChunkRow) -> i64 {
    let vector = chunk.embedding.as_ref().map_or(0, Vec::len);
    (chunk.content.len() + vector) as i64
}
