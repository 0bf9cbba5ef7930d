//! Vector stores at work: files become chunks of text with vectors, and searches find them.
//!
//! Lives here: the taking in of files, the filters and the index that searches use; text is
//! taken out of files in the sandbox (`untrusted`). May import `work`, `store`, `model`, `run` (accounts and budgets),
//! `tools` (whose `file_search` it serves), `untrusted`, `error`.

mod filter;
mod index;
mod ingest;

pub use filter::{Filter, FilterError};
pub use index::{Hit, Hybrid, Query};
pub use ingest::{DEFAULT_CHUNK_TOKENS, DEFAULT_OVERLAP_TOKENS, Ingestion};

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::ApiError;
use crate::frame::Usage;
use crate::model::Models;
use crate::run::{Accounting, Budgets, Smiths, Spender};
use crate::store::{Store, VectorStoreRow};
use crate::tools::hosted::{Documents, Passage, ToolUser};
use crate::untrusted::Sandbox;
use index::Index;

/// Memory for the indexes of stores that were searched lately, in bytes.
const CACHE_BYTES: u64 = 512 * 1024 * 1024;
/// What a store may hold: its index is kept in memory while it is searched.
pub const MAX_STORE_BYTES: i64 = 256 * 1024 * 1024;

/// Takes files in and searches them. One for the whole gateway.
pub struct Retrieval {
    store: Arc<dyn Store>,
    models: Arc<Models>,
    smiths: Arc<Smiths>,
    accounting: Arc<Accounting>,
    budgets: Arc<Budgets>,
    sandbox: Arc<Sandbox>,
    /// By store and revision: a change makes another entry, and the old one falls out.
    indexes: moka::future::Cache<(String, i64), Arc<Index>>,
}

impl Retrieval {
    /// With nothing in memory yet.
    pub fn new(
        store: Arc<dyn Store>,
        models: Arc<Models>,
        smiths: Arc<Smiths>,
        accounting: Arc<Accounting>,
        budgets: Arc<Budgets>,
        sandbox: Arc<Sandbox>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            models,
            smiths,
            accounting,
            budgets,
            sandbox,
            indexes: moka::future::Cache::builder()
                .max_capacity(CACHE_BYTES)
                .weigher(|_, index: &Arc<Index>| u32::try_from(index.bytes()).unwrap_or(u32::MAX))
                .time_to_idle(std::time::Duration::from_secs(600))
                .build(),
        })
    }

    /// On whose account a store's embeddings are.
    async fn spender(&self, row: &VectorStoreRow) -> Result<Spender, ApiError> {
        let tenant_id: Arc<str> = row.tenant_id.as_str().into();
        match &row.smith_id {
            Some(smith_id) => {
                let smith_id = smith_id.as_str().into();
                Ok(self
                    .smiths
                    .effective(&tenant_id, &smith_id)
                    .await?
                    .spender())
            }
            None => Ok(Spender::tenant(&tenant_id)),
        }
    }

    /// Vectors of length 1, paid for by the store's owner.
    async fn vectors(
        &self,
        row: &VectorStoreRow,
        model: &str,
        texts: &[String],
    ) -> Result<Vec<Vec<f32>>, ApiError> {
        let spender = self.spender(row).await?;
        self.budgets.check(&spender).await?;
        let smith = row.smith_id.as_ref().map(|_| &spender.smith_id);
        let routing = &self.models.routing;
        let routes = routing.resolve(&spender.tenant_id, smith, model).await?;
        let (route, embedded) = self.models.embed(routes, texts, None).await?;
        let usage = Usage {
            input: embedded.tokens,
            ..Usage::default()
        };
        self.accounting
            .add(&spender, &route.provider, &route.model, &usage);
        let mut vectors = embedded.vectors;
        vectors.iter_mut().for_each(|vector| normalise(vector));
        Ok(vectors)
    }

    /// The store, when the smith may read it: its own, or one for the whole tenant.
    async fn of(&self, caller: &ToolUser, id: &str) -> Result<Option<VectorStoreRow>, ApiError> {
        let row = self.store.vector_store(&caller.tenant_id, id).await?;
        let is_other = |of: &String| *of != *caller.smith_id;
        Ok(row.filter(|row| !row.smith_id.as_ref().is_some_and(is_other)))
    }

    /// What a store holds about a query's texts, best first.
    pub async fn search(&self, row: &VectorStoreRow, query: Query) -> Result<Vec<Hit>, ApiError> {
        let key = (row.id.clone(), row.revision);
        let index = self
            .indexes
            .try_get_with(key, Index::load(self.store.clone(), row))
            .await
            .map_err(|error| ApiError::clone(&error))?;
        let vectors = match &row.embedding_model {
            Some(model) if query.wants_vectors() && !index.is_empty() => {
                self.vectors(row, model, &query.texts).await?
            }
            _ => Vec::new(),
        };
        tokio::task::spawn_blocking(move || index.search(&query, &vectors))
            .await
            .map_err(ApiError::internal)
    }
}

#[async_trait]
impl Documents for Retrieval {
    async fn search(
        &self,
        caller: &ToolUser,
        store_id: &str,
        query: &str,
        limit: usize,
    ) -> Result<Option<Vec<Passage>>, String> {
        let row = self.of(caller, store_id).await;
        let row = row.map_err(|_| "the documents cannot be reached now".to_owned())?;
        let Some(row) = row else {
            return Ok(None);
        };
        let query = Query {
            texts: vec![query.to_owned()],
            filter: None,
            limit,
            threshold: 0.0,
            hybrid: None,
        };
        let hits = Retrieval::search(self, &row, query).await;
        let passage = |hit: Hit| Passage {
            file_id: hit.file_id,
            filename: hit.filename,
            text: hit.text,
            score: hit.score,
        };
        let hits = hits.map_err(|error| error.message.into_owned())?;
        Ok(Some(hits.into_iter().map(passage).collect()))
    }

    async fn has(&self, caller: &ToolUser, store_id: &str) -> Result<bool, ApiError> {
        Ok(self.of(caller, store_id).await?.is_some())
    }
}

fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|n| n * n).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|n| *n /= length);
    }
}
