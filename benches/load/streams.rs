//! Many slow streams at once: when their chunks arrive, what they hold in memory, and what becomes
//! of them when there are more than the machine can serve.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Bench;
use crate::client::{self, Paced, once, paced, percentile};
use crate::gateway::{Smithgate, chat_body};
use crate::roles::{Failure, Process, passthrough};

fn paced_row(what: &str, seen: &Paced) {
    let refused = match seen.refused {
        0 => String::new(),
        n => format!(", {n} refused"),
    };
    println!(
        "| {what:<42} | {:>7.2} | {:>8.2} | {:>7.2} | {:>8.2} | {:>8.2} | {:>8.2} | {}{refused} |",
        percentile(&seen.first_chunk, 0.5),
        percentile(&seen.first_chunk, 0.99),
        percentile(&seen.late, 0.5),
        percentile(&seen.late, 0.99),
        percentile(&seen.late, 1.0),
        seen.latest_stream,
        seen.first_chunk.len(),
    );
}

fn head() {
    println!(
        "| {:<42} | first   | first    | late    | late     | late     | latest   | streams |",
        "milliseconds"
    );
    println!(
        "| {:<42} | p50     | p99      | p50     | p99      | max      | stream   |         |",
        ""
    );
    println!(
        "| {:-<42} | ------: | -------: | ------: | -------: | -------: | -------: | :------ |",
        ""
    );
}

/// 500, 2,000 and 5,000 streams.
pub async fn paces(bench: &Bench, gateway: &Smithgate) -> Result<(), Failure> {
    head();
    for (streams, pace) in [(500, 20), (2000, 80), (5000, 200)] {
        let model = format!("slow-{pace}");
        let name = |what: &str| format!("{streams} every {pace} ms, {what}");
        let bare = client::post("/chat/chat/completions", &[], &chat_body(&model, true));
        let model = format!("chat-mock/{model}");
        let forwarded = gateway.chat(&model, true, &[]);
        // The few slowest of one round are the machine's more than the gateway's.
        let rounds = if streams == 500 { 5 } else { 1 };
        let (mut added, mut worst) = (Vec::new(), [const { Vec::new() }; 3]);
        for _ in 0..rounds {
            let direct = paced(bench.provider, &bare, streams).await?;
            paced_row(&name("no gateway"), &direct);
            let base = paced(bench.bare, &bare, streams).await?;
            paced_row(&name("bare Pingora"), &base);
            let seen = paced(gateway.address, &forwarded, streams).await?;
            paced_row(&name("forwarded"), &seen);
            let p99 = |seen: &Paced| percentile(&seen.first_chunk, 0.99);
            added.push(p99(&seen) - p99(&base));
            for (worst, seen) in worst.iter_mut().zip([&direct, &base, &seen]) {
                worst.push(percentile(&seen.late, 1.0));
            }
        }
        let smith = gateway.smith(&model).await?;
        let run = gateway.chat("", true, &[("IC-Smith-Id", &smith)]);
        paced_row(
            &name("smith run"),
            &paced(gateway.address, &run, streams).await?,
        );
        if rounds > 1 {
            let median = |mut values: Vec<f64>| {
                values.sort_by(f64::total_cmp);
                percentile(&values, 0.5)
            };
            let [direct, base, seen] = worst.map(median);
            println!(
                "medians of {rounds}: first chunk p99 {:.2} ms more than bare Pingora's, target 2 ms; \
                 latest single chunk {seen:.1} ms, bare Pingora {base:.1}, no gateway {direct:.1}",
                median(added)
            );
        }
    }
    println!();
    Ok(())
}

/// More than the machine can serve.
pub async fn overload(bench: &Bench, gateway: &Smithgate) -> Result<(), Failure> {
    head();
    let bare = client::post("/chat/chat/completions", &[], &chat_body("slow-20", true));
    let model = "chat-mock/slow-20";
    let smith = gateway.smith(model).await?;
    for (what, address, request) in [
        ("bare Pingora", bench.bare, bare),
        ("forwarded", gateway.address, gateway.chat(model, true, &[])),
        (
            "smith run",
            gateway.address,
            gateway.chat("", true, &[("IC-Smith-Id", &smith)]),
        ),
    ] {
        let name = format!("5000 every 20 ms, {what}");
        paced_row(&name, &paced(address, &request, 5000).await?);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    println!();
    Ok(())
}

/// Streams that have come and gone before it is measured what others hold: the first touch code and
/// caches, which is no stream's.
const GONE: usize = 20;

/// What open streams that say nothing hold, over what their process had before them.
pub async fn memory(bench: &Bench) -> Result<(), Failure> {
    println!(
        "| KiB for each of so many idle open streams |     500 |    2000 |    5000 | target |"
    );
    println!(
        "| ----------------------------------------- | ------: | ------: | ------: | ------ |"
    );
    let (bare, process) = passthrough(bench.provider, bench.threads)?;
    let request = client::post("/chat/chat/completions", &[], &chat_body("idle", true));
    held("bare Pingora", &process, bare, &request).await?;
    for (what, model) in [
        ("forwarded", "chat-mock/idle"),
        ("Anthropic to chat", "anthropic-mock/idle"),
        ("smith run", ""),
    ] {
        let dir = tempfile::tempdir()?;
        let gateway = Smithgate::start(dir.path(), bench.provider, 0).await?;
        let smith = gateway.smith("chat-mock/idle").await?;
        let headers = [("IC-Smith-Id", smith.as_str())];
        let headers = if model.is_empty() { &headers[..] } else { &[] };
        let request = gateway.chat(model, true, headers);
        held(what, &gateway.process, gateway.address, &request).await?;
    }
    println!();
    Ok(())
}

async fn held(
    what: &str,
    process: &Process,
    address: SocketAddr,
    request: &[u8],
) -> Result<(), Failure> {
    let mut open = Vec::new();
    while open.len() < GONE {
        open.push(opened(address, request).await?);
    }
    open.clear();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = process.resident();
    print!("| {what:<41} |");
    for streams in [500, 2000, 5000] {
        while open.len() < streams {
            open.push(opened(address, request).await?);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let held = process.resident().saturating_sub(before) as f64;
        print!(" {:>7.1} |", held / streams as f64);
    }
    println!(" 24     |");
    Ok(())
}

/// A stream that has begun.
async fn opened(address: SocketAddr, request: &[u8]) -> Result<TcpStream, Failure> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(request).await?;
    let mut seen = Vec::new();
    // The first text, or what stands for it in the provider's own wire.
    while memchr::memmem::find(&seen, b"data: ").is_none() {
        if socket.read_buf(&mut seen).await? == 0 {
            return Err(String::from_utf8_lossy(&seen).into_owned().into());
        }
    }
    Ok(socket)
}

async fn hung_up_at(bench: &Bench) -> Result<u64, Failure> {
    let (_, text) = once(bench.provider, b"GET /hung-up HTTP/1.1\r\nhost: m\r\n\r\n").await?;
    Ok(text.rsplit('\n').next().unwrap_or_default().parse()?)
}

/// How soon a provider learns that the client has gone.
pub async fn cancelled(bench: &Bench, gateway: &Smithgate) -> Result<(), Failure> {
    let mut cancelled = Vec::new();
    for _ in 0..20 {
        let mut socket = TcpStream::connect(gateway.address).await?;
        let request = gateway.chat("chat-mock/idle", true, &[]);
        socket.write_all(&request).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let left = client::now_nanos();
        drop(socket);
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancelled.push(hung_up_at(bench).await?.saturating_sub(left) as f64 / 1e6);
    }
    cancelled.sort_by(f64::total_cmp);
    println!(
        "client gone to provider call cancelled: p50 {:.2} ms, max {:.2} ms, target 50 ms",
        percentile(&cancelled, 0.5),
        percentile(&cancelled, 1.0)
    );
    Ok(())
}
