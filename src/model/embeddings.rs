//! Texts to vectors: bodies passed on where the provider speaks OpenAI's wire, translated for
//! Gemini's.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::Models;
use super::error::ModelError;
use super::opening::{Answered, Whole};
use super::routing::Route;
use crate::config::ProviderWire;
use crate::lenient;

/// Gemini takes no more texts in one call
/// (<https://ai.google.dev/api/embeddings#method:-models.batchembedcontents>).
const GEMINI_BATCH: usize = 100;

/// The vectors of some texts, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Embedded {
    pub vectors: Vec<Vec<f32>>,
    /// What the provider counted; 0 when it tells nothing.
    pub tokens: u64,
}

/// A vector as numbers, or as base64 of little-endian 32-bit floats.
#[derive(Deserialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Deserialize)]
struct OpenaiList {
    #[serde(default, deserialize_with = "lenient::few")]
    data: lenient::Few<OpenaiVector>,
    #[serde(default, deserialize_with = "lenient::details")]
    usage: OpenaiUsage,
}

#[derive(Deserialize)]
struct OpenaiVector {
    #[serde(default, deserialize_with = "lenient::place")]
    index: Option<u32>,
    embedding: Vector,
}

#[derive(Default, Deserialize)]
struct OpenaiUsage {
    #[serde(default, deserialize_with = "lenient::count")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient::count")]
    total_tokens: Option<u64>,
}

impl OpenaiUsage {
    fn tokens(&self) -> u64 {
        self.prompt_tokens.or(self.total_tokens).unwrap_or(0)
    }
}

#[derive(Deserialize)]
struct GeminiList {
    #[serde(default, deserialize_with = "lenient::few")]
    embeddings: lenient::Few<GeminiVector>,
}

#[derive(Deserialize)]
struct GeminiVector {
    values: Vec<f32>,
}

impl Route {
    /// Whether its provider takes OpenAI's embeddings body as it is.
    pub fn embeds_as_openai(&self) -> bool {
        matches!(
            self.wire,
            ProviderWire::OpenaiChat | ProviderWire::OpenaiResponses
        )
    }

    /// Whether its provider has embeddings at all.
    pub fn embeds(&self) -> bool {
        self.wire != ProviderWire::Anthropic
    }
}

/// The usage that an answer in OpenAI's shape tells.
pub fn tokens_of_answer(body: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Told {
        #[serde(default, deserialize_with = "lenient::details")]
        usage: OpenaiUsage,
    }
    serde_json::from_slice::<Told>(body).map_or(0, |told| told.usage.tokens())
}

/// Little-endian 32-bit floats.
pub fn vector_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// The other way; what is left over of a last number is dropped.
pub fn vector_of_bytes(bytes: &[u8]) -> Vec<f32> {
    let (numbers, _) = bytes.as_chunks::<4>();
    numbers.iter().map(|n| f32::from_le_bytes(*n)).collect()
}

/// An answer in OpenAI's shape whose `data` is a list, with vectors in the form that was asked for.
/// One that is as it should be is not parsed.
pub fn answer_in_form(body: Bytes, base64: bool) -> Bytes {
    let form = match base64 {
        true => b'"',
        false => b'[',
    };
    let is = |name: &[u8], begun: u8| value_begins(&body, name).is_none_or(|found| found == begun);
    if is(b"\"data\"", b'[') && is(b"\"embedding\"", form) {
        return body;
    }
    let Ok(mut answer) = serde_json::from_slice::<Value>(&body) else {
        return body;
    };
    let data = &mut answer["data"];
    if !data.is_array() {
        *data = json!([data.take()]);
    }
    for one in data.as_array_mut().into_iter().flatten() {
        let Some(vector) = one.get_mut("embedding") else {
            continue;
        };
        let told = match vector.as_str() {
            Some(text) => STANDARD.decode(text).ok().map(|b| vector_of_bytes(&b)),
            None => Vec::<f32>::deserialize(&*vector).ok(),
        };
        match told {
            Some(numbers) if base64 => *vector = STANDARD.encode(vector_bytes(&numbers)).into(),
            Some(numbers) => *vector = json!(numbers),
            None => {}
        }
    }
    Bytes::from(answer.to_string())
}

/// How the first value of a member of this name (in quotes) begins.
fn value_begins(body: &[u8], name: &[u8]) -> Option<u8> {
    memchr::memmem::find_iter(body, name).find_map(|at| {
        let rest = body[at + name.len()..].trim_ascii_start();
        rest.strip_prefix(b":")?.trim_ascii_start().first().copied()
    })
}

fn malformed(why: impl std::fmt::Display) -> ModelError {
    ModelError::Malformed(format!("embeddings: {why}"))
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ModelError> {
    serde_json::from_slice(body).or_else(|error| {
        let mended = lenient::mended(body, |_| {}).ok_or_else(|| malformed(&error))?;
        serde_json::from_slice(&mended).map_err(malformed)
    })
}

fn decode_openai(body: &[u8], texts: usize) -> Result<Embedded, ModelError> {
    let mut list: OpenaiList = read(body)?;
    list.data.sort_by_key(|vector| vector.index);
    let mut vectors = Vec::with_capacity(list.data.len());
    for vector in list.data {
        vectors.push(match vector.embedding {
            Vector::Numbers(numbers) => numbers,
            Vector::Base64(text) => vector_of_bytes(&STANDARD.decode(text).map_err(malformed)?),
        });
    }
    complete(vectors, texts).map(|vectors| Embedded {
        vectors,
        tokens: list.usage.tokens(),
    })
}

/// Refuses answers that do not hold a vector for each text.
fn complete(vectors: Vec<Vec<f32>>, texts: usize) -> Result<Vec<Vec<f32>>, ModelError> {
    let size = vectors.first().map_or(0, Vec::len);
    if vectors.len() != texts || vectors.iter().any(|v| v.is_empty() || v.len() != size) {
        return Err(malformed(format!(
            "{} vectors for {texts} texts",
            vectors.len()
        )));
    }
    Ok(vectors)
}

impl Models {
    /// The vectors of `texts`, whatever wire the provider speaks.
    pub async fn embed(
        &self,
        routes: Vec<Route>,
        texts: &[String],
        dimensions: Option<u32>,
    ) -> Result<(Route, Embedded), ModelError> {
        let routes = routes.as_slice();
        let tried = self.try_routes(routes, |at| async move {
            let route = &routes[at];
            let embedded = if route.embeds_as_openai() {
                let mut body = json!({ "model": route.model, "input": texts });
                if let Some(dimensions) = dimensions {
                    body["dimensions"] = dimensions.into();
                }
                let answer = self.post(route, "/embeddings", body.to_string()).await?;
                decode_openai(&answer, texts.len())?
            } else if route.wire == ProviderWire::Gemini {
                self.embed_gemini(route, texts, dimensions).await?
            } else {
                return Err(ModelError::Unsupported(format!(
                    "the provider '{}' has no embeddings",
                    route.provider
                )));
            };
            Ok((route.clone(), embedded))
        });
        Ok(tried.await?.0)
    }

    async fn embed_gemini(
        &self,
        route: &Route,
        texts: &[String],
        dimensions: Option<u32>,
    ) -> Result<Embedded, ModelError> {
        let model = route.model.strip_prefix("models/").unwrap_or(&route.model);
        let name = format!("models/{model}");
        let quoted: String = url::form_urlencoded::byte_serialize(model.as_bytes()).collect();
        let path = format!("/models/{quoted}:batchEmbedContents");
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(GEMINI_BATCH) {
            let requests: Vec<_> = batch
                .iter()
                .map(|text| {
                    let mut one =
                        json!({ "model": name, "content": { "parts": [{ "text": text }] } });
                    if let Some(dimensions) = dimensions {
                        one["outputDimensionality"] = dimensions.into();
                    }
                    one
                })
                .collect();
            let body = json!({ "requests": requests }).to_string();
            let answer = self.post(route, &path, body).await?;
            let list: GeminiList = read(&answer)?;
            vectors.extend(list.embeddings.into_iter().map(|v| v.values));
        }
        complete(vectors, texts.len()).map(|vectors| Embedded { vectors, tokens: 0 })
    }

    /// Bodies of OpenAI's wire, passed on as they are, in the order of `routes`. Answers the place of
    /// the route that answered.
    pub async fn forward_embeddings(
        &self,
        routes: &[Route],
        bodies: &[Bytes],
    ) -> Result<(usize, Bytes), ModelError> {
        let tried = self.try_routes(routes, |at| async move {
            let body = bodies.get(at).cloned().unwrap_or_default();
            let whole = self.ask_whole(&routes[at], "/embeddings", body).await?;
            whole.must_hold("data")?;
            Ok((at, whole.body))
        });
        Ok(tried.await?.0)
    }

    /// Asks for an answer that is not long in the making.
    async fn ask_whole(&self, route: &Route, path: &str, body: Bytes) -> Result<Whole, ModelError> {
        let patience = Duration::from_millis(self.limits.first_byte_timeout_ms);
        let asked = tokio::time::timeout(patience, self.ask(route, path, body, false, &[])).await;
        match asked.map_err(|_| ModelError::Timeout("embeddings"))??.0 {
            Answered::Whole(whole) => Ok(whole),
            Answered::Events(_) => Err(malformed("an event stream")),
        }
    }

    /// Sends a body and reads the whole answer.
    async fn post(&self, route: &Route, path: &str, body: String) -> Result<Bytes, ModelError> {
        Ok(self.ask_whole(route, path, Bytes::from(body)).await?.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_form_that_was_asked_for() {
        let encoded = STANDARD.encode(vector_bytes(&[0.5, -2.0]));
        let floats = json!({ "object": "list", "data": [
            { "object": "embedding", "index": 0, "embedding": [0.5, -2.0] }], "usage": {} });
        let texts = json!({ "object": "list", "data": [
            { "object": "embedding", "index": 0, "embedding": encoded }], "usage": {} });
        let mut single = texts.clone();
        single["data"] = texts["data"][0].clone();
        for (told, base64, expected) in [
            (&floats, false, &floats),
            (&floats, true, &texts),
            (&texts, false, &floats),
            (&texts, true, &texts),
            (&single, false, &floats),
            (&single, true, &texts),
        ] {
            let answer = answer_in_form(Bytes::from(told.to_string()), base64);
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            assert_eq!(&answer, expected);
        }
        let spaced = Bytes::from_static(b"{ \"data\" : [ { \"embedding\" : [ 1 ] } ] }");
        assert_eq!(answer_in_form(spaced.clone(), false), spaced);
    }

    #[test]
    fn both_forms_of_a_vector_are_read_in_the_order_of_their_index() {
        let encoded = STANDARD.encode(vector_bytes(&[0.5, -2.0]));
        let body = json!({ "data": [
            { "index": 1, "embedding": encoded }, { "index": 0, "embedding": [1, 0.25] }
        ], "usage": { "prompt_tokens": 7 } });
        let read = decode_openai(body.to_string().as_bytes(), 2).expect("read");
        assert_eq!(read.vectors, [[1.0, 0.25], [0.5, -2.0]]);
        assert_eq!(read.tokens, 7);
        for usage in [json!(null), json!({ "prompt_tokens": null }), json!("7")] {
            let body =
                json!({ "data": [null, { "index": null, "embedding": [1] }], "usage": usage });
            let read = decode_openai(body.to_string().as_bytes(), 1).expect("read");
            assert_eq!((read.vectors.len(), read.tokens), (1, 0));
        }
        let body = json!({ "data": { "embedding": [1] }, "usage": { "total_tokens": "7.0" } });
        let read = decode_openai(body.to_string().as_bytes(), 1).expect("read");
        assert_eq!(read.tokens, 7);
    }

    #[test]
    fn an_answer_must_have_a_vector_for_each_text() {
        for data in [
            json!([]),
            json!([{ "embedding": [] }]),
            json!([{ "embedding": [1.0] }, { "embedding": [1.0] }]),
        ] {
            let body = json!({ "data": data }).to_string();
            assert!(decode_openai(body.as_bytes(), 1).is_err(), "{body}");
        }
    }
}
