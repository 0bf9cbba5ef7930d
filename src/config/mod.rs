//! Typed configuration: defaults, then a TOML file, then the environment, then flags.
//!
//! Lives here: [`Config`], loading and checking; the sections, a file each. Imports nothing of ours. `figment` because it
//! merges the three sources and its errors name the key and the source at fault.

mod auth;
mod channels;
mod email;
mod limits;
mod log;
mod model_rules;
mod models;
mod origin;
mod presets;
mod prices;
mod server;
mod store;
mod tools;

pub use auth::Auth;
pub use channels::Channels;
pub use email::{Email, Relay, RelayTls};
pub use limits::{Concurrency, Limits, Rates};
pub use log::{Log, LogFormat};
pub use model_rules::{
    Allowed, CallIds, Dialect, Effort, Efforts, LimitName, MediaKind, MediaKinds, ModelRule, Patch,
    Replay, Rules, Structured, SystemRole, Thinking,
};
pub use models::{Alias, Models, Passthrough, Provider, ProviderWire, Target, cannot_forward};
pub use presets::presets;
pub use prices::{LongContext, Price, PriceList, Prices};
pub use server::{Metrics, Server, Tls};
pub use store::{Bus, Retention, Secrets, Store};
pub use tools::{Egress, Sandbox, Tools};

use std::collections::BTreeMap;
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
    pub channels: Channels,
    pub sandbox: Sandbox,
    pub limits: Limits,
    pub models: Models,
    pub providers: BTreeMap<String, Provider>,
    pub prices: Prices,
    pub retention: Retention,
    pub log: Log,
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
            channels: Channels::default(),
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
        let config: Self = presets::completed(figment)
            .map_err(ConfigError::Read)?
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
        self.channels
            .email
            .check()
            .map_err(|(key, why)| bad(format!("channels.email.{key}"), why))?;
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
        if let Some(rate) = self.prices.usd_rate
            && !(rate.is_finite() && rate > 0.0)
        {
            return Err(bad("prices.usd_rate", "must be above 0"));
        }
        for (name, price) in &self.prices.models {
            if !price.is_sane() {
                return Err(bad(
                    format!("prices.models.{name}"),
                    "a price is below 0, or the longer context comes first",
                ));
            }
        }
        for (at, name) in self.models.forward_headers.iter().enumerate() {
            if let Some(why) = cannot_forward(name) {
                return Err(bad(format!("models.forward_headers[{at}]"), why));
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
            if alias.cache_seconds > crate::answers::MAX_SECONDS {
                let key = format!("{key}.cache_seconds");
                return Err(bad(key, "is longer than 30 days"));
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
