//! Providers that are known by their name: data, in `config/providers.toml`.

use std::collections::BTreeMap;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};

use super::models::Provider;

const PROVIDERS: &str = include_str!("../../config/providers.toml");

/// All of them, by their names.
pub fn presets() -> Result<BTreeMap<String, Provider>, Box<figment::Error>> {
    Figment::from(Toml::string(PROVIDERS))
        .extract()
        .map_err(Box::new)
}

/// The configuration, with what is known of the providers that it names where it does not say otherwise.
pub(super) fn completed(mut figment: Figment) -> Result<Figment, Box<figment::Error>> {
    let named = figment.find_value("providers");
    let named = named.ok().and_then(figment::value::Value::into_dict);
    for (name, preset) in presets()? {
        if named
            .as_ref()
            .is_some_and(|named| named.contains_key(&name))
        {
            figment = figment.join(Serialized::default(&format!("providers.{name}"), preset));
        }
    }
    Ok(figment)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::config::ProviderWire;

    #[test]
    fn all_are_well_formed() {
        let presets = presets().expect("read");
        assert!(presets.len() >= 24);
        for (name, preset) in presets {
            assert!(super::super::is_provider_name(&name), "{name}");
            assert!(preset.base_url.starts_with("https://"), "{name}");
            assert!(!preset.base_url.ends_with('/'), "{name}");
            assert!(preset.needs_key && preset.api_key.is_none(), "{name}");
        }
    }

    #[test]
    fn a_key_alone_is_enough_of_those_that_are_known() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("c.toml");
        let text = "[providers.groq]\napi_key = \"k\"\n[providers.mistral]\nmodels = [\"m\"]\n\
            base_url = \"https://proxy.example/v1\"\n";
        std::fs::write(&file, text).expect("written");
        let config = Config::load(Some(&file), &[]).expect("valid");
        assert_eq!(config.providers.len(), 2);
        let groq = &config.providers["groq"];
        assert_eq!(groq.base_url, "https://api.groq.com/openai/v1");
        assert_eq!(groq.api_key.as_deref(), Some("k"));
        let mistral = &config.providers["mistral"];
        assert_eq!(mistral.base_url, "https://proxy.example/v1");
        assert_eq!(
            (mistral.wire, mistral.stream_usage),
            (ProviderWire::OpenaiChat, false)
        );
        std::fs::write(&file, "[providers.unheard]\napi_key = \"k\"\n").expect("written");
        let error = Config::load(Some(&file), &[])
            .expect_err("refused")
            .to_string();
        assert!(error.contains("wire"), "{error}");
    }
}
