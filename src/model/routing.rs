//! From a model name to targets: aliases, `<provider>/<model>`, and bare ids whose provider their
//! prefix tells; and from a provider to the key that a call uses (smith's, tenant's, hosted).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use zeroize::Zeroizing;

use super::error::ModelError;
use super::rules::{self, ModelRule, Rules};
use crate::config::{Config, Provider, ProviderWire};
use crate::metrics::Metrics;
use crate::secrets::Vault;
use crate::store::{ModelKeyRow, Store};
use crate::upstream::Endpoint;

/// Other nodes' key changes are seen within this time.
const KEY_TTL: Duration = Duration::from_secs(3);

/// One target of a call, ready to be used.
#[derive(Clone)]
pub struct Route {
    pub provider: Arc<str>,
    pub wire: ProviderWire,
    pub endpoint: Arc<Endpoint>,
    pub key: Option<Arc<Zeroizing<String>>>,
    /// The id as the provider knows it.
    pub model: String,
    pub stream_usage: bool,
    /// What the model takes; shared by all its calls.
    pub rules: Arc<Rules>,
    /// The header that carries the key, where it is not the wire's own.
    pub auth_header: Option<HeaderName>,
    /// The key is the project's or the smith's own, not the operator's.
    pub is_own_key: bool,
    /// Whether it takes OpenAI's Responses body as it is.
    pub responses: bool,
    /// Repeats before the next route is tried.
    pub retries: u32,
    /// Overrides the time until the first byte.
    pub timeout: Option<Duration>,
}

impl Route {
    /// The key as text.
    pub fn secret(&self) -> Option<&str> {
        self.key.as_deref().map(|key| key.as_str())
    }
}

struct Known {
    config: Provider,
    auth_header: Option<HeaderName>,
    endpoint: Arc<Endpoint>,
}

struct OwnKey {
    secret: Arc<Zeroizing<String>>,
    endpoint: Option<Arc<Endpoint>>,
}

type KeyId = (Arc<str>, Arc<str>, Arc<str>);

/// Knows the providers, the aliases and (cached) the keys.
pub struct Routing {
    known: BTreeMap<String, Known>,
    /// Who lists a bare id.
    listed: HashMap<String, Vec<String>>,
    /// The one provider of the operator's that lists no models, and so may have any.
    takes_any: Option<String>,
    /// Whether a bare id can be routed without a smith.
    bare_ids: bool,
    aliases: BTreeMap<String, crate::config::Alias>,
    default_model: Option<String>,
    embedding_model: Option<String>,
    pub(super) store: Arc<dyn Store>,
    vault: Arc<Vault>,
    keys: moka::future::Cache<KeyId, Option<Arc<OwnKey>>>,
    /// What is known of models that were asked before.
    rules: moka::sync::Cache<RulesId, Arc<Rules>>,
    metrics: Metrics,
}

/// What the rules of a model hang on: the provider (with the operator's rules), its wire, its host, and
/// the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RulesId {
    provider: Arc<str>,
    wire: ProviderWire,
    host: Arc<str>,
    model: String,
}

/// Models of which the rules are kept.
const RULES_KEPT: u64 = 10_000;
/// The longest name of one that is kept, in bytes: callers make names up.
const LONGEST_KEPT: usize = 256;

/// Splits `<provider>/<model>`; the model may hold further slashes.
pub fn split_model(model: &str) -> Option<(&str, &str)> {
    let (provider, model) = model.split_once('/')?;
    (crate::config::is_provider_name(provider) && !model.is_empty()).then_some((provider, model))
}

/// The provider of a bare model id, by its prefix (`observed.md` 5, "Model listing").
fn provider_of_bare(model: &str) -> Option<&'static str> {
    let is_o_series =
        model.starts_with('o') && model[1..].starts_with(|c: char| c.is_ascii_digit());
    let is_openai = ["gpt-", "chatgpt-", "text-embedding-"]
        .iter()
        .any(|prefix| model.starts_with(prefix));
    if is_openai || is_o_series {
        Some("openai")
    } else if model.starts_with("claude-") {
        Some("anthropic")
    } else if model.starts_with("gemini-") {
        Some("gemini")
    } else {
        None
    }
}

impl Routing {
    /// Checks the configured providers' base URLs.
    pub fn new(
        config: &Config,
        store: Arc<dyn Store>,
        vault: Arc<Vault>,
        metrics: Metrics,
    ) -> Result<Self, String> {
        let mut known = BTreeMap::new();
        let presets = crate::config::presets().map_err(|error| error.to_string())?;
        let configured = config.providers.iter().map(|(n, p)| (n.clone(), p.clone()));
        for (name, config) in presets.into_iter().chain(configured) {
            let endpoint = Endpoint::parse(&config.base_url, true)
                .map_err(|e| format!("providers.{name}.base_url: {e}"))?;
            let endpoint = Arc::new(endpoint);
            let auth_header = match &config.auth_header {
                Some(header) => Some(
                    HeaderName::try_from(header.as_str())
                        .map_err(|e| format!("providers.{name}.auth_header: {e}"))?,
                ),
                None => None,
            };
            let known_as = Known {
                config,
                auth_header,
                endpoint,
            };
            known.insert(name, known_as);
        }
        let mut listed: HashMap<String, Vec<String>> = HashMap::new();
        for (name, provider) in &known {
            for model in &provider.config.models {
                listed.entry(model.clone()).or_default().push(name.clone());
            }
        }
        let mut any = config.providers.iter().filter(|(_, p)| p.models.is_empty());
        let takes_any = match (any.next(), any.next()) {
            (Some((name, _)), None) => Some(name.clone()),
            _ => None,
        };
        Ok(Self {
            known,
            listed,
            takes_any,
            bare_ids: config.models.bare_ids,
            aliases: config.models.aliases.clone(),
            default_model: config.models.default.clone(),
            embedding_model: config.models.embedding.clone(),
            store,
            vault,
            keys: moka::future::Cache::builder()
                .max_capacity(100_000)
                .time_to_live(KEY_TTL)
                .build(),
            rules: moka::sync::Cache::new(RULES_KEPT),
            metrics,
        })
    }

    /// The model of smiths whose configuration names none.
    pub fn default_model(&self) -> Option<&str> {
        self.default_model.as_deref()
    }

    /// The model of embeddings that name none, and of new vector stores.
    pub fn embedding_model(&self) -> Option<&str> {
        self.embedding_model.as_deref()
    }

    /// Provider and model of a name: `<provider>/<model>`, or `<provider>.<model>` with a known
    /// provider (as the hosted service names embedding models).
    fn split<'m>(&self, model: &'m str) -> Option<(&'m str, &'m str)> {
        let dotted = || {
            model
                .split_once('.')
                .filter(|(provider, id)| self.known.contains_key(*provider) && !id.is_empty())
        };
        split_model(model).or_else(dotted)
    }

    /// For how long answers to calls of an alias are kept, in seconds; `None`: they are not.
    pub fn kept_seconds(&self, model: &str) -> Option<u64> {
        self.aliases.get(model).map(|alias| alias.cache_seconds)
    }

    /// Whether `model` can be routed without a smith: an alias, one that names its provider, or,
    /// where these are taken, a bare id.
    pub fn is_routable(&self, model: &str) -> bool {
        let is_bare = self.bare_ids && !model.is_empty();
        is_bare || self.aliases.contains_key(model) || split_model(model).is_some()
    }

    /// Whether `name` is an alias.
    pub fn is_alias(&self, name: &str) -> bool {
        self.aliases.contains_key(name)
    }

    /// Provider and model of each of an alias's targets.
    pub fn alias_targets(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let targets = self.aliases.get(name).map(|alias| &alias.targets[..]);
        let targets = targets.unwrap_or_default().iter();
        targets.filter_map(|target| split_model(&target.model))
    }

    /// The provider that has a bare id: of those that list it and can be used the only one, or else
    /// the one that its prefix tells (`observed.md` 5, "Model listing").
    async fn provider_of(
        &self,
        tenant_id: &Arc<str>,
        smith_id: Option<&Arc<str>>,
        model: &str,
    ) -> Result<&str, ModelError> {
        let listing = self.listed.get(model).map_or(&[][..], Vec::as_slice);
        let told = provider_of_bare(model);
        let mut usable: Vec<&str> = Vec::new();
        for provider in listing {
            match self.route(tenant_id, smith_id, provider, model).await {
                Ok(_) => usable.push(provider),
                Err(ModelError::NoKey(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let is_told = |provider: &&&str| Some(**provider) == told;
        match (&usable[..], usable.iter().find(is_told)) {
            ([one], _) | (_, Some(one)) => Ok(one),
            ([], _) => {
                let listing = listing.first().map(String::as_str);
                let any = self.takes_any.as_deref();
                told.or(listing).or(any).ok_or_else(|| {
                    ModelError::UnknownModel(format!(
                        "cannot tell the provider of model '{model}': write <provider>/<model>"
                    ))
                })
            }
            (several, _) => {
                let names: Vec<String> = several.iter().map(|p| format!("{p}/{model}")).collect();
                Err(ModelError::UnknownModel(format!(
                    "several providers have a model '{model}': write {}",
                    names.join(" or ")
                )))
            }
        }
    }

    /// The targets of `model` for a tenant, in the order to try them. Only the first must have a
    /// key; fallbacks without one are left out.
    pub async fn resolve(
        &self,
        tenant_id: &Arc<str>,
        smith_id: Option<&Arc<str>>,
        model: &str,
    ) -> Result<Vec<Route>, ModelError> {
        if let Some(alias) = self.aliases.get(model) {
            let mut routes = Vec::with_capacity(alias.targets.len());
            let mut first_error = None;
            for target in &alias.targets {
                let Some((provider, id)) = split_model(&target.model) else {
                    continue;
                };
                match self.route(tenant_id, smith_id, provider, id).await {
                    Ok(mut route) => {
                        route.retries = target.retries;
                        route.timeout = target.timeout_ms.map(Duration::from_millis);
                        routes.push(route);
                    }
                    Err(error) => first_error = first_error.or(Some(error)),
                }
            }
            return match (routes.is_empty(), first_error) {
                (true, Some(error)) => Err(error),
                _ => Ok(routes),
            };
        }
        let (provider, id) = match self.split(model) {
            Some(named) => named,
            None => (self.provider_of(tenant_id, smith_id, model).await?, model),
        };
        Ok(vec![self.route(tenant_id, smith_id, provider, id).await?])
    }

    /// A provider by its name, for a call that may name no model.
    pub async fn provider(
        &self,
        tenant_id: &Arc<str>,
        smith_id: Option<&Arc<str>>,
        provider: &str,
        model: &str,
    ) -> Result<Route, ModelError> {
        if !crate::config::is_provider_name(provider) {
            let why = format!("'{provider}' is no provider's name");
            return Err(ModelError::UnknownModel(why));
        }
        self.route(tenant_id, smith_id, provider, model).await
    }

    async fn route(
        &self,
        tenant_id: &Arc<str>,
        smith_id: Option<&Arc<str>>,
        provider: &str,
        model: &str,
    ) -> Result<Route, ModelError> {
        let known = self.known.get(provider);
        let key_name = known
            .and_then(|k| k.config.keys_of.as_deref())
            .unwrap_or(provider);
        let own = self.own_key(tenant_id, smith_id, key_name).await?;
        let (wire, stream_usage) = known.map_or((ProviderWire::OpenaiChat, true), |k| {
            (k.config.wire, k.config.stream_usage)
        });
        let own_endpoint = own.as_ref().and_then(|own| own.endpoint.clone());
        // A base URL of the tenant's own may be of a provider that only knows Chat Completions.
        let responses = wire == ProviderWire::OpenaiResponses
            || own_endpoint.is_none() && known.is_some_and(|k| k.config.responses);
        let endpoint = own_endpoint.or_else(|| known.map(|k| k.endpoint.clone()));
        let Some(endpoint) = endpoint else {
            // A name that nobody configured is a provider without a key.
            return Err(ModelError::NoKey(provider.to_owned()));
        };
        let is_own_key = own.is_some();
        let key = match (own, known) {
            (Some(own), _) => Some(own.secret.clone()),
            (None, Some(known)) => match &known.config.api_key {
                Some(hosted) => Some(Arc::new(Zeroizing::new(hosted.clone()))),
                None if known.config.needs_key => {
                    return Err(ModelError::NoKey(key_name.to_owned()));
                }
                None => None,
            },
            (None, None) => None,
        };
        let own_rules = known.map_or(&[][..], |k| &k.config.rules);
        let provider: Arc<str> = provider.into();
        Ok(Route {
            rules: self.rules_of(&provider, wire, &endpoint, model, own_rules),
            provider,
            wire,
            auth_header: known.and_then(|k| k.auth_header.clone()),
            endpoint,
            key,
            model: model.to_owned(),
            stream_usage,
            is_own_key,
            responses,
            retries: 0,
            timeout: None,
        })
    }

    /// What is known of a model, found once.
    fn rules_of(
        &self,
        provider: &Arc<str>,
        wire: ProviderWire,
        endpoint: &Endpoint,
        model: &str,
        own: &[ModelRule],
    ) -> Arc<Rules> {
        let id = RulesId {
            provider: provider.clone(),
            wire,
            host: endpoint.authority.clone(),
            model: model.to_owned(),
        };
        if let Some(rules) = self.rules.get(&id) {
            return rules;
        }
        let rules = Arc::new(rules::resolve(wire, &endpoint.authority, model, own));
        if model.len() <= LONGEST_KEPT {
            self.rules.insert(id, rules.clone());
        }
        rules
    }

    async fn own_key(
        &self,
        tenant_id: &Arc<str>,
        smith_id: Option<&Arc<str>>,
        provider: &str,
    ) -> Result<Option<Arc<OwnKey>>, ModelError> {
        if let Some(smith_id) = smith_id
            && let Some(key) = self.cached_key(tenant_id, smith_id, provider).await?
        {
            return Ok(Some(key));
        }
        self.cached_key(tenant_id, &Arc::from(""), provider).await
    }

    async fn cached_key(
        &self,
        tenant_id: &Arc<str>,
        smith_id: &Arc<str>,
        provider: &str,
    ) -> Result<Option<Arc<OwnKey>>, ModelError> {
        let id = (tenant_id.clone(), smith_id.clone(), Arc::from(provider));
        if let Some(found) = self.keys.get(&id).await {
            self.metrics
                .cache_hits
                .with_label_values(&["model_keys"])
                .inc();
            return Ok(found);
        }
        self.metrics
            .cache_misses
            .with_label_values(&["model_keys"])
            .inc();
        let row = self.store.model_key(tenant_id, smith_id, provider).await?;
        let found = match row {
            Some(row) => Some(Arc::new(self.open(row)?)),
            None => None,
        };
        self.keys.insert(id, found.clone()).await;
        Ok(found)
    }

    fn open(&self, row: ModelKeyRow) -> Result<OwnKey, ModelError> {
        let owner = key_owner(&row.tenant_id, &row.smith_id, &row.provider);
        let broken = || {
            ModelError::Connect(format!(
                "the stored key for '{}' does not open with this master key",
                row.provider
            ))
        };
        let secret = self.vault.open(&owner, &row.sealed).map_err(|_| broken())?;
        let secret = String::from_utf8(secret.to_vec()).map_err(|_| broken())?;
        let endpoint = match &row.base_url {
            Some(url) => Some(Arc::new(
                Endpoint::parse(url, false).map_err(ModelError::Forbidden)?,
            )),
            None => None,
        };
        Ok(OwnKey {
            secret: Arc::new(Zeroizing::new(secret)),
            endpoint,
        })
    }

    /// Stores a key, sealed. `smith_id` is empty for the tenant's own.
    pub async fn put_key(
        &self,
        tenant_id: &str,
        smith_id: &str,
        provider: &str,
        api_key: &str,
        base_url: Option<String>,
    ) -> Result<(), crate::error::ApiError> {
        let owner = key_owner(tenant_id, smith_id, provider);
        let sealed = self
            .vault
            .seal(&owner, api_key.as_bytes())
            .map_err(crate::error::ApiError::internal)?;
        self.store
            .put_model_key(&ModelKeyRow {
                tenant_id: tenant_id.to_owned(),
                smith_id: smith_id.to_owned(),
                provider: provider.to_owned(),
                base_url,
                sealed,
                updated_at: crate::store::now_micros(),
            })
            .await?;
        self.forget_key(tenant_id, smith_id, provider).await;
        Ok(())
    }

    /// Drops all keys from the cache of this node.
    pub fn forget_keys(&self) {
        self.keys.invalidate_all();
    }

    /// Drops a key from the cache of this node.
    pub async fn forget_key(&self, tenant_id: &str, smith_id: &str, provider: &str) {
        let id: KeyId = (tenant_id.into(), smith_id.into(), provider.into());
        self.keys.invalidate(&id).await;
    }

    /// Whether the operator or this program defines `provider`, so that it needs no base URL.
    pub fn knows(&self, provider: &str) -> bool {
        self.known.contains_key(provider)
    }

    /// The models that a tenant can use: `(id, provider)`, aliases first.
    pub async fn usable_models(
        &self,
        tenant_id: &Arc<str>,
    ) -> Result<Vec<(String, String)>, ModelError> {
        let mut models: Vec<(String, String)> = Vec::new();
        for alias in self.aliases.keys() {
            if self.resolve(tenant_id, None, alias).await.is_ok() {
                models.push((alias.clone(), "smithgate".to_owned()));
            }
        }
        for (name, known) in &self.known {
            if known.config.models.is_empty()
                || self.route(tenant_id, None, name, "any").await.is_err()
            {
                continue;
            }
            for model in &known.config.models {
                models.push((listed_id(name, model), name.clone()));
            }
        }
        Ok(models)
    }

    /// All providers that are known here, with the models that they list.
    pub fn catalogue(&self) -> Vec<CatalogueEntry> {
        self.known
            .iter()
            .map(|(name, known)| CatalogueEntry {
                provider: name.clone(),
                hosted: known.config.api_key.is_some() || !known.config.needs_key,
                models: known
                    .config
                    .models
                    .iter()
                    .map(|model| listed_id(name, model))
                    .collect(),
            })
            .collect()
    }
}

/// A provider of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueEntry {
    pub provider: String,
    /// Whether the operator lets all tenants use it.
    pub hosted: bool,
    pub models: Vec<String>,
}

/// A bare id where it names its provider by itself, else a qualified one.
fn listed_id(provider: &str, model: &str) -> String {
    if provider_of_bare(model) == Some(provider) {
        model.to_owned()
    } else {
        format!("{provider}/{model}")
    }
}

fn key_owner(tenant_id: &str, smith_id: &str, provider: &str) -> String {
    format!("model_key/{tenant_id}/{smith_id}/{provider}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_names_are_split_and_guessed() {
        assert_eq!(split_model("openai/gpt-5.5"), Some(("openai", "gpt-5.5")));
        assert_eq!(split_model("or/meta/llama"), Some(("or", "meta/llama")));
        assert_eq!(split_model("gpt-5.5"), None);
        assert_eq!(split_model("/x"), None);
        assert_eq!(provider_of_bare("o3-mini"), Some("openai"));
        assert_eq!(provider_of_bare("claude-opus-4-8"), Some("anthropic"));
        assert_eq!(provider_of_bare("text-embedding-3-small"), Some("openai"));
        assert_eq!(provider_of_bare("opus"), None);
    }
}
