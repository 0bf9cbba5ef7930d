//! The list of prices that counts, and `smithgate prices refresh`, which gets a newer one.
//!
//! Lives here: which list is read, and getting another. May import `config`, `run`'s price book,
//! `upstream`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::Method;

use crate::config::{Config, PriceList};
use crate::run::{PriceBook, today};
use crate::upstream::{AddressGuard, Endpoint, Timeouts, Upstream, UpstreamRequest};

/// The list's name in the data directory.
const FILE: &str = "prices.json";
/// The largest list, in bytes: LiteLLM's has 3 MB.
const MAX_LIST: usize = 64 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a newer list is written, and read from.
pub fn file_of(config: &Config) -> PathBuf {
    let own = config.prices.file.clone();
    own.unwrap_or_else(|| config.data_dir.join(FILE))
}

/// The list that counts: the file's where there is one, else that in the box.
///
/// # Errors
/// What is wrong with the file.
pub fn list_of(config: &Config) -> Result<PriceList, String> {
    let file = file_of(config);
    let bad = |why: String| format!("the list of prices {}: {why}", file.display());
    match std::fs::read_to_string(&file) {
        Ok(text) => PriceList::read(&text, &today(), &file.display().to_string()).map_err(bad),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match &config.prices.file {
            Some(_) => Err(bad(error.to_string())),
            None => PriceList::built_in(),
        },
        Err(error) => Err(bad(error.to_string())),
    }
}

/// The book of a gateway.
///
/// # Errors
/// What is wrong with the list.
pub fn book(config: &Config) -> Result<PriceBook, String> {
    let prices = &config.prices;
    if !prices.list {
        return Ok(PriceBook::new(prices, None));
    }
    let list = list_of(config)?;
    match prices.rate() {
        Some(_) => tracing::info!(as_of = list.as_of, models = list.models.len(), "prices"),
        None => tracing::info!(
            "the list of prices is in US dollars: it counts once prices.usd_rate says what a dollar \
             is in {}, or with prices.currency = \"USD\"",
            prices.currency
        ),
    }
    Ok(PriceBook::new(prices, Some(&list)))
}

async fn get(url: &str) -> Result<String, String> {
    let endpoint = Endpoint::parse(url, true)?;
    // The operator names it, at the command line.
    let upstream = Upstream::new(AddressGuard::new(Vec::new()));
    let parsed = url::Url::parse(url).map_err(|error| error.to_string())?;
    let request = UpstreamRequest {
        method: Method::GET,
        path: match parsed.path() {
            "/" => "/",
            _ => "",
        },
        headers: &[],
        body: Bytes::new(),
        repeatable: true,
    };
    let timeouts = Timeouts {
        connect: PATIENCE,
        first_byte: PATIENCE,
        idle: PATIENCE,
    };
    let sent = upstream.send(&endpoint, &request, timeouts).await;
    let mut response = sent.map_err(|error| error.to_string())?;
    if !response.status.is_success() {
        return Err(format!("it answered with {}", response.status));
    }
    let body = response.body(MAX_LIST).await;
    let body = body.map_err(|error| error.to_string())?;
    String::from_utf8(body.to_vec()).map_err(|error| error.to_string())
}

/// Reads the list at `from`, a URL or a file, and writes it where this gateway reads it from. Answers
/// what it has, and where it is.
///
/// # Errors
/// What is wrong with it; then what was there before is still there.
pub async fn refresh(config: &Config, from: &str) -> Result<(PriceList, PathBuf), String> {
    let is_url = from.starts_with("http://") || from.starts_with("https://");
    let text = match is_url {
        true => get(from).await,
        false => std::fs::read_to_string(Path::new(from)).map_err(|error| error.to_string()),
    };
    let list = text.and_then(|text| PriceList::read(&text, &today(), from));
    let list = list.map_err(|why| format!("{from}: {why}"))?;
    let file = file_of(config);
    let unusable = |error: std::io::Error| format!("{}: {error}", file.display());
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(unusable)?;
    }
    let text = serde_json::to_string_pretty(&list).map_err(|error| error.to_string())?;
    // Whole, or not at all.
    let new = file.with_extension("new");
    std::fs::write(&new, text).map_err(unusable)?;
    std::fs::rename(&new, &file).map_err(unusable)?;
    Ok((list, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_that_is_none_leaves_the_one_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            data_dir: dir.path().to_owned(),
            ..Config::default()
        };
        let built_in = list_of(&config).expect("the list in the box");
        let given = dir.path().join("given.json");
        let litellm = r#"{ "m": { "litellm_provider": "openai", "mode": "chat",
            "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06 } }"#;
        std::fs::write(&given, litellm).expect("written");
        let from = given.display().to_string();
        let (list, file) = refresh(&config, &from).await.expect("a list");
        assert_eq!(list.models["openai/m"].output, 2.0);
        assert_eq!(list_of(&config), Ok(list.clone()));
        assert_ne!(list, built_in);
        std::fs::write(&given, "{}").expect("written");
        assert!(refresh(&config, &from).await.is_err());
        assert_eq!(list_of(&config), Ok(list));
        std::fs::write(file, "[").expect("written");
        assert!(list_of(&config).is_err());
        let mut config = config;
        config.prices.file = Some(dir.path().join("none.json"));
        assert!(list_of(&config).is_err());
    }
}
