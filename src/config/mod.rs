//! Typed configuration: defaults, then a TOML file, then the environment, then flags.
//!
//! Lives here: [`Config`], loading and checking. Imports nothing of ours. `figment` because it
//! merges the three sources and its errors name the key and the source at fault.

mod model_rules;
mod origin;

pub use model_rules::{
    Allowed, CallIds, Dialect, Effort, Efforts, LimitName, MediaKind, MediaKinds, ModelRule, Patch,
    Replay, Rules, Structured, SystemRole, Thinking,
};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

pub use origin::{parse_origin, parse_page};

/// Environment variables that set keys: `SMITHGATE_SERVER__LISTEN` sets `server.listen`.
pub const ENV_PREFIX: &str = "SMITHGATE_";
/// Read when no `--config` is given and the file exists.
pub const DEFAULT_FILE: &str = "config/smithgate.toml";

/// The whole configuration; `config/smithgate.example.toml` explains each key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the embedded store and generated keys live.
    pub data_dir: PathBuf,
    pub server: Server,
    pub metrics: Metrics,
    pub store: Store,
    pub bus: Bus,
    pub secrets: Secrets,
    pub auth: Auth,
    pub egress: Egress,
    pub tools: Tools,
    pub sandbox: Sandbox,
    pub limits: Limits,
    pub models: Models,
    pub providers: BTreeMap<String, Provider>,
    pub prices: Prices,
    pub retention: Retention,
    pub log: Log,
}

/// Listeners and their limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Plain HTTP/1.1 and h2c.
    pub listen: SocketAddr,
    pub tls: Option<Tls>,
    /// Where clients and browsers reach this gateway, for links that lead back to it.
    pub public_url: Option<String>,
    /// Whether `X-Forwarded-Proto` and `X-Forwarded-Host` are believed: only behind a proxy that
    /// sets both itself.
    pub trust_forwarded: bool,
    /// Origins that browsers may be sent back to after an OAuth authorization, beside those that a
    /// tenant registers.
    pub return_origins: Vec<String>,
    /// Worker threads; 0 means one for each core.
    pub workers: usize,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// What all request bodies together may take of this node's memory, in bytes; more wait a
    /// little, then are answered 503 `service_overloaded`.
    pub max_bytes_in_flight: usize,
    /// Connections at once; more are closed. 0: three quarters of the files that this process may
    /// have open.
    pub max_connections: usize,
    /// Time for a whole request header to arrive, from its first byte on, in seconds.
    pub header_timeout_s: u64,
    /// Time for a whole request body to arrive, in seconds.
    pub body_timeout_s: u64,
    /// How fast an uploaded file must arrive at least, in bytes a second, after that time.
    pub min_upload_rate: u64,
    /// Time a client may take to accept one write, in seconds.
    pub write_timeout_s: u64,
    /// Silence of a stream after which a comment is written, in milliseconds.
    pub keep_alive_ms: u64,
    /// Time between two requests on one connection, in seconds.
    pub keepalive_timeout_s: u64,
    /// After SIGTERM: the process ends within this time, in seconds; streams in flight may go on for
    /// three quarters of it, or until five seconds before its end.
    pub drain_timeout_s: u64,
}

/// A TLS listener with HTTP/2.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub listen: SocketAddr,
    /// PEM certificate chain.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

/// The Prometheus listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Absent: no metrics listener.
    pub listen: Option<SocketAddr>,
    /// When set, scrapes need it as a bearer token.
    pub token: Option<String>,
}

/// Where rows live.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `postgres://…`; absent: SQLite in `data_dir`.
    pub url: Option<String>,
    /// Connections to PostgreSQL, or readers of SQLite; 0 means a default by engine.
    pub connections: u32,
}

/// The way between nodes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bus {
    /// `redis://…` or `rediss://…`; absent: nodes see each other's work in the store.
    pub redis_url: Option<String>,
}

/// Encryption at rest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// 32 bytes in base64; absent: made at first start and kept in `data_dir`.
    pub master_key: Option<String>,
}

/// For how many days things are kept; 0 keeps them for ever.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Runs that have ended, with their approvals and traces; threads forget them too.
    pub runs_days: u32,
    /// The frames of runs, from which streams are shown again.
    pub frames_days: u32,
    pub events_days: u32,
    /// Deliveries to webhooks that have ended.
    pub deliveries_days: u32,
    pub traces_days: u32,
    /// Entries of the usage ledger; sums stay.
    pub usage_events_days: u32,
}

/// Tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// The `iss` claim of tokens minted here.
    pub issuer: String,
    /// Verified tokens kept in memory.
    pub cache_entries: u64,
    /// How long an MCP host that was let in may stay, however much it is used, in days.
    pub grant_days: u32,
    /// Registered MCP hosts that nobody let in yet; the oldest go.
    pub max_unused_clients: u32,
}

/// Outgoing connections to addresses that tenants name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// Networks (CIDR) that tenants' URLs may reach although they are private.
    pub allow_networks: Vec<ipnet::IpNet>,
}

/// Tools of smiths.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tools {
    /// Where `web_search` asks: `GET <url>?q=…&format=json`, answered as SearXNG does.
    pub web_search_url: Option<String>,
    /// Sent to it as a bearer token.
    pub web_search_key: Option<String>,
    /// How long a human may take for an approval, in seconds; then it is taken for rejected.
    pub approval_timeout_s: u64,
    /// Calls to one MCP server at a time, on each node.
    pub mcp_concurrency: usize,
    /// How long a call to an MCP server may take, in seconds; waiting for a human does not count.
    pub call_timeout_s: u64,
}

impl Default for Tools {
    fn default() -> Self {
        Self {
            web_search_url: None,
            web_search_key: None,
            approval_timeout_s: 7 * 24 * 3600,
            mcp_concurrency: 16,
            call_timeout_s: 60,
        }
    }
}

/// Child processes that parse what strangers wrote: documents, pages, archives, large schemas.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// Children at once; the first job starts one.
    pub workers: usize,
    /// What each of them may take, in MiB.
    pub memory_mb: u64,
    /// How long a document may take to become text, in seconds.
    pub document_timeout_s: u64,
    /// The program that is started; absent: this one.
    pub program: Option<PathBuf>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            workers: 2,
            memory_mb: 256,
            document_timeout_s: 60,
            program: None,
        }
    }
}

/// Limits on runs and provider calls.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Time to connect to a provider, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Time until a provider's response header, in milliseconds.
    pub first_byte_timeout_ms: u64,
    /// The same for an answer that is not streamed, whose header comes when all of it is there.
    /// A stream may be kept alive by comments alone for as long.
    pub whole_answer_timeout_ms: u64,
    /// Longest silence inside a provider's stream, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Largest single event of a provider's stream, in bytes.
    pub max_event_bytes: usize,
    /// Largest whole answer of a provider, in bytes.
    pub max_answer_bytes: usize,
    /// How far a run may be ahead of a slow client, in bytes.
    pub max_lead_bytes: usize,
    /// Recent runs of a thread that a turn sees.
    pub thread_turns: u32,
    /// Largest file that is kept, in bytes.
    pub max_file_bytes: usize,
    /// Runs at once on this node; more are answered 503 `service_overloaded`.
    pub max_concurrent_runs: usize,
    /// New model calls and runs are answered 503 `service_overloaded` while what is ready waits
    /// longer than this for a worker, in milliseconds; 0: never.
    pub max_worker_lag_ms: u64,
    /// A node that shows no life for this long loses its runs and other work to others, in
    /// milliseconds.
    pub lease_ms: u64,
    pub rate: Rates,
    pub concurrency: Concurrency,
}

/// Requests that each of them may make in a minute, on each node; 0 means no limit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    pub tenant_per_minute: u32,
    pub token_per_minute: u32,
    pub smith_per_minute: u32,
}

/// Runs and routed calls that each of them may have at once, on each node; 0 means no limit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Concurrency {
    pub tenant_runs: usize,
    pub token_runs: usize,
    pub smith_runs: usize,
}

/// Which models exist under which names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    /// The model of smiths whose configuration names none.
    pub default: Option<String>,
    /// The model of embeddings that name none, and of new vector stores.
    pub embedding: Option<String>,
    pub aliases: BTreeMap<String, Alias>,
}

/// A name for an ordered list of targets; the next is tried when one fails before the first piece of
/// its content.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    pub targets: Vec<Target>,
}

/// One target of an alias.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `<provider>/<model>`.
    pub model: String,
    /// Repeats on this target before the next one is tried.
    #[serde(default)]
    pub retries: u32,
    /// Time until the first byte, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// The wire that a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderWire {
    OpenaiChat,
    OpenaiResponses,
    Anthropic,
    Gemini,
}

/// A provider that the operator defines for all tenants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    pub wire: ProviderWire,
    /// Up to and with the version segment, for example `https://api.openai.com/v1`.
    pub base_url: String,
    /// A key for all tenants ("hosted"); tenants' own keys come first.
    #[serde(default)]
    pub api_key: Option<String>,
    /// Whether calls need a key at all.
    #[serde(default = "yes")]
    pub needs_key: bool,
    /// Model ids to list in `GET /v1/models`.
    #[serde(default)]
    pub models: Vec<String>,
    /// Whether `stream_options.include_usage` may be sent to it.
    #[serde(default = "yes")]
    pub stream_usage: bool,
    /// Whether it speaks OpenAI's Responses too, beside Chat Completions and under the same base
    /// URL, so that calls on that wire are passed on.
    #[serde(default)]
    pub responses: bool,
    /// Another provider's name whose keys serve this one too.
    #[serde(default)]
    pub keys_of: Option<String>,
    /// The header that carries the key as it is, for example `api-key` at Azure; else the wire's
    /// own.
    #[serde(default)]
    pub auth_header: Option<String>,
    /// What its models take, where that is not what is known of them.
    #[serde(default)]
    pub rules: Vec<ModelRule>,
}

/// What tokens cost; budgets and the `cost` of runs need it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// Of all prices and budgets: three letters (ISO 4217).
    pub currency: String,
    /// By `<provider>/<model>`, by model, or by what a model's id begins with.
    pub models: BTreeMap<String, Price>,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            currency: "EUR".to_owned(),
            models: BTreeMap::new(),
        }
    }
}

/// A model's prices for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub input: f64,
    pub output: f64,
    /// Absent: as fresh input.
    #[serde(default)]
    pub cache_read: Option<f64>,
    /// Absent: as fresh input.
    #[serde(default)]
    pub cache_write: Option<f64>,
}

/// Logging.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: LogFormat,
    /// A `tracing` filter, for example `info,smithgate=debug`.
    pub filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

fn yes() -> bool {
    true
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bus: Bus::default(),
            data_dir: PathBuf::from("data"),
            server: Server::default(),
            metrics: Metrics::default(),
            store: Store::default(),
            secrets: Secrets::default(),
            auth: Auth::default(),
            egress: Egress::default(),
            tools: Tools::default(),
            sandbox: Sandbox::default(),
            limits: Limits::default(),
            models: Models::default(),
            providers: BTreeMap::new(),
            prices: Prices::default(),
            retention: Retention::default(),
            log: Log::default(),
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            runs_days: 365,
            frames_days: 30,
            events_days: 90,
            deliveries_days: 30,
            traces_days: 90,
            usage_events_days: 400,
        }
    }
}

impl Default for Models {
    fn default() -> Self {
        Self {
            default: None,
            embedding: Some("openai/text-embedding-3-small".to_owned()),
            aliases: BTreeMap::new(),
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: None,
            public_url: None,
            trust_forwarded: false,
            return_origins: Vec::new(),
            workers: 0,
            max_body_bytes: 32 * 1024 * 1024,
            max_bytes_in_flight: 256 * 1024 * 1024,
            max_connections: 0,
            header_timeout_s: 20,
            body_timeout_s: 60,
            min_upload_rate: 8 * 1024,
            write_timeout_s: 60,
            keep_alive_ms: 15_000,
            keepalive_timeout_s: 75,
            drain_timeout_s: 30,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 9090))),
            token: None,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            issuer: "smithgate".to_owned(),
            cache_entries: 100_000,
            grant_days: 90,
            max_unused_clients: 10_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 5_000,
            first_byte_timeout_ms: 120_000,
            whole_answer_timeout_ms: 600_000,
            idle_timeout_ms: 120_000,
            max_event_bytes: 8 * 1024 * 1024,
            max_answer_bytes: 64 * 1024 * 1024,
            max_lead_bytes: 1024 * 1024,
            thread_turns: 50,
            max_file_bytes: 512 * 1024 * 1024,
            max_concurrent_runs: 20_000,
            max_worker_lag_ms: 40,
            lease_ms: 30_000,
            rate: Rates::default(),
            concurrency: Concurrency::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
        }
    }
}

/// Why the configuration cannot be used. Each message names the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration file {0} does not exist")]
    NoFile(PathBuf),
    #[error("{0}")]
    Read(Box<figment::Error>),
    #[error("{key}: {message}")]
    Value { key: String, message: String },
}

fn bad(key: impl Into<String>, message: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        key: key.into(),
        message: message.into(),
    }
}

impl Config {
    /// Merges defaults, `file` (or [`DEFAULT_FILE`] when it exists), the environment and
    /// `overrides` (dotted key, value), then checks the result.
    pub fn load(file: Option<&Path>, overrides: &[(&str, String)]) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        match file {
            Some(path) if !path.is_file() => return Err(ConfigError::NoFile(path.to_owned())),
            Some(path) => figment = figment.merge(Toml::file_exact(path)),
            None => figment = figment.merge(Toml::file(DEFAULT_FILE)),
        }
        // Keys are inside sections, but for one. Other variables with our prefix are not ours:
        // Kubernetes sets SMITHGATE_PORT for a service of that name.
        let env = Env::prefixed(ENV_PREFIX)
            .filter(|key| key.as_str().contains("__") || key == "DATA_DIR")
            .split("__")
            .lowercase(true);
        figment = figment.merge(env);
        for (key, value) in overrides {
            figment = figment.merge((*key, value.as_str()));
        }
        let config: Self = figment
            .extract()
            .map_err(|e| ConfigError::Read(Box::new(e)))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what types cannot say.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.server.keep_alive_ms == 0 {
            return Err(bad("server.keep_alive_ms", "must be above 0"));
        }
        if self.server.max_body_bytes == 0 {
            return Err(bad("server.max_body_bytes", "must be above 0"));
        }
        if self.server.max_bytes_in_flight < self.server.max_body_bytes {
            return Err(bad(
                "server.max_bytes_in_flight",
                "must be at least server.max_body_bytes",
            ));
        }
        if self.sandbox.workers == 0 || self.sandbox.workers > 256 {
            return Err(bad("sandbox.workers", "must be 1 to 256"));
        }
        if !(64..=65_536).contains(&self.sandbox.memory_mb) {
            return Err(bad("sandbox.memory_mb", "must be 64 to 65536"));
        }
        if !(1..=500).contains(&self.sandbox.document_timeout_s) {
            return Err(bad("sandbox.document_timeout_s", "must be 1 to 500"));
        }
        if let Some(public) = &self.server.public_url {
            let url =
                url::Url::parse(public).map_err(|e| bad("server.public_url", e.to_string()))?;
            if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
                return Err(bad("server.public_url", "must be an http(s) URL"));
            }
        }
        for (at, origin) in self.server.return_origins.iter().enumerate() {
            parse_origin(origin).map_err(|why| bad(format!("server.return_origins[{at}]"), why))?;
        }
        if self.auth.grant_days == 0 {
            return Err(bad("auth.grant_days", "must be above 0"));
        }
        if let Some(tls) = &self.server.tls {
            for (key, path) in [("server.tls.cert", &tls.cert), ("server.tls.key", &tls.key)] {
                if !path.is_file() {
                    return Err(bad(key, format!("{} does not exist", path.display())));
                }
            }
            if tls.listen == self.server.listen {
                return Err(bad("server.tls.listen", "is the same as server.listen"));
            }
        }
        if let Some(url) = &self.store.url
            && !(url.starts_with("postgres://") || url.starts_with("postgresql://"))
        {
            return Err(bad("store.url", "must begin with postgres://"));
        }
        if let Some(master) = &self.secrets.master_key {
            crate::secrets::Vault::from_base64(master)
                .map_err(|e| bad("secrets.master_key", e.to_string()))?;
        }
        for (name, provider) in &self.providers {
            let key = format!("providers.{name}");
            if !is_provider_name(name) {
                return Err(bad(key, "a provider's name is [a-z0-9][a-z0-9_-]*"));
            }
            let url = url::Url::parse(&provider.base_url)
                .map_err(|e| bad(format!("{key}.base_url"), e.to_string()))?;
            if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
                return Err(bad(format!("{key}.base_url"), "must be an http(s) URL"));
            }
            if let Some(header) = &provider.auth_header
                && http::HeaderName::try_from(header.as_str()).is_err()
            {
                return Err(bad(format!("{key}.auth_header"), "is no name of a header"));
            }
        }
        if self.prices.currency.len() != 3
            || !self.prices.currency.bytes().all(|b| b.is_ascii_uppercase())
        {
            return Err(bad("prices.currency", "must be three capital letters"));
        }
        for (name, price) in &self.prices.models {
            let all = [
                Some(price.input),
                Some(price.output),
                price.cache_read,
                price.cache_write,
            ];
            if all.into_iter().flatten().any(|p| !p.is_finite() || p < 0.0) {
                return Err(bad(format!("prices.models.{name}"), "a price is below 0"));
            }
        }
        for (name, alias) in &self.models.aliases {
            let key = format!("models.aliases.{name}");
            if name.contains('/') {
                return Err(bad(key, "an alias has no '/'"));
            }
            if alias.targets.is_empty() {
                return Err(bad(format!("{key}.targets"), "is empty"));
            }
            for (at, target) in alias.targets.iter().enumerate() {
                if !target.model.contains('/') {
                    return Err(bad(
                        format!("{key}.targets[{at}].model"),
                        "must be <provider>/<model>",
                    ));
                }
            }
        }
        if tracing_subscriber::EnvFilter::try_new(&self.log.filter).is_err() {
            return Err(bad("log.filter", "is no tracing filter"));
        }
        Ok(())
    }
}

/// Whether `name` can name a provider.
pub fn is_provider_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("c.toml");
        let error_of = |text: &str| {
            std::fs::write(&file, text).expect("written");
            Config::load(Some(&file), &[])
                .expect_err("refused")
                .to_string()
        };
        assert!(error_of("[server]\nlisten = 5").contains("server.listen"));
        assert!(error_of("[server]\nlissten = \"x\"").contains("lissten"));
        assert!(error_of("[store]\nurl = \"mysql://x\"").contains("store.url"));
        assert!(
            error_of("[models.aliases.a]\ntargets=[{model=\"x\"}]")
                .contains("models.aliases.a.targets[0].model")
        );
        assert!(
            error_of("[providers.p]\nwire=\"anthropic\"\nbase_url=\"nope\"")
                .contains("providers.p.base_url")
        );
        assert!(matches!(
            Config::load(Some(Path::new("/no/such")), &[]),
            Err(ConfigError::NoFile(_))
        ));
    }

    #[test]
    fn flags_win() {
        let config = Config::load(None, &[("server.listen", "127.0.0.1:1".into())]).expect("valid");
        assert_eq!(config.server.listen.port(), 1);
    }

    #[test]
    fn the_example_file_is_valid() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/smithgate.example.toml");
        Config::load(Some(&example), &[]).expect("the example is valid");
    }
}
