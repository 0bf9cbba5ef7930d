//! What models cost: the operator's own prices, and the list that is read beside them. The list in the
//! box is `config/prices.json`; `smithgate prices refresh` writes a newer one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What tokens cost; budgets and the `cost` of calls need it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// Of all prices and budgets: three letters (ISO 4217).
    pub currency: String,
    /// What a US dollar is in `currency`; needed for the list where that is not USD.
    pub usd_rate: Option<f64>,
    /// Whether the list counts for models that have no price here.
    pub list: bool,
    /// The list; else `prices.json` in `data_dir` where it is there, and the one in the box.
    pub file: Option<PathBuf>,
    /// By `<provider>/<model>`, by model, or by what a model's id begins with.
    pub models: BTreeMap<String, Price>,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            currency: "EUR".to_owned(),
            usd_rate: None,
            list: true,
            file: None,
            models: BTreeMap::new(),
        }
    }
}

impl Prices {
    /// What a price of the list, in US dollars, is multiplied by; `None` when nobody said.
    pub fn rate(&self) -> Option<f64> {
        match self.currency.as_str() {
            "USD" => Some(self.usd_rate.unwrap_or(1.0)),
            _ => self.usd_rate,
        }
    }
}

/// A model's prices for a million tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub input: f64,
    pub output: f64,
    /// Absent: as fresh input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<f64>,
    /// Absent: as fresh input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
    /// Absent: as other output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<f64>,
    /// Of calls with a long input, the shortest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub long_context: Vec<LongContext>,
}

/// Prices of a whole call whose input is longer than `above` tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongContext {
    pub above: u64,
    pub input: f64,
    pub output: f64,
    /// Absent: as fresh input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<f64>,
    /// Absent: as fresh input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
}

impl Price {
    /// All numbers of it.
    fn numbers(&mut self) -> impl Iterator<Item = &mut f64> {
        let tiers = self.long_context.iter_mut().flat_map(|long| {
            let more = [long.cache_read.as_mut(), long.cache_write.as_mut()];
            [&mut long.input, &mut long.output]
                .into_iter()
                .chain(more.into_iter().flatten())
        });
        let more = [
            self.cache_read.as_mut(),
            self.cache_write.as_mut(),
            self.reasoning.as_mut(),
        ];
        [&mut self.input, &mut self.output]
            .into_iter()
            .chain(more.into_iter().flatten())
            .chain(tiers)
    }

    /// Whether each number is a price.
    pub fn is_sane(&self) -> bool {
        let mut copy = self.clone();
        let all = copy
            .numbers()
            .all(|price| price.is_finite() && *price >= 0.0);
        let mut tiers = self.long_context.windows(2);
        all && tiers.all(|two| two[0].above < two[1].above)
    }

    /// In another currency.
    pub fn times(mut self, rate: f64) -> Self {
        self.numbers().for_each(|price| *price *= rate);
        self
    }
}

/// Prices in US dollars as of a day: what is in the box, and what `smithgate prices refresh` writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// `YYYY-MM-DD`.
    pub as_of: String,
    /// Where they were read.
    pub source: String,
    /// By `<provider>/<model>`.
    pub models: BTreeMap<String, Price>,
}

/// The companies whose prices are taken over, by their names in LiteLLM's list, which are those of the
/// providers that are known here.
const COMPANIES: [&str; 3] = ["openai", "anthropic", "gemini"];
/// What of LiteLLM's list is a model that is called here, by its `mode`.
const MODES: [&str; 3] = ["chat", "responses", "embedding"];
const TOKENS: f64 = 1e6;

impl PriceList {
    /// The list in the box.
    ///
    /// # Errors
    /// None; a test reads it.
    pub fn built_in() -> Result<Self, String> {
        Self::own(include_str!("../../config/prices.json"))
    }

    fn own(text: &str) -> Result<Self, String> {
        let list: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match list.models.iter().find(|(_, price)| !price.is_sane()) {
            Some((name, _)) => Err(format!("a price of '{name}' is none")),
            None => Ok(list),
        }
    }

    /// A list in its own form, or in LiteLLM's (`model_prices_and_context_window.json`), of which the
    /// prices of models are taken that are called here; `as_of` and `source` are for that.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str, as_of: &str, source: &str) -> Result<Self, String> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let all = value.as_object().ok_or("the list must be a JSON object")?;
        if all.contains_key("models") {
            return Self::own(text);
        }
        let mut models = BTreeMap::new();
        for (name, entry) in all {
            let word = |member: &str| entry[member].as_str().unwrap_or_default();
            let (company, mode) = (word("litellm_provider"), word("mode"));
            if !COMPANIES.contains(&company) || !MODES.contains(&mode) {
                continue;
            }
            let known = name.strip_prefix(company).and_then(|n| n.strip_prefix('/'));
            let id = known.unwrap_or(name);
            // Fine-tuned and sized ones have names that no call has.
            if id.contains(['/', ':']) {
                continue;
            }
            if let Some(price) = price_of(entry).filter(Price::is_sane) {
                models.insert(format!("{company}/{id}"), price);
            }
        }
        if models.is_empty() {
            return Err("it has no price of a model that is known here".to_owned());
        }
        Ok(Self {
            as_of: as_of.to_owned(),
            source: source.to_owned(),
            models,
        })
    }
}

/// The price of an entry of LiteLLM's list, which is by the token.
fn price_of(entry: &serde_json::Value) -> Option<Price> {
    // Sums of many digits are rounded to what was meant.
    let of = |member: &str| {
        let price = entry[member].as_f64()? * TOKENS;
        Some((price * 1e6).round() / 1e6)
    };
    let mut above: Vec<(u64, &str)> = entry
        .as_object()?
        .keys()
        .filter_map(|key| {
            let tier = key.strip_prefix("input_cost_per_token_above_")?;
            let thousands = tier.strip_suffix("k_tokens")?.parse::<u64>().ok()?;
            Some((thousands * 1_000, tier))
        })
        .collect();
    above.sort_unstable();
    let input = of("input_cost_per_token")?;
    let output = of("output_cost_per_token")?;
    let cache_read = of("cache_read_input_token_cost");
    let cache_write = of("cache_creation_input_token_cost");
    let long_context = above.into_iter().map(|(above, tier)| {
        let of = |member: &str| of(&format!("{member}_above_{tier}"));
        LongContext {
            above,
            input: of("input_cost_per_token").unwrap_or(input),
            output: of("output_cost_per_token").unwrap_or(output),
            cache_read: of("cache_read_input_token_cost").or(cache_read),
            cache_write: of("cache_creation_input_token_cost").or(cache_write),
        }
    });
    Some(Price {
        input,
        output,
        cache_read,
        cache_write,
        reasoning: of("output_cost_per_reasoning_token").filter(|price| *price != output),
        long_context: long_context.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_in_the_box_has_the_models_that_are_listed_here() {
        let list = PriceList::built_in().expect("a list");
        assert_eq!(list.as_of.len(), 10);
        for model in [
            "openai/gpt-5.5",
            "openai/text-embedding-3-small",
            "anthropic/claude-opus-4-8",
            "anthropic/claude-haiku-4-5",
            "gemini/gemini-3.5-flash",
            "gemini/gemini-2.5-pro",
        ] {
            let price = list.models.get(model).expect(model);
            assert!(price.input > 0.0, "{model}");
        }
        let opus = &list.models["anthropic/claude-opus-4-8"];
        assert!(opus.cache_write > Some(opus.input) && opus.cache_read < Some(opus.input));
        assert_eq!(
            list.models["gemini/gemini-2.5-pro"].long_context[0].above,
            200_000
        );
    }

    #[test]
    fn a_list_of_litellm_is_read() {
        let text = r#"{
            "sample_spec": { "litellm_provider": "one of", "mode": "chat" },
            "gpt-x": { "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 2e-06,
                "output_cost_per_token": 8e-06, "cache_read_input_token_cost": 5e-07,
                "input_cost_per_token_above_272k_tokens": 4e-06,
                "input_cost_per_token_above_272k_tokens_flex": 1e-06 },
            "gemini/g": { "litellm_provider": "gemini", "mode": "chat", "input_cost_per_token": 1e-07,
                "output_cost_per_token": 1e-06, "output_cost_per_reasoning_token": 3e-06 },
            "ft:gpt-x": { "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1,
                "output_cost_per_token": 1 },
            "x": { "litellm_provider": "azure", "mode": "chat", "input_cost_per_token": 1 }
        }"#;
        let list = PriceList::read(text, "2026-01-02", "here").expect("a list");
        assert_eq!(list.models.len(), 2);
        let gpt = &list.models["openai/gpt-x"];
        assert_eq!(
            (gpt.input, gpt.output, gpt.cache_read),
            (2.0, 8.0, Some(0.5))
        );
        let long = LongContext {
            above: 272_000,
            input: 4.0,
            output: 8.0,
            cache_read: Some(0.5),
            cache_write: None,
        };
        assert_eq!(gpt.long_context, [long]);
        assert_eq!(list.models["gemini/g"].reasoning, Some(3.0));
        // What was written is read again.
        let own = serde_json::to_string(&list).expect("JSON");
        assert_eq!(PriceList::read(&own, "", ""), Ok(list));
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"models":{"a":{"input":-1,"output":1}}}"#,
        ] {
            assert!(PriceList::read(bad, "", "").is_err(), "{bad}");
        }
    }
}
