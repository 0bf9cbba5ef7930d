//! What each token delta and each request costs: splitting, decoding, encoding, checking a token.
//! Throughput is per chunk, so the times to compare with the targets are those for one element.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt;
use smithgate::auth::{Mint, MintedScope};
use smithgate::config::{Config, ProviderWire};
use smithgate::frame::{self, Escaped, Frame};
use smithgate::gateway::Gateway;
use smithgate::model::provider;
use smithgate::sse::Splitter;
use smithgate::wire::{FrameEncoder, chat, native};

const CHUNKS: u64 = 100;
const WORDS: &str = "tokens flow like a river, chunk by chunk, ";

/// One text delta in a provider's wire.
fn delta(wire: ProviderWire) -> String {
    match wire {
        ProviderWire::OpenaiChat => format!(
            "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{WORDS}\"}},\"finish_reason\":null}}]}}\n\n"
        ),
        ProviderWire::OpenaiResponses => format!(
            "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"sequence_number\":7,\"item_id\":\"i\",\"output_index\":0,\"content_index\":0,\"delta\":\"{WORDS}\"}}\n\n"
        ),
        ProviderWire::Anthropic => format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{WORDS}\"}}}}\n\n"
        ),
        ProviderWire::Gemini => format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{WORDS}\"}}],\"role\":\"model\"}},\"index\":0}}],\"modelVersion\":\"m\",\"responseId\":\"r\"}}\n\n"
        ),
    }
}

/// What comes before the first text delta.
fn opening(wire: ProviderWire) -> &'static str {
    match wire {
        ProviderWire::Anthropic => {
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
        }
        _ => "",
    }
}

fn stream(wire: ProviderWire) -> Bytes {
    let mut text = opening(wire).to_owned();
    for _ in 0..CHUNKS {
        text.push_str(&delta(wire));
    }
    Bytes::from(text)
}

const WIRES: [(&str, ProviderWire); 4] = [
    ("openai_chat", ProviderWire::OpenaiChat),
    ("openai_responses", ProviderWire::OpenaiResponses),
    ("anthropic", ProviderWire::Anthropic),
    ("gemini", ProviderWire::Gemini),
];

fn split_and_decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("split");
    group.throughput(Throughput::Elements(CHUNKS));
    for (name, wire) in WIRES {
        let body = stream(wire);
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut splitter = Splitter::new(1 << 20);
                splitter.push(body.clone());
                while let Ok(Some(event)) = splitter.next_event() {
                    black_box(event);
                }
            });
        });
    }
    group.finish();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(CHUNKS));
    for (name, wire) in WIRES {
        let mut splitter = Splitter::new(1 << 20);
        splitter.push(stream(wire));
        let mut events = Vec::new();
        while let Ok(Some(event)) = splitter.next_event() {
            events.push(event);
        }
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || (provider::api(wire).decoder(), Vec::with_capacity(128)),
                |(decoder, frames)| {
                    for event in &events {
                        decoder.event(event, frames).expect("decodes");
                    }
                    black_box(frames.len())
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let frames: Vec<Frame> = (0..CHUNKS)
        .map(|_| Frame::Text(Escaped::escape(WORDS)))
        .collect();
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(CHUNKS));
    let mut buf = BytesMut::with_capacity(1 << 20);
    group.bench_function("chat", |b| {
        let mut encoder = chat::StreamEncoder::new("chatcmpl-bench", 1_700_000_000, "m", true);
        b.iter(|| {
            buf.clear();
            for frame in &frames {
                encoder.frame(frame, &mut buf);
            }
            black_box(buf.len())
        });
    });
    group.bench_function("native", |b| {
        let mut encoder = native::Encoder::new("run_01BENCH", 0, None);
        b.iter(|| {
            buf.clear();
            for frame in &frames {
                encoder.frame(frame, &mut buf);
            }
            black_box(buf.len())
        });
    });
    group.bench_function("frame", |b| {
        b.iter(|| {
            buf.clear();
            for frame in &frames {
                frame::encode(frame, &mut buf);
            }
            black_box(buf.len())
        });
    });
    group.finish();
    let mut log = BytesMut::new();
    for frame in &frames {
        frame::encode(frame, &mut log);
    }
    let log = log.freeze();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(CHUNKS));
    group.bench_function("frame", |b| {
        b.iter(|| {
            let mut rest = log.clone();
            while !rest.is_empty() {
                black_box(frame::decode(&mut rest).expect("a frame"));
            }
        });
    });
    group.finish();
}

fn token_check(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let mut group = c.benchmark_group("token check");
    for (name, cache_entries) in [("cached", 100_000), ("cold", 0)] {
        let mut config = Config {
            data_dir: dir.path().join(name),
            ..Config::default()
        };
        config.auth.cache_entries = cache_entries;
        let (gateway, first) = runtime.block_on(Gateway::start(config)).expect("a gateway");
        let minted = runtime
            .block_on(gateway.auth.mint(Mint {
                tenant_id: first.expect("a first start").tenant_id,
                scope: MintedScope::Admin,
                ttl_seconds: None,
                name: None,
            }))
            .expect("a token");
        let header = format!("Bearer {}", minted.token);
        group.bench_function(name, |b| {
            b.iter(|| {
                black_box(
                    gateway
                        .auth
                        .authenticate(Some(header.as_bytes()))
                        // A token needs no look into the store.
                        .now_or_never()
                        .expect("at once")
                        .expect("valid"),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, split_and_decode, encode, token_check);
criterion_main!(benches);
