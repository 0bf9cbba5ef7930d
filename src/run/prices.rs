//! The price book: what a call costs. It is made when the gateway starts; a call looks its price up
//! once, when its tokens are known.

use std::collections::HashMap;

use crate::config::{Price, PriceList, Prices};
use crate::frame::Usage;

use super::spender::NANOS;

const TOKENS: f64 = 1e6;

/// Prices by name. The operator's come first: exact names, then the longest name that a model's id
/// begins with; then those of the list.
pub struct PriceBook {
    own: HashMap<String, Price>,
    /// The operator's, the longest first.
    prefixes: Vec<(String, Price)>,
    /// By `<provider>/<model>` and, as other providers have the models of these, by model.
    listed: HashMap<String, Price>,
}

impl PriceBook {
    /// From the configuration, and the list that counts beside it.
    pub fn new(prices: &Prices, list: Option<&PriceList>) -> Self {
        let mut prefixes: Vec<(String, Price)> = prices
            .models
            .iter()
            .map(|(name, price)| (name.clone(), price.clone()))
            .collect();
        prefixes.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let mut listed = HashMap::new();
        if let (Some(list), Some(rate)) = (list, prices.rate()) {
            for (name, price) in &list.models {
                let price = price.clone().times(rate);
                if let Some((_, model)) = name.split_once('/') {
                    listed.insert(model.to_owned(), price.clone());
                }
                listed.insert(name.clone(), price);
            }
        }
        Self {
            own: prefixes.iter().cloned().collect(),
            prefixes,
            listed,
        }
    }

    fn price(&self, provider: &str, model: &str) -> Option<&Price> {
        if self.own.is_empty() && self.listed.is_empty() {
            return None;
        }
        let qualified = format!("{provider}/{model}");
        let begins = |name: &str| model.starts_with(name) || qualified.starts_with(name);
        let own = self.own.get(&qualified).or_else(|| self.own.get(model));
        let own = own.or_else(|| {
            let found = self.prefixes.iter().find(|(name, _)| begins(name));
            found.map(|(_, price)| price)
        });
        own.or_else(|| self.listed(&qualified))
            .or_else(|| self.listed(model))
    }

    /// The list's price of a model, or of one that a date was put behind.
    fn listed(&self, name: &str) -> Option<&Price> {
        let undated = || self.listed.get(without_date(name)?);
        self.listed.get(name).or_else(undated)
    }

    /// What `usage` costs, in nanos; `None` when the model has no price.
    pub fn cost(&self, provider: &str, model: &str, usage: &Usage) -> Option<i64> {
        let price = self.price(provider, model)?;
        let tiers = price.long_context.iter().rev();
        let long = tiers.into_iter().find(|long| usage.input > long.above);
        let (input, output, read, write) = match long {
            Some(long) => (long.input, long.output, long.cache_read, long.cache_write),
            None => (
                price.input,
                price.output,
                price.cache_read,
                price.cache_write,
            ),
        };
        let fresh = usage
            .input
            .saturating_sub(usage.cache_read + usage.cache_write);
        let reasoning = usage.reasoning.min(usage.output);
        let sum = fresh as f64 * input
            + usage.cache_read as f64 * read.unwrap_or(input)
            + usage.cache_write as f64 * write.unwrap_or(input)
            + (usage.output - reasoning) as f64 * output
            + reasoning as f64 * price.reasoning.unwrap_or(output);
        Some((sum / TOKENS * NANOS).round() as i64)
    }
}

/// `name` without the `-20260416` or `-2026-04-16` at its end.
fn without_date(name: &str) -> Option<&str> {
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    [&[8][..], &[4, 2, 2]].into_iter().find_map(|parts| {
        let length = parts.iter().sum::<usize>() + parts.len();
        let (known, date) = name.split_at_checked(name.len().checked_sub(length)?)?;
        let mut given = date.strip_prefix('-')?.split('-');
        let fits = parts.iter().all(|length| {
            let part = given.next();
            part.is_some_and(|part| part.len() == *length && is_number(part))
        });
        (fits && given.next().is_none() && !known.is_empty()).then_some(known)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::LongContext;

    #[test]
    fn prices_are_found_by_the_longest_name() {
        let price = |input, output| Price {
            input,
            output,
            cache_read: Some(0.1),
            ..Price::default()
        };
        let prices = Prices {
            models: BTreeMap::from([
                ("gpt-5.5".to_owned(), price(1.0, 2.0)),
                ("gpt-5.5-mini".to_owned(), price(0.5, 1.0)),
                ("local/gpt-5.5".to_owned(), price(0.0, 0.0)),
            ]),
            ..Prices::default()
        };
        let book = PriceBook::new(&prices, None);
        let usage = Usage {
            input: 1_000_000,
            output: 500_000,
            cache_read: 400_000,
            ..Usage::default()
        };
        // 0.6 fresh + 0.04 cached + 1.0 out
        assert_eq!(
            book.cost("openai", "gpt-5.5-2026-01-01", &usage),
            Some(1_640_000_000)
        );
        assert_eq!(
            book.cost("openai", "gpt-5.5-mini", &usage),
            Some(840_000_000)
        );
        assert_eq!(book.cost("local", "gpt-5.5", &usage), Some(40_000_000));
        assert_eq!(book.cost("openai", "other", &usage), None);
    }

    #[test]
    fn the_list_counts_behind_the_operators_prices() {
        let listed = Price {
            input: 2.0,
            output: 10.0,
            cache_write: Some(2.5),
            reasoning: Some(20.0),
            long_context: vec![
                LongContext {
                    above: 200_000,
                    input: 4.0,
                    output: 15.0,
                    ..LongContext::default()
                },
                LongContext {
                    above: 500_000,
                    input: 8.0,
                    output: 30.0,
                    ..LongContext::default()
                },
            ],
            ..Price::default()
        };
        let list = PriceList {
            as_of: "2026-01-02".to_owned(),
            source: "here".to_owned(),
            models: BTreeMap::from([("openai/gpt-9".to_owned(), listed)]),
        };
        let of = |input, cache_write, output, reasoning| Usage {
            input,
            output,
            cache_write,
            reasoning,
            ..Usage::default()
        };
        let dollars = Prices {
            currency: "USD".to_owned(),
            ..Prices::default()
        };
        let book = PriceBook::new(&dollars, Some(&list));
        let million = of(100_000, 50_000, 100_000, 40_000);
        // 0.1 fresh + 0.125 written + 0.6 said + 0.8 thought
        for (provider, model) in [
            ("openai", "gpt-9"),
            ("azure", "gpt-9"),
            ("openai", "gpt-9-2026-04-16"),
            ("openai", "gpt-9-20260416"),
        ] {
            let cost = book.cost(provider, model, &million);
            assert_eq!(cost, Some(1_625_000_000), "{provider}/{model}");
        }
        for other in [
            "gpt-9-mini",
            "gpt-9-1",
            "gpt",
            "gpt-9-12345678-x",
            "-20260416",
        ] {
            assert_eq!(book.cost("openai", other, &million), None, "{other}");
        }
        let long = book.cost("openai", "gpt-9", &of(300_000, 0, 0, 0));
        assert_eq!(long, Some(1_200_000_000));
        let longest = book.cost("openai", "gpt-9", &of(1_000_000, 0, 0, 0));
        assert_eq!(longest, Some(8_000_000_000));
        // In another currency only at a rate that somebody named.
        let euros = Prices::default();
        assert_eq!(
            PriceBook::new(&euros, Some(&list)).cost("openai", "gpt-9", &million),
            None
        );
        let at_rate = Prices {
            usd_rate: Some(0.5),
            ..euros
        };
        let cost = PriceBook::new(&at_rate, Some(&list)).cost("openai", "gpt-9", &million);
        assert_eq!(cost, Some(812_500_000));
    }
}
