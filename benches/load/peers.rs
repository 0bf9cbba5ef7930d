//! Other gateways in front of the same mock provider, each when it is installed: nginx, LiteLLM
//! (`BENCH_LITELLM`: its command) and Portkey's gateway (`BENCH_PORTKEY`: its `start-server.js`).

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::client::{once, post};
use crate::gateway::chat_body;
use crate::roles::{Failure, Process, free_address, wait_for};

pub struct Peer {
    pub name: &'static str,
    pub process: Process,
    pub address: SocketAddr,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    model: &'static str,
}

impl Peer {
    /// A chat call through it.
    pub fn chat(&self, stream: bool) -> Vec<u8> {
        let headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        post(self.path, &headers, &chat_body(self.model, stream))
    }
}

fn quiet(command: &mut Command, log: &Path) -> Result<Process, Failure> {
    let log = std::fs::File::create(log)?;
    let child = command
        .stdout(log.try_clone()?)
        .stderr(log)
        .stdin(Stdio::null());
    Ok(Process(child.spawn()?))
}

fn nginx(dir: &Path, provider: SocketAddr, threads: usize) -> Result<Peer, Failure> {
    let address = free_address()?;
    let config = format!(
        "worker_processes {threads};\ndaemon off;\npid {pid};\nerror_log stderr;\nevents {{ worker_connections 8192; }}\nhttp {{\naccess_log off;\nupstream provider {{ server {provider}; keepalive 256; keepalive_requests 1000000; }}\nserver {{ listen {address}; keepalive_requests 1000000;\nlocation / {{ proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off; }}\n}}\n}}\n",
        pid = dir.join("nginx.pid").display(),
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, config)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(&file);
    Ok(Peer {
        name: "nginx",
        process: quiet(&mut command, &dir.join("nginx.log"))?,
        address,
        path: "/chat/chat/completions",
        headers: Vec::new(),
        model: "m",
    })
}

fn litellm(dir: &Path, provider: SocketAddr, command: &str) -> Result<Peer, Failure> {
    let address = free_address()?;
    let config = format!(
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/m\n      api_base: http://{provider}/chat\n      api_key: none\ngeneral_settings:\n  master_key: sk-bench\n"
    );
    let file = dir.join("litellm.yaml");
    std::fs::write(&file, config)?;
    let mut command = Command::new(command);
    command
        .arg("--config")
        .arg(&file)
        .args(["--host", "127.0.0.1", "--port"])
        .arg(address.port().to_string())
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .env("LITELLM_TELEMETRY", "False");
    Ok(Peer {
        name: "LiteLLM",
        process: quiet(&mut command, &dir.join("litellm.log"))?,
        address,
        path: "/v1/chat/completions",
        headers: vec![("authorization", "Bearer sk-bench".to_owned())],
        model: "m",
    })
}

fn portkey(dir: &Path, provider: SocketAddr, script: &str) -> Result<Peer, Failure> {
    let address = free_address()?;
    let node = std::env::var("BENCH_NODE").unwrap_or_else(|_| "node".to_owned());
    let mut command = Command::new(node);
    command
        .arg(script)
        .arg("--headless")
        .arg(format!("--port={}", address.port()));
    Ok(Peer {
        name: "Portkey",
        process: quiet(&mut command, &dir.join("portkey.log"))?,
        address,
        path: "/v1/chat/completions",
        headers: vec![
            ("x-portkey-provider", "openai".to_owned()),
            ("authorization", "Bearer none".to_owned()),
            ("x-portkey-custom-host", format!("http://{provider}/chat")),
        ],
        model: "m",
    })
}

/// Those that are installed and answer; the others are named.
pub async fn start(dir: &Path, provider: SocketAddr, threads: usize) -> Vec<Peer> {
    let tried = [
        ("nginx", nginx(dir, provider, threads)),
        (
            "LiteLLM",
            std::env::var("BENCH_LITELLM")
                .map_err(Into::into)
                .and_then(|command| litellm(dir, provider, &command)),
        ),
        (
            "Portkey",
            std::env::var("BENCH_PORTKEY")
                .map_err(Into::into)
                .and_then(|script| portkey(dir, provider, &script)),
        ),
    ];
    let mut peers = Vec::new();
    for (name, started) in tried {
        let answered = async {
            let peer = started?;
            wait_for(peer.address, Duration::from_secs(120))?;
            let (status, text) = once(peer.address, &peer.chat(false)).await?;
            match status {
                200 => Ok::<_, Failure>(peer),
                _ => Err(text.into()),
            }
        };
        match answered.await {
            Ok(peer) => peers.push(peer),
            Err(why) => println!("without {name}: {why}"),
        }
    }
    peers
}
