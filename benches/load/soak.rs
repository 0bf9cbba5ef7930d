//! All kinds of calls for minutes: is memory flat?

use std::time::{Duration, Instant};

use crate::client::throughput;
use crate::gateway::Smithgate;
use crate::roles::Failure;

/// Calls in turns for `minutes`; prints the resident memory as it goes, and how it grew in the
/// second half.
pub async fn soak(gateway: &Smithgate, minutes: f64) -> Result<(), Failure> {
    let smith = gateway.smith("chat-mock/m").await?;
    let requests = [
        gateway.chat("chat-mock/m", false, &[]),
        gateway.chat("chat-mock/m", true, &[]),
        gateway.chat("anthropic-mock/m", true, &[]),
        gateway.chat("responses-mock/m", true, &[]),
        gateway.chat("", true, &[("IC-Smith-Id", &smith)]),
        gateway.native(&smith),
    ];
    let time = Duration::from_secs_f64(minutes * 60.0);
    let step = (time / 20).max(Duration::from_secs(1));
    let started = Instant::now();
    let mut seen = Vec::new();
    println!("| minutes | answers a second | resident KiB |");
    println!("| ------: | ---------------: | -----------: |");
    while started.elapsed() < time {
        let rate = throughput(gateway.address, &requests, 32, step).await?;
        let minutes = started.elapsed().as_secs_f64() / 60.0;
        let resident = gateway.process.resident();
        println!("| {minutes:>7.1} | {rate:>16.0} | {resident:>12} |");
        seen.push((minutes, resident as f64));
    }
    let half = &seen[seen.len() / 2..];
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (sum, n) = values.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
        sum / f64::max(n, 1.0)
    };
    let at = mean(&mut half.iter().map(|(x, _)| *x));
    let level = mean(&mut half.iter().map(|(_, y)| *y));
    let (over, under) = half.iter().fold((0.0, 0.0), |(over, under), (x, y)| {
        (over + (x - at) * (y - level), under + (x - at) * (x - at))
    });
    let slope = if under > 0.0 { over / under } else { 0.0 };
    println!("second half: {level:.0} KiB, {slope:+.0} KiB a minute\n");
    Ok(())
}
