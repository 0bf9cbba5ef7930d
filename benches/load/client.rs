//! The load generator: raw HTTP/1.1 over kept connections, so that it costs little beside what it
//! measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mock::SENT_AT;

/// Nanoseconds since the Unix epoch: one clock for all processes of this machine.
pub fn now_nanos() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64)
}

/// The `content-length` of a message's head.
pub fn content_length(head: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(head).ok()?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
}

/// A request, ready to be written.
pub fn post(path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut out = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out.push_str(body);
    out.into_bytes()
}

fn cut() -> std::io::Error {
    std::io::ErrorKind::UnexpectedEof.into()
}

/// Reads one answer into `buf`; its status.
pub async fn answer(socket: &mut TcpStream, buf: &mut Vec<u8>) -> std::io::Result<u16> {
    buf.clear();
    let head_end = loop {
        if let Some(at) = memchr::memmem::find(buf, b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(buf).await? == 0 {
            return Err(cut());
        }
    };
    let status = std::str::from_utf8(&buf[9..12])
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    match content_length(&buf[..head_end]) {
        Some(length) => {
            while buf.len() < head_end + length {
                if socket.read_buf(buf).await? == 0 {
                    return Err(cut());
                }
            }
        }
        // A chunked body; nothing follows its end, as requests are not pipelined.
        None => {
            while !buf.ends_with(b"0\r\n\r\n") {
                if socket.read_buf(buf).await? == 0 {
                    return Err(cut());
                }
            }
        }
    }
    Ok(status)
}

/// One call on a connection of its own: status and the whole message.
pub async fn once(address: SocketAddr, request: &[u8]) -> std::io::Result<(u16, String)> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(request).await?;
    let mut buf = Vec::new();
    let status = answer(&mut socket, &mut buf).await?;
    Ok((status, String::from_utf8_lossy(&buf).into_owned()))
}

/// Answers per second over `connections`, for `time`. Each connection goes through all requests,
/// from a place of its own.
pub async fn throughput(
    address: SocketAddr,
    requests: &[Vec<u8>],
    connections: usize,
    time: Duration,
) -> std::io::Result<f64> {
    let started = Instant::now();
    let mut tasks = Vec::new();
    let requests: Arc<[Vec<u8>]> = requests.into();
    for n in 0..connections {
        let requests = requests.clone();
        tasks.push(tokio::spawn(async move {
            let mut socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let mut buf = Vec::with_capacity(64 * 1024);
            let mut answered = 0u64;
            let mut at = n * requests.len() / connections;
            while started.elapsed() < time {
                socket.write_all(&requests[at % requests.len()]).await?;
                at += 1;
                let status = answer(&mut socket, &mut buf).await?;
                if status != 200 {
                    return Err(std::io::Error::other(format!("status {status}")));
                }
                answered += 1;
            }
            Ok(answered)
        }));
    }
    let mut answered = 0;
    for task in tasks {
        answered += task.await.map_err(std::io::Error::other)??;
    }
    Ok(answered as f64 / started.elapsed().as_secs_f64())
}

/// How long each request takes, in milliseconds, one after the other on one connection.
pub async fn timed(address: SocketAddr, requests: &[Vec<u8>]) -> std::io::Result<Vec<f64>> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (mut buf, mut times) = (Vec::new(), Vec::new());
    for request in requests {
        let begun = Instant::now();
        socket.write_all(request).await?;
        match answer(&mut socket, &mut buf).await? {
            200 => times.push(begun.elapsed().as_secs_f64() * 1e3),
            _ => {
                let text = String::from_utf8_lossy(&buf).into_owned();
                return Err(std::io::Error::other(text));
            }
        }
    }
    Ok(times)
}

/// What many slow streams at once saw, in milliseconds, sorted.
pub struct Paced {
    /// From the request to the first chunk.
    pub first_chunk: Vec<f64>,
    /// From a chunk's sending to its arrival.
    pub late: Vec<f64>,
    /// What a stream's chunks are late by on the average, of the stream that is latest.
    pub latest_stream: f64,
    /// Streams that were answered 503 with `Retry-After`.
    pub refused: usize,
}

/// Follows `streams` slow streams from start to end.
pub async fn paced(address: SocketAddr, request: &[u8], streams: usize) -> std::io::Result<Paced> {
    let mut tasks = Vec::new();
    for n in 0..streams {
        let request = request.to_vec();
        tasks.push(tokio::spawn(async move {
            let mut socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            // Arrivals spread over a second, as those of people do.
            tokio::time::sleep(Duration::from_millis(n as u64 * 1000 / streams as u64)).await;
            let asked = Instant::now();
            socket.write_all(&request).await?;
            let mut buf = Vec::with_capacity(64 * 1024);
            let (mut first, mut late, mut seen) = (None, Vec::new(), 0);
            while !buf.ends_with(b"0\r\n\r\n") {
                if socket.read_buf(&mut buf).await? == 0 {
                    return Err(cut());
                }
                if buf.starts_with(b"HTTP/1.1 503") {
                    let text = String::from_utf8_lossy(&buf).to_ascii_lowercase();
                    return match text.contains("retry-after") {
                        true => Ok(None),
                        false => Err(std::io::Error::other(text)),
                    };
                }
                let now = now_nanos();
                while let Some(at) = memchr::memmem::find(&buf[seen..], SENT_AT.as_bytes()) {
                    let from = seen + at + SENT_AT.len();
                    let Some(length) = buf[from..].iter().position(|b| *b == b';') else {
                        break;
                    };
                    let sent: u64 = std::str::from_utf8(&buf[from..from + length])
                        .ok()
                        .and_then(|text| text.parse().ok())
                        .unwrap_or(now);
                    first.get_or_insert(asked.elapsed().as_secs_f64() * 1e3);
                    late.push(now.saturating_sub(sent) as f64 / 1e6);
                    seen = from + length;
                }
            }
            Ok(Some((first.unwrap_or(f64::NAN), late)))
        }));
    }
    let (mut first_chunk, mut late, mut refused) = (Vec::new(), Vec::new(), 0);
    let mut latest_stream = 0.0;
    for task in tasks {
        match task.await.map_err(std::io::Error::other)?? {
            Some((first, chunks)) => {
                first_chunk.push(first);
                let mean = chunks.iter().sum::<f64>() / chunks.len() as f64;
                latest_stream = f64::max(latest_stream, mean);
                late.extend(chunks);
            }
            None => refused += 1,
        }
    }
    first_chunk.sort_by(f64::total_cmp);
    late.sort_by(f64::total_cmp);
    Ok(Paced {
        first_chunk,
        late,
        latest_stream,
        refused,
    })
}

/// The value that `share` of the sorted `values` do not exceed.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let at = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len().max(1)) - 1;
    values.get(at).copied().unwrap_or(f64::NAN)
}
