//! Taking files in, as work that nodes share.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{MAX_STORE_BYTES, Retrieval};
use crate::error::ApiError;
use crate::model::vector_bytes;
use crate::store::{VectorChunkRow, VectorFileRow, VectorOutcome, now_micros};
use crate::untrusted::{Cutting, ExtractError};
use crate::work::{AtShutdown, Claim, Due, Held, Lane, Rules, Work};

/// Tokens of a chunk, and of what it repeats of the one before it, when a client names none
/// (<https://platform.openai.com/docs/api-reference/vector-stores/create>).
pub const DEFAULT_CHUNK_TOKENS: i64 = 800;
pub const DEFAULT_OVERLAP_TOKENS: i64 = 400;

/// What this node attaches is taken in at once; this finds what others left.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Files at once; the sandbox has its own bound on those whose text is being read.
const AT_ONCE: usize = 4;
/// The last one is kept for another tenant.
const PER_TENANT: usize = 3;
/// Taking a file in may last so long.
const LIMIT: Duration = Duration::from_secs(540);
const MAX_ATTEMPTS: i64 = 5;
/// A file is taken up so often without a word of what became of it; then it is taken for the cause.
const DEADLY: i64 = 2;
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
            Self::Full => Some("invalid_file"),
            Self::Api(error) if error.status.is_client_error() && error.status != 429 => {
                Some("server_error")
            }
            Self::Api(_) | Self::Late => (attempts >= MAX_ATTEMPTS).then_some("server_error"),
        }
    }
}

/// Taking files in.
pub struct Ingestion {
    retrieval: Arc<Retrieval>,
    hold: Duration,
}

/// What came of it.
pub enum Outcome {
    /// Its chunks were put, so many bytes.
    Completed(i64),
    Failed {
        code: &'static str,
        message: String,
    },
    /// Tried again after a while.
    Later(Duration),
}

impl Ingestion {
    /// For the stores of `retrieval`; so long after its node died, a file is another's.
    pub fn new(retrieval: Arc<Retrieval>, hold: Duration) -> Self {
        Self { retrieval, hold }
    }
}

#[async_trait]
impl Work for Ingestion {
    type Item = VectorFileRow;
    type Outcome = Outcome;

    fn rules(&self) -> Rules {
        Rules {
            name: "ingestion",
            hold: self.hold,
            look_every: LOOK_EVERY,
            at_once: AT_ONCE,
            per_tenant: PER_TENANT,
            per_lane: PER_TENANT,
            give_up_after: DEADLY,
            at_shutdown: AtShutdown::GiveBack,
        }
    }

    async fn due(&self, now: i64, limit: i64) -> Result<Due, ApiError> {
        let (tenants, next) = self.retrieval.store.due_vector_files(now, limit).await?;
        Ok(Due {
            lanes: tenants.iter().map(|id| Lane::tenant(id)).collect(),
            next,
        })
    }

    async fn claim(&self, lane: &Lane, claim: Claim) -> Result<Vec<VectorFileRow>, ApiError> {
        let store = &self.retrieval.store;
        let claimed =
            store.claim_vector_files(&lane.tenant_id, claim.now, claim.until, claim.limit);
        Ok(claimed.await?)
    }

    fn ended_nodes(&self, file: &VectorFileRow) -> i64 {
        file.takings - 1
    }

    fn name(&self, file: &VectorFileRow) -> String {
        format!("{} of {}", file.id, file.vector_store_id)
    }

    async fn renew(
        &self,
        held: &[Arc<Held<VectorFileRow>>],
        until: i64,
    ) -> Result<Vec<bool>, ApiError> {
        let held: Vec<_> = held.iter().map(|held| (&held.item, held.until())).collect();
        Ok(self
            .retrieval
            .store
            .renew_vector_files(&held, until)
            .await?)
    }

    async fn perform(&self, held: &Held<VectorFileRow>) -> Outcome {
        let file = &held.item;
        let taken = tokio::time::timeout(LIMIT, self.retrieval.put_chunks(held)).await;
        match taken.unwrap_or(Err(IngestError::Late)) {
            Ok(usage_bytes) => Outcome::Completed(usage_bytes),
            Err(error) => match error.final_code(file.attempts) {
                Some(code) => Outcome::Failed {
                    code,
                    message: error.to_string(),
                },
                None => {
                    Outcome::Later(FIRST_PAUSE * 4_u32.pow(file.attempts.clamp(1, 5) as u32 - 1))
                }
            },
        }
    }

    fn given_up(&self, _file: &VectorFileRow, times: i64) -> Outcome {
        Outcome::Failed {
            code: "invalid_file",
            message: format!("its node ended {times} times while it was taken in"),
        }
    }

    async fn settle(
        &self,
        file: &VectorFileRow,
        until: i64,
        outcome: &Outcome,
    ) -> Result<bool, ApiError> {
        let outcome = match outcome {
            Outcome::Completed(usage_bytes) => VectorOutcome::Completed {
                usage_bytes: *usage_bytes,
            },
            Outcome::Failed { code, message } => VectorOutcome::Failed { code, message },
            Outcome::Later(pause) => VectorOutcome::Later(now_micros() + pause.as_micros() as i64),
        };
        let store = &self.retrieval.store;
        Ok(store.finish_vector_file(file, until, outcome).await?)
    }

    async fn release(&self, file: &VectorFileRow, until: i64, now: i64) -> Result<bool, ApiError> {
        let store = &self.retrieval.store;
        Ok(store.release_vector_file(file, until, now).await?)
    }

    async fn uncount(&self, file: &VectorFileRow) -> Result<(), ApiError> {
        Ok(self.retrieval.store.uncount_vector_file(file).await?)
    }
}

impl Retrieval {
    /// Puts a file's chunks, a few at a time: others write meanwhile. Answers their bytes.
    async fn put_chunks(&self, held: &Held<VectorFileRow>) -> Result<i64, IngestError> {
        let file = &held.item;
        let chunks = self.chunks(file).await?;
        for (at, part) in chunks.chunks(BATCH).enumerate() {
            let fence = held.fence().await;
            let put = self
                .store
                .put_vector_chunks(file, fence.until, part, at == 0);
            // What is another's by now is not recorded as completed either.
            if !put.await? {
                break;
            }
        }
        Ok(chunks.iter().map(bytes_of).sum())
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

fn bytes_of(chunk: &VectorChunkRow) -> i64 {
    let vector = chunk.embedding.as_ref().map_or(0, Vec::len);
    (chunk.content.len() + vector) as i64
}
