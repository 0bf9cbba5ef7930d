//! Smithgate as it is installed: the real binary, the default configuration, a store of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{once, post};
use crate::roles::{Failure, Process, free_address};

pub struct Smithgate {
    pub process: Process,
    pub address: SocketAddr,
    pub token: String,
    /// From the start of the process to the end of its first answer.
    pub cold_start: Duration,
}

/// A configuration that names the mock provider under all its wires, and nothing else but
/// addresses and `workers` (0: as many as there are cores).
pub fn configure(dir: &Path, provider: SocketAddr, workers: usize) -> Result<PathBuf, Failure> {
    let mut config = format!(
        "data_dir = {:?}\n[server]\nlisten = \"{}\"\nworkers = {workers}\n[metrics]\nlisten = \"{}\"\n",
        dir.join("data"),
        free_address()?,
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
    Ok(file)
}

/// Where the gateway of this configuration listens.
fn listen_of(file: &Path) -> Result<SocketAddr, Failure> {
    let config = std::fs::read_to_string(file)?;
    let listen = config.split("listen = \"").nth(1);
    let address = listen.and_then(|rest| rest.split('"').next());
    Ok(address.ok_or("no address")?.parse()?)
}

/// Starts the binary; the token is there at the first start on an empty store.
fn launch(file: &Path) -> Result<(Process, Option<String>), Failure> {
    // Another build can be measured by the same bench.
    let binary = std::env::var("BENCH_SMITHGATE");
    let binary = binary.unwrap_or_else(|_| env!("CARGO_BIN_EXE_smithgate").to_owned());
    let log = std::fs::File::create(file.with_extension("log"))?;
    let mut child = Command::new(binary)
        .arg("--config")
        .arg(file)
        .stdout(Stdio::piped())
        .stderr(log)
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
    Err(std::fs::read_to_string(file.with_extension("log"))?.into())
}

impl Smithgate {
    /// Starts on an empty store in `dir`.
    pub async fn start(dir: &Path, provider: SocketAddr, workers: usize) -> Result<Self, Failure> {
        let file = configure(dir, provider, workers)?;
        // The first start makes keys; the second is the one that a restart sees.
        let (first, token) = launch(&file)?;
        drop(first);
        Self::restart(&file, token.ok_or("no token at the first start")?).await
    }

    /// Starts on the store that `file` names, whose tenant has `token`.
    pub async fn restart(file: &Path, token: String) -> Result<Self, Failure> {
        let started = Instant::now();
        let (process, _) = launch(file)?;
        let mut this = Self {
            process,
            address: listen_of(file)?,
            token,
            cold_start: Duration::ZERO,
        };
        this.check(&this.chat("chat-mock/m", false, &[])).await?;
        this.cold_start = started.elapsed();
        Ok(this)
    }

    pub fn chat(&self, model: &str, stream: bool, headers: &[(&str, &str)]) -> Vec<u8> {
        chat_as(&self.token, model, stream, headers)
    }

    /// The answer to a request that must succeed.
    pub async fn check(&self, request: &[u8]) -> Result<String, Failure> {
        let (status, text) = once(self.address, request).await?;
        if !(200..300).contains(&status) || text.contains("\"error\"") {
            return Err(text.into());
        }
        Ok(text)
    }

    /// The id of a new smith.
    pub async fn smith(&self, model: &str) -> Result<String, Failure> {
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

    /// A run of `smith` on the native wire.
    pub fn native(&self, smith: &str) -> Vec<u8> {
        let bearer = format!("Bearer {}", self.token);
        post(
            &format!("/v1/smiths/{smith}/runs"),
            &[("authorization", &bearer), ("accept", "text/event-stream")],
            "{\"input\":[{\"role\":\"user\",\"content\":\"How do tokens flow?\"}],\"stream\":true}",
        )
    }
}

/// A chat call with this token.
pub fn chat_as(token: &str, model: &str, stream: bool, headers: &[(&str, &str)]) -> Vec<u8> {
    let bearer = format!("Bearer {token}");
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend_from_slice(headers);
    post("/v1/chat/completions", &all, &chat_body(model, stream))
}

pub fn chat_body(model: &str, stream: bool) -> String {
    format!(
        "{{\"model\":\"{model}\",\"stream\":{stream},\"messages\":[{{\"role\":\"system\",\"content\":\"You are brief.\"}},{{\"role\":\"user\",\"content\":\"How do tokens flow?\"}}]}}"
    )
}
