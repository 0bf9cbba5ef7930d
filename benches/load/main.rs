//! The load bench: a mock provider, a bare Pingora pass-through and Smithgate, each in a process of
//! its own, measured in turns in one run; prints what each row of the performance targets came to.
//!
//! `cargo bench --bench load`, with `-- --seconds 1 --rounds 1` for a quick look.

mod client;
mod mock;
mod passthrough;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use client::{Paced, once, paced, percentile, post, throughput};

type Failure = Box<dyn std::error::Error>;

/// A process that ends with this one.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Resident memory, in KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        status
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    }
}

fn free_address() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

fn wait_for(address: SocketAddr) -> Result<(), Failure> {
    let started = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        if started.elapsed() > Duration::from_secs(10) {
            return Err(format!("nothing listens on {address}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// This program again, in another role.
fn role(args: &[String]) -> Result<Process, Failure> {
    Ok(Process(
        Command::new(std::env::current_exe()?).args(args).spawn()?,
    ))
}

struct Smithgate {
    process: Process,
    address: SocketAddr,
    token: String,
    /// From the start of the process to the end of its first answer.
    cold_start: Duration,
}

impl Smithgate {
    async fn start(dir: &Path, provider: SocketAddr) -> Result<Self, Failure> {
        let address = free_address()?;
        let mut config = format!(
            "data_dir = {:?}\n[server]\nlisten = \"{address}\"\n[metrics]\nlisten = \"{}\"\n[log]\nfilter = \"warn\"\n",
            dir.join("data"),
            free_address()?,
        );
        for (name, wire) in [
            ("chat", "openai_chat"),
            ("responses", "openai_responses"),
            ("anthropic", "anthropic"),
            ("gemini", "gemini"),
        ] {
            config.push_str(&format!(
                "[providers.{name}-mock]\nwire = \"{wire}\"\nbase_url = \"http://{provider}/{name}\"\nneeds_key = false\n"
            ));
        }
        let file = dir.join("smithgate.toml");
        std::fs::write(&file, config)?;
        let launch = || -> Result<(Process, Option<String>), Failure> {
            let mut child = Command::new(env!("CARGO_BIN_EXE_smithgate"))
                .arg("--config")
                .arg(&file)
                .stdout(Stdio::piped())
                .spawn()?;
            let stdout = child.stdout.take().ok_or("no output")?;
            let process = Process(child);
            let mut token = None;
            for line in BufReader::new(stdout).lines() {
                let line = line?;
                if line.starts_with("tha_live_") {
                    token = Some(line);
                } else if line.contains("listens on") {
                    return Ok((process, token));
                }
            }
            Err("smithgate did not start".into())
        };
        // The first start makes keys; the second is the one that a restart sees.
        let (first, token) = launch()?;
        drop(first);
        let token = token.ok_or("no token at the first start")?;
        let started = Instant::now();
        let (process, _) = launch()?;
        let mut this = Self {
            process,
            address,
            token,
            cold_start: Duration::ZERO,
        };
        this.check(&this.chat("chat-mock/m", false, &[])).await?;
        this.cold_start = started.elapsed();
        Ok(this)
    }

    fn chat(&self, model: &str, stream: bool, headers: &[(&str, &str)]) -> Vec<u8> {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        post("/v1/chat/completions", &all, &chat_body(model, stream))
    }

    async fn check(&self, request: &[u8]) -> Result<String, Failure> {
        let (status, text) = once(self.address, request).await?;
        if !(200..300).contains(&status) || text.contains("\"error\"") {
            return Err(text.into());
        }
        Ok(text)
    }

    async fn smith(&self, model: &str) -> Result<String, Failure> {
        let bearer = format!("Bearer {}", self.token);
        let body = format!("{{\"model\":\"{model}\"}}");
        let made = self
            .check(&post("/v1/smiths", &[("authorization", &bearer)], &body))
            .await?;
        let at = made.find("smt_").ok_or("no smith")?;
        Ok(made[at..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect())
    }
}

fn chat_body(model: &str, stream: bool) -> String {
    format!(
        "{{\"model\":\"{model}\",\"stream\":{stream},\"messages\":[{{\"role\":\"system\",\"content\":\"You are brief.\"}},{{\"role\":\"user\",\"content\":\"How do tokens flow?\"}}]}}"
    )
}

struct Options {
    seconds: f64,
    rounds: usize,
    streams: usize,
}

/// The median of the rounds.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}

async fn rates(
    options: &Options,
    connections: usize,
    targets: &[(SocketAddr, Vec<u8>)],
) -> Result<Vec<f64>, Failure> {
    let mut rates = vec![Vec::new(); targets.len()];
    for round in 0..=options.rounds {
        for (at, (address, request)) in targets.iter().enumerate() {
            // The first round warms up.
            let seconds = if round == 0 { 0.5 } else { options.seconds };
            let time = Duration::from_secs_f64(seconds);
            let rate = throughput(*address, request, connections, time).await?;
            if round > 0 {
                rates[at].push(rate);
            }
        }
    }
    Ok(rates.into_iter().map(median).collect())
}

fn row(what: &str, rate: f64, unit: &str, base: f64, target: f64) {
    let ratio = rate / base;
    let verdict = if ratio >= target { "met" } else { "MISSED" };
    println!("{what:<44} {rate:>11.0} {unit:<9} {ratio:>5.2} x   target {target:.1} x  {verdict}");
}

fn paced_row(what: &str, seen: &Paced) {
    println!(
        "{what:<24} first chunk p50 {:>6.2} ms  p99 {:>6.2} ms   chunk late p50 {:>5.2} ms  p99 {:>5.2} ms  max {:>6.2} ms",
        percentile(&seen.first_chunk, 0.5),
        percentile(&seen.first_chunk, 0.99),
        percentile(&seen.late, 0.5),
        percentile(&seen.late, 0.99),
        percentile(&seen.late, 1.0),
    );
}

async fn hung_up_at(provider: SocketAddr) -> Result<u64, Failure> {
    let (_, text) = once(provider, b"GET /hung-up HTTP/1.1\r\nhost: m\r\n\r\n").await?;
    Ok(text.rsplit('\n').next().unwrap_or_default().parse()?)
}

async fn bench(options: Options) -> Result<(), Failure> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let (provider, bare) = (free_address()?, free_address()?);
    let _provider = role(&["role-provider".to_owned(), provider.to_string()])?;
    wait_for(provider)?;
    let role_args = [
        "role-passthrough".to_owned(),
        bare.to_string(),
        provider.to_string(),
        threads.to_string(),
    ];
    let passthrough = role(&role_args)?;
    wait_for(bare)?;
    let dir = tempfile::tempdir()?;
    let gateway = Smithgate::start(dir.path(), provider).await?;
    let idle_memory = gateway.process.resident();
    println!("{threads} cores, one process each; ratios are to the bare Pingora pass-through\n");

    let direct = |stream| post("/chat/chat/completions", &[], &chat_body("m", stream));
    let chunks = mock::CHUNKS as f64;
    let smiths = [
        gateway.smith("chat-mock/m").await?,
        gateway.smith("anthropic-mock/m").await?,
    ];
    let bearer = format!("Bearer {}", gateway.token);
    let native = post(
        &format!("/v1/smiths/{}/runs", smiths[0]),
        &[("authorization", &bearer), ("accept", "text/event-stream")],
        "{\"input\":[{\"role\":\"user\",\"content\":\"How do tokens flow?\"}],\"stream\":true}",
    );
    let streams: Vec<(&str, Vec<u8>, f64)> = vec![
        (
            "streamed, forwarded",
            gateway.chat("chat-mock/m", true, &[]),
            1.0,
        ),
        (
            "streamed, Anthropic to chat",
            gateway.chat("anthropic-mock/m", true, &[]),
            0.7,
        ),
        (
            "streamed, Gemini to chat",
            gateway.chat("gemini-mock/m", true, &[]),
            0.7,
        ),
        (
            "streamed, Responses to chat",
            gateway.chat("responses-mock/m", true, &[]),
            0.7,
        ),
        (
            "smith run, chat wire",
            gateway.chat("", true, &[("IC-Smith-Id", &smiths[0])]),
            0.5,
        ),
        (
            "smith run, chat wire, Anthropic",
            gateway.chat("", true, &[("IC-Smith-Id", &smiths[1])]),
            0.5,
        ),
        ("smith run, native wire", native, 0.5),
    ];
    for (what, request, _) in &streams {
        let text = gateway.check(request).await?;
        let told = text.matches("tokens flow like").count();
        if told < mock::CHUNKS {
            return Err(format!("{what}: {told} of {} chunks\n{text}", mock::CHUNKS).into());
        }
    }
    for connections in [32, 64] {
        println!("{connections} connections");
        let plain = gateway.chat("chat-mock/m", false, &[]);
        let measured = rates(
            &options,
            connections,
            &[
                (provider, direct(false)),
                (bare, direct(false)),
                (gateway.address, plain),
            ],
        )
        .await?;
        println!(
            "{:<44} {:>11.0} answers/s",
            "direct, not streamed", measured[0]
        );
        println!(
            "{:<44} {:>11.0} answers/s",
            "bare Pingora, not streamed", measured[1]
        );
        row(
            "chat, not streamed",
            measured[2],
            "answers/s",
            measured[1],
            1.0,
        );
        let mut targets = vec![(provider, direct(true)), (bare, direct(true))];
        targets.extend(
            streams
                .iter()
                .map(|(_, request, _)| (gateway.address, request.clone())),
        );
        let measured: Vec<f64> = rates(&options, connections, &targets)
            .await?
            .iter()
            .map(|rate| rate * chunks)
            .collect();
        println!("{:<44} {:>11.0} frames/s", "direct, streamed", measured[0]);
        println!(
            "{:<44} {:>11.0} frames/s",
            "bare Pingora, streamed", measured[1]
        );
        for (at, (what, _, target)) in streams.iter().enumerate() {
            row(what, measured[at + 2], "frames/s", measured[1], *target);
        }
        println!();
    }

    println!(
        "{} streams at once, a chunk every {} ms",
        options.streams,
        mock::PACE.as_millis()
    );
    let slow = |model: &str| post("/chat/chat/completions", &[], &chat_body(model, true));
    let base = paced(bare, &slow("slow"), options.streams).await?;
    paced_row("bare Pingora", &base);
    let seen = paced(
        gateway.address,
        &gateway.chat("chat-mock/slow", true, &[]),
        options.streams,
    )
    .await?;
    paced_row("forwarded", &seen);
    let slow_smith = gateway.smith("chat-mock/slow").await?;
    let request = gateway.chat("", true, &[("IC-Smith-Id", &slow_smith)]);
    paced_row(
        "smith run",
        &paced(gateway.address, &request, options.streams).await?,
    );
    println!(
        "first chunk p99 added to bare Pingora's: {:.2} ms, target 2 ms\n",
        percentile(&seen.first_chunk, 0.99) - percentile(&base.first_chunk, 0.99)
    );

    println!(
        "memory: {} KiB at start, target 40960 KiB; {} KiB after load; bare Pingora {} KiB after load",
        idle_memory,
        gateway.process.resident(),
        passthrough.resident()
    );
    for (what, request) in [
        ("forwarded", gateway.chat("chat-mock/idle", true, &[])),
        (
            "translated",
            gateway.chat(
                "chat-mock/idle",
                true,
                &[("IC-Smith-Id", &gateway.smith("chat-mock/idle").await?)],
            ),
        ),
    ] {
        let before = gateway.process.resident();
        let mut open = Vec::new();
        for _ in 0..options.streams {
            let mut socket = tokio::net::TcpStream::connect(gateway.address).await?;
            tokio::io::AsyncWriteExt::write_all(&mut socket, &request).await?;
            open.push(socket);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let each =
            gateway.process.resident().saturating_sub(before) as f64 / options.streams as f64;
        println!("{what}: {each:.1} KiB for each idle open stream, target 24 KiB");
        drop(open);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    let mut cancelled = Vec::new();
    for _ in 0..20 {
        let mut socket = tokio::net::TcpStream::connect(gateway.address).await?;
        let request = gateway.chat("chat-mock/idle", true, &[]);
        tokio::io::AsyncWriteExt::write_all(&mut socket, &request).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let left = client::now_nanos();
        drop(socket);
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancelled.push(hung_up_at(provider).await?.saturating_sub(left) as f64 / 1e6);
    }
    cancelled.sort_by(f64::total_cmp);
    println!(
        "client gone to provider call cancelled: p50 {:.2} ms, max {:.2} ms, target 50 ms",
        percentile(&cancelled, 0.5),
        percentile(&cancelled, 1.0)
    );
    println!(
        "cold start to the first answer: {} ms, target 150 ms",
        gateway.cold_start.as_millis()
    );
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
    let number = |name: &str, default: f64| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)?.parse().ok())
            .unwrap_or(default)
    };
    let options = Options {
        seconds: number("--seconds", 2.0),
        rounds: number("--rounds", 3.0) as usize,
        streams: number("--streams", 500.0) as usize,
    };
    threads(2)?.block_on(bench(options))
}
