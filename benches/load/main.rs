//! The load bench: a mock provider, a bare Pingora pass-through, Smithgate and other gateways, each
//! in a process of its own, measured in turns in one run. `benches/README.md` says how.
//!
//! `cargo bench --bench load`, with `-- --seconds 1 --rounds 1` for a quick look and
//! `-- --only rates,streams` for a part of it.

#![allow(
    clippy::disallowed_methods,
    reason = "this is the outside, where there is no guard"
)]

mod client;
mod gateway;
mod mock;
mod passthrough;
mod peers;
mod rates;
mod roles;
mod sizes;
mod soak;
mod streams;

use std::net::SocketAddr;
use std::time::Duration;

use gateway::Smithgate;
use roles::{Failure, Process, free_address, role, wait_for};

/// What everything is measured with.
pub struct Bench {
    pub provider: SocketAddr,
    pub bare: SocketAddr,
    /// As many as there are cores.
    pub threads: usize,
    pub passthrough: Process,
    _provider: Process,
    /// Of each measurement.
    pub seconds: f64,
    pub rounds: usize,
}

/// The parts of the bench, in their order.
const PARTS: [&str; 8] = [
    "rates", "streams", "memory", "cancel", "workers", "overload", "sizes", "soak",
];

struct Options {
    parts: Vec<String>,
    seconds: f64,
    rounds: usize,
    minutes: f64,
}

async fn bench(options: Options) -> Result<(), Failure> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let provider = free_address()?;
    let provider_process = role(&["role-provider".to_owned(), provider.to_string()])?;
    wait_for(provider, Duration::from_secs(10))?;
    let (bare, passthrough) = roles::passthrough(provider, threads)?;
    let bench = Bench {
        provider,
        bare,
        threads,
        passthrough,
        _provider: provider_process,
        seconds: options.seconds,
        rounds: options.rounds,
    };
    let dir = tempfile::tempdir()?;
    let gateway = Smithgate::start(dir.path(), provider, 0).await?;
    println!("{threads} cores, shared by load, gateway and provider\n");
    println!(
        "cold start to the first answer: {} ms, target 150 ms",
        gateway.cold_start.as_millis()
    );
    println!(
        "resident after it: {} KiB, target 40960 KiB; bare Pingora {} KiB\n",
        gateway.process.resident(),
        bench.passthrough.resident()
    );
    for part in PARTS
        .iter()
        .filter(|part| options.parts.iter().any(|p| p == *part))
    {
        println!("## {part}\n");
        match *part {
            "rates" => {
                let peers = peers::start(dir.path(), provider, threads).await;
                rates::table(&bench, &gateway, &peers).await?;
                for peer in &peers {
                    println!(
                        "{}: {} KiB resident after load",
                        peer.name,
                        peer.process.resident()
                    );
                }
                println!(
                    "Smithgate: {} KiB resident after load; bare Pingora {} KiB\n",
                    gateway.process.resident(),
                    bench.passthrough.resident()
                );
            }
            "streams" => streams::paces(&bench, &gateway).await?,
            "memory" => streams::memory(&bench).await?,
            "cancel" => streams::cancelled(&bench, &gateway).await?,
            "workers" => rates::workers(&bench).await?,
            "overload" => streams::overload(&bench, &gateway).await?,
            "sizes" => sizes::sizes(&bench).await?,
            _ => soak::soak(&gateway, options.minutes).await?,
        }
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let threads = |n| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(n)
            .enable_all()
            .build()
    };
    match args.first().map(String::as_str) {
        Some("role-provider") => {
            let listen: SocketAddr = args[1].parse()?;
            threads(2)?.block_on(async {
                mock::serve(tokio::net::TcpListener::bind(listen).await?).await
            })?;
            return Ok(());
        }
        Some("role-passthrough") => {
            passthrough::serve(args[1].parse()?, args[2].parse()?, args[3].parse()?);
            return Ok(());
        }
        _ => {}
    }
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let number =
        |name: &str, default: f64| value(name).and_then(|n| n.parse().ok()).unwrap_or(default);
    let parts = value("--only").unwrap_or_else(|| PARTS.join(","));
    let options = Options {
        parts: parts.split(',').map(str::to_owned).collect(),
        seconds: number("--seconds", 3.0),
        rounds: number("--rounds", 3.0) as usize,
        minutes: number("--minutes", 10.0),
    };
    threads(2)?.block_on(bench(options))
}
