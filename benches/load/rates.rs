//! Answers and frames a second, in turns with what they are held against.

use std::net::SocketAddr;
use std::time::Duration;

use crate::client::{percentile, throughput};
use crate::gateway::{Smithgate, chat_body};
use crate::mock;
use crate::peers::Peer;
use crate::roles::Failure;
use crate::{Bench, client};

/// One thing to measure: where, and the requests that its connections take turns with.
pub struct Target {
    pub address: SocketAddr,
    pub requests: Vec<Vec<u8>>,
    /// Another gateway, which may fail.
    pub is_peer: bool,
}

impl Target {
    pub fn one(address: SocketAddr, request: Vec<u8>) -> Self {
        Self {
            address,
            requests: vec![request],
            is_peer: false,
        }
    }
}

/// The median of the rounds of each target, in answers a second. All are measured in each round,
/// one after the other, so that what disturbs the machine disturbs all.
pub async fn rates(
    bench: &Bench,
    connections: usize,
    targets: &[Target],
) -> Result<Vec<f64>, Failure> {
    let mut rates = vec![Vec::new(); targets.len()];
    for round in 0..=bench.rounds {
        for (at, target) in targets.iter().enumerate() {
            // The first round warms up.
            let seconds = if round == 0 { 0.5 } else { bench.seconds };
            let time = Duration::from_secs_f64(seconds);
            let rate = throughput(target.address, &target.requests, connections, time).await;
            let rate = match rate {
                Ok(rate) => rate,
                // A peer that fails under the load is shown without a number.
                Err(error) if target.is_peer => {
                    eprintln!("{}: {error}", target.address);
                    f64::NAN
                }
                Err(error) => return Err(error.into()),
            };
            if round > 0 {
                rates[at].push(rate);
            }
        }
    }
    Ok(rates
        .into_iter()
        .map(|mut values| {
            values.sort_by(f64::total_cmp);
            percentile(&values, 0.5)
        })
        .collect())
}

fn row(what: &str, rate: f64, base: f64, target: Option<f64>) {
    let ratio = rate / base;
    let verdict = match target {
        None => String::new(),
        Some(target) if ratio >= target => format!("{target:.1} x, met"),
        Some(target) => format!("{target:.1} x, MISSED"),
    };
    println!("| {what:<34} | {rate:>9.0} | {ratio:>6.3} x | {verdict:<13} |");
}

fn head(what: &str) {
    println!("| {what:<34} | a second  | to bare  | target        |");
    println!("| {:-<34} | --------: | -------: | ------------- |", "");
}

/// What streams through the gateway: its name, the request and the target.
async fn streamed(gateway: &Smithgate) -> Result<Vec<(&'static str, Vec<u8>, f64)>, Failure> {
    let smith = gateway.smith("chat-mock/m").await?;
    let anthropic = gateway.smith("anthropic-mock/m").await?;
    let as_smith = |smith: &str| gateway.chat("", true, &[("IC-Smith-Id", smith)]);
    let streams = vec![
        ("forwarded", gateway.chat("chat-mock/m", true, &[]), 1.0),
        (
            "Anthropic to chat",
            gateway.chat("anthropic-mock/m", true, &[]),
            0.7,
        ),
        (
            "Gemini to chat",
            gateway.chat("gemini-mock/m", true, &[]),
            0.7,
        ),
        (
            "Responses to chat",
            gateway.chat("responses-mock/m", true, &[]),
            0.7,
        ),
        ("smith run, chat wire", as_smith(&smith), 0.5),
        ("smith run, Anthropic to chat", as_smith(&anthropic), 0.5),
        ("smith run, native wire", gateway.native(&smith), 0.5),
    ];
    for (what, request, _) in &streams {
        let text = gateway.check(request).await?;
        let told = text.matches("tokens flow like").count();
        if told < mock::CHUNKS {
            return Err(format!("{what}: {told} of {} chunks\n{text}", mock::CHUNKS).into());
        }
    }
    Ok(streams)
}

/// The table of ratios.
pub async fn table(bench: &Bench, gateway: &Smithgate, peers: &[Peer]) -> Result<(), Failure> {
    let direct = |stream| client::post("/chat/chat/completions", &[], &chat_body("m", stream));
    let streams = streamed(gateway).await?;
    for connections in [32, 64] {
        let base = |stream| {
            vec![
                Target::one(bench.provider, direct(stream)),
                Target::one(bench.bare, direct(stream)),
            ]
        };
        let of_peers = |stream| {
            peers.iter().map(move |p| Target {
                is_peer: true,
                ..Target::one(p.address, p.chat(stream))
            })
        };

        let mut targets = base(false);
        targets.push(Target::one(
            gateway.address,
            gateway.chat("chat-mock/m", false, &[]),
        ));
        targets.extend(of_peers(false));
        let measured = rates(bench, connections, &targets).await?;
        head(&format!("not streamed, {connections} connections"));
        row("direct", measured[0], measured[1], None);
        row("bare Pingora", measured[1], measured[1], None);
        row("Smithgate", measured[2], measured[1], Some(1.0));
        for (peer, rate) in peers.iter().zip(&measured[3..]) {
            row(peer.name, *rate, measured[1], None);
        }
        println!();

        let mut targets = base(true);
        targets.extend(
            streams
                .iter()
                .map(|(_, request, _)| Target::one(gateway.address, request.clone())),
        );
        targets.extend(of_peers(true));
        let measured: Vec<f64> = rates(bench, connections, &targets)
            .await?
            .iter()
            .map(|rate| rate * mock::CHUNKS as f64)
            .collect();
        head(&format!("frames streamed, {connections} connections"));
        row("direct", measured[0], measured[1], None);
        row("bare Pingora", measured[1], measured[1], None);
        for ((what, _, target), rate) in streams.iter().zip(&measured[2..]) {
            row(
                &format!("Smithgate, {what}"),
                *rate,
                measured[1],
                Some(*target),
            );
        }
        for (peer, rate) in peers.iter().zip(&measured[2 + streams.len()..]) {
            row(peer.name, *rate, measured[1], None);
        }
        println!();
    }
    Ok(())
}

/// One worker thread against two: what an answer costs shows whether they are in each other's way,
/// as the load and the provider use the same cores.
pub async fn workers(bench: &Bench) -> Result<(), Failure> {
    println!("| worker threads | what               | a second  | processor time each |");
    println!("| -------------- | ------------------ | --------: | ------------------: |");
    for workers in [1, 2] {
        let dir = tempfile::tempdir()?;
        let gateway = Smithgate::start(dir.path(), bench.provider, workers).await?;
        let smith = gateway.smith("chat-mock/m").await?;
        for (what, request) in [
            ("not streamed", gateway.chat("chat-mock/m", false, &[])),
            ("forwarded", gateway.chat("chat-mock/m", true, &[])),
            (
                "Anthropic to chat",
                gateway.chat("anthropic-mock/m", true, &[]),
            ),
            (
                "smith run",
                gateway.chat("", true, &[("IC-Smith-Id", &smith)]),
            ),
        ] {
            let request = [request];
            let warm = Duration::from_millis(500);
            throughput(gateway.address, &request, 32, warm).await?;
            let time = Duration::from_secs_f64(bench.seconds);
            let before = gateway.process.busy();
            let rate = throughput(gateway.address, &request, 32, time).await?;
            let busy = gateway.process.busy() - before;
            let each = busy.as_secs_f64() * 1e6 / (rate * bench.seconds);
            println!("| {workers:<14} | {what:<18} | {rate:>9.0} | {each:>16.1} us |");
        }
    }
    println!();
    Ok(())
}
