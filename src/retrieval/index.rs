//! A store's chunks in memory, ranked against a query: by the cosine of vectors, by words (BM25,
//! from the `bm25` crate), or by both ranks together (reciprocal rank fusion).

use std::collections::HashMap;
use std::sync::Arc;

use bm25::{Embedder, EmbedderBuilder, Scorer, Tokenizer};
use serde_json::{Map, Value};
use unicode_segmentation::UnicodeSegmentation;

use super::filter::Filter;
use crate::error::ApiError;
use crate::model::vector_of_bytes;
use crate::store::{Store, VectorStoreRow};

/// Chunks that are read at once.
const PAGE: i64 = 1_000;
/// How flat the fusion of ranks is; the value of the method's paper (Cormack et al., 2009).
const FUSION: f32 = 60.0;

/// What is searched for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// A chunk counts by the text that it fits best.
    pub texts: Vec<String>,
    pub filter: Option<Filter>,
    pub limit: usize,
    /// Least score, 0 to 1.
    pub threshold: f32,
    pub hybrid: Option<Hybrid>,
}

/// How much the two ranks weigh.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hybrid {
    pub vectors: f32,
    pub words: f32,
}

impl Query {
    /// Whether vectors have a say in the ranking.
    pub fn wants_vectors(&self) -> bool {
        self.hybrid.is_none_or(|hybrid| hybrid.vectors > 0.0)
    }
}

/// A chunk that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    pub file_id: String,
    pub filename: String,
    pub attributes: Map<String, Value>,
    pub text: String,
    /// 0 to 1.
    pub score: f32,
}

struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        text.unicode_words().map(str::to_lowercase).collect()
    }
}

struct File {
    id: String,
    name: String,
    attributes: Map<String, Value>,
}

struct Chunk {
    file: usize,
    text: String,
    vector: Vec<f32>,
}

/// The chunks of a store.
pub struct Index {
    files: Vec<File>,
    chunks: Vec<Chunk>,
    embedder: Embedder<u32, Words>,
    words: Scorer<usize, u32>,
    bytes: usize,
}

impl Index {
    /// Reads a store.
    pub async fn load(store: Arc<dyn Store>, row: &VectorStoreRow) -> Result<Arc<Self>, ApiError> {
        let found = store.vector_found(&row.tenant_id, &row.id).await?;
        let mut places = HashMap::with_capacity(found.len());
        let mut files = Vec::with_capacity(found.len());
        for file in found {
            places.insert(file.id.clone(), files.len());
            files.push(File {
                attributes: serde_json::from_str(&file.attributes).unwrap_or_default(),
                id: file.id,
                name: file.filename,
            });
        }
        let mut chunks = Vec::new();
        let mut after: Option<(String, i64)> = None;
        loop {
            let from = after
                .as_ref()
                .map(|(file, number)| (file.as_str(), *number));
            let page = store
                .vector_chunks(&row.tenant_id, &row.id, from, PAGE)
                .await?;
            let Some(last) = page.last() else { break };
            after = Some((last.file_id.clone(), last.number));
            for chunk in page {
                // A file that came or went meanwhile has another revision's index.
                if let Some(file) = places.get(&chunk.file_id) {
                    chunks.push(Chunk {
                        file: *file,
                        text: chunk.content,
                        vector: chunk
                            .embedding
                            .map(|bytes| vector_of_bytes(&bytes))
                            .unwrap_or_default(),
                    });
                }
            }
        }
        let built = tokio::task::spawn_blocking(move || Self::build(files, chunks)).await;
        built.map(Arc::new).map_err(ApiError::internal)
    }

    fn build(files: Vec<File>, chunks: Vec<Chunk>) -> Self {
        let texts: Vec<&str> = chunks.iter().map(|chunk| chunk.text.as_str()).collect();
        let builder: EmbedderBuilder<u32, Words> =
            EmbedderBuilder::with_tokenizer_and_fit_to_corpus(Words, &texts);
        let embedder = builder.build();
        let mut words = Scorer::new();
        let mut bytes = 1024;
        for (number, chunk) in chunks.iter().enumerate() {
            let embedding = embedder.embed(&chunk.text);
            // The last: what the inverted index of words takes, about.
            bytes += chunk.text.len() + chunk.vector.len() * 4 + embedding.0.len() * 32;
            words.upsert(&number, embedding);
        }
        Self {
            files,
            chunks,
            embedder,
            words,
            bytes,
        }
    }

    /// Memory that it takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The best chunks. `vectors`: of the query's texts; none where only words count.
    pub fn search(&self, query: &Query, vectors: &[Vec<f32>]) -> Vec<Hit> {
        let counts: Vec<bool> = self
            .files
            .iter()
            .map(|file| {
                query
                    .filter
                    .as_ref()
                    .is_none_or(|f| f.holds(&file.attributes))
            })
            .collect();
        let by_vectors = || self.by_vectors(vectors, &counts);
        let by_words = || self.by_words(&query.texts, &counts);
        let mut ranked = match query.hybrid {
            _ if vectors.is_empty() => by_words(),
            None => by_vectors(),
            Some(weights) => fuse(by_vectors(), by_words(), weights),
        };
        ranked.retain(|(_, score)| *score >= query.threshold);
        sort(&mut ranked);
        ranked.truncate(query.limit);
        let hit = |(number, score): (usize, f32)| {
            let chunk = &self.chunks[number];
            let file = &self.files[chunk.file];
            Hit {
                file_id: file.id.clone(),
                filename: file.name.clone(),
                attributes: file.attributes.clone(),
                text: chunk.text.clone(),
                score,
            }
        };
        ranked.into_iter().map(hit).collect()
    }

    fn by_vectors(&self, vectors: &[Vec<f32>], counts: &[bool]) -> Vec<(usize, f32)> {
        let mut scored = Vec::new();
        for (number, chunk) in self.chunks.iter().enumerate() {
            if !counts[chunk.file] {
                continue;
            }
            let fitting = vectors.iter().filter(|v| v.len() == chunk.vector.len());
            let best = fitting.map(|v| dot(v, &chunk.vector)).reduce(f32::max);
            if let Some(best) = best {
                scored.push((number, best.clamp(0.0, 1.0)));
            }
        }
        scored
    }

    /// BM25 has no upper end: what a chunk has is set against itself and 1.
    fn by_words(&self, texts: &[String], counts: &[bool]) -> Vec<(usize, f32)> {
        let mut best: HashMap<usize, f32> = HashMap::new();
        for text in texts {
            for found in self.words.matches(&self.embedder.embed(text)) {
                if counts[self.chunks[found.id].file] {
                    let score = found.score / (found.score + 1.0);
                    let kept = best.entry(found.id).or_default();
                    *kept = kept.max(score);
                }
            }
        }
        best.into_iter().collect()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Best first; the earlier chunk when two are as good.
fn sort(ranked: &mut [(usize, f32)]) {
    ranked.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
}

/// A chunk that leads both ranks has 1.
fn fuse(
    mut vectors: Vec<(usize, f32)>,
    mut words: Vec<(usize, f32)>,
    weights: Hybrid,
) -> Vec<(usize, f32)> {
    let mut fused: HashMap<usize, f32> = HashMap::new();
    let total = weights.vectors + weights.words;
    for (ranked, weight) in [(&mut vectors, weights.vectors), (&mut words, weights.words)] {
        sort(ranked);
        for (rank, (number, _)) in ranked.iter().enumerate() {
            let share = weight / total * (FUSION + 1.0) / (FUSION + 1.0 + rank as f32);
            *fused.entry(*number).or_default() += share;
        }
    }
    fused.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn index() -> Index {
        let file = |id: &str, attributes: Value| File {
            id: id.to_owned(),
            name: format!("{id}.txt"),
            attributes: attributes.as_object().cloned().unwrap_or_default(),
        };
        let chunk = |file, text: &str, vector: &[f32]| Chunk {
            file,
            text: text.to_owned(),
            vector: vector.to_vec(),
        };
        Index::build(
            vec![file("a", json!({ "team": "red" })), file("b", json!({}))],
            vec![
                chunk(0, "Returns are free for thirty days", &[1.0, 0.0]),
                chunk(0, "Shipping takes two days", &[0.0, 1.0]),
                chunk(1, "A refund is paid at once", &[0.8, 0.6]),
            ],
        )
    }

    fn query(text: &str) -> Query {
        Query {
            texts: vec![text.to_owned()],
            limit: 10,
            ..Query::default()
        }
    }

    fn numbers(hits: &[Hit]) -> Vec<&str> {
        hits.iter().map(|hit| &hit.text[..1]).collect()
    }

    #[test]
    fn vectors_rank_by_their_cosine() {
        let hits = index().search(&query("x"), &[vec![1.0, 0.0]]);
        assert_eq!(numbers(&hits), ["R", "A", "S"]);
        assert_eq!(hits[0].score, 1.0);
        let strict = Query {
            threshold: 0.5,
            limit: 1,
            ..query("x")
        };
        assert_eq!(numbers(&index().search(&strict, &[vec![0.0, 1.0]])), ["S"]);
        // Vectors of another size are of another model.
        assert!(index().search(&query("x"), &[vec![1.0]]).is_empty());
    }

    #[test]
    fn words_rank_where_there_are_no_vectors() {
        let hits = index().search(&query("REFUND days?"), &[]);
        assert_eq!(numbers(&hits), ["A", "S", "R"]);
        assert!(hits.iter().all(|hit| hit.score > 0.0 && hit.score < 1.0));
        assert!(index().search(&query("nothing"), &[]).is_empty());
    }

    #[test]
    fn ranks_are_fused_by_weight() {
        let of = |vectors, words| Query {
            hybrid: Some(Hybrid { vectors, words }),
            ..query("refund")
        };
        let hits = index().search(&of(1.0, 0.0), &[vec![0.0, 1.0]]);
        assert_eq!(numbers(&hits)[0], "S");
        let hits = index().search(&of(0.1, 0.9), &[vec![0.0, 1.0]]);
        assert_eq!(numbers(&hits)[0], "A");
        assert!(hits[0].score <= 1.0);
    }

    #[test]
    fn only_files_that_pass_the_filter_count() {
        let filter = json!({ "type": "eq", "key": "team", "value": "red" });
        let of_team = Query {
            filter: Some(Filter::parse(&filter).expect("valid")),
            ..query("refund days")
        };
        assert_eq!(numbers(&index().search(&of_team, &[])).len(), 2);
        let hits = index().search(&of_team, &[vec![0.8, 0.6]]);
        assert!(hits.iter().all(|hit| hit.file_id == "a"));
    }
}
