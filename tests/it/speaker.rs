//! A model that says what it is told to, at a pace.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};
use smithgate::config::{Config, Provider, ProviderWire};

/// What it says, and how long it rests between two pieces.
#[derive(Default)]
pub struct Speaker {
    pub pieces: Mutex<Vec<String>>,
    pub pause: Mutex<Duration>,
}

fn chunk(delta: Value, end: Value) -> String {
    let choice = json!([{ "index": 0, "delta": delta, "finish_reason": end }]);
    let whole = json!({ "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
        "model": "words", "choices": choice });
    format!("data: {whole}\n\n")
}

async fn answer(State(speaker): State<Arc<Speaker>>, Json(body): Json<Value>) -> Response {
    let pieces = speaker.pieces.lock().clone();
    let pause = *speaker.pause.lock();
    if body["stream"] != json!(true) {
        let message = json!({ "role": "assistant", "content": pieces.concat() });
        return Json(json!({ "id": "chatcmpl-1", "object": "chat.completion", "created": 1,
            "model": "words", "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
            "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] }))
        .into_response();
    }
    let said = futures_util::stream::unfold(
        (pieces.into_iter(), false),
        move |(mut rest, over)| async move {
            if over {
                return None;
            }
            let (text, over) = match rest.next() {
                Some(piece) => {
                    tokio::time::sleep(pause).await;
                    (chunk(json!({ "content": piece }), Value::Null), false)
                }
                None => {
                    let end = chunk(json!({}), json!("stop"));
                    (format!("{end}data: [DONE]\n\n"), true)
                }
            };
            Some((Ok::<_, std::io::Error>(text), (rest, over)))
        },
    );
    let head = [("content-type", "text/event-stream")];
    (head, Body::from_stream(said)).into_response()
}

impl Speaker {
    /// Begins to listen; the address is for [`Speaker::add_to`].
    pub async fn start() -> (Arc<Self>, String) {
        let speaker = Arc::new(Self::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = axum::Router::new()
            .route("/chat/completions", post(answer))
            .with_state(speaker.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (speaker, format!("http://{address}"))
    }

    /// Makes it the provider `speaker`, whose model is `speaker/words`.
    pub fn add_to(config: &mut Config, url: &str) {
        let provider = Provider {
            wire: ProviderWire::OpenaiChat,
            base_url: url.to_owned(),
            api_key: None,
            needs_key: false,
            models: vec!["words".to_owned()],
            stream_usage: false,
            responses: false,
            keys_of: None,
            auth_header: None,
            rules: Vec::new(),
        };
        config.providers.insert("speaker".to_owned(), provider);
    }

    pub fn says(&self, pieces: &[&str]) {
        *self.pieces.lock() = pieces.iter().map(|piece| (*piece).to_owned()).collect();
    }
}
