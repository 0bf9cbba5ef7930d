//! Filters over the attributes of files: comparisons, joined by `and` and `or`
//! (<https://platform.openai.com/docs/api-reference/vector-stores/search>).

use serde_json::{Map, Value};

const MAX_DEPTH: usize = 8;
const MAX_PARTS: usize = 64;

/// Why a filter is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(String);

/// Which files count.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Compare {
        key: String,
        by: Comparison,
        value: Value,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    In,
    NotIn,
}

fn refuse<T>(why: &str) -> Result<T, FilterError> {
    Err(FilterError(why.to_owned()))
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))
}

impl Filter {
    /// Reads a filter's JSON.
    pub fn parse(value: &Value) -> Result<Self, FilterError> {
        Self::read(value, MAX_DEPTH, &mut MAX_PARTS.clone())
    }

    fn read(value: &Value, depth: usize, parts: &mut usize) -> Result<Self, FilterError> {
        if depth == 0 || *parts == 0 {
            return refuse("the filter is too large");
        }
        *parts -= 1;
        let kind = value["type"].as_str().unwrap_or_default();
        if let "and" | "or" = kind {
            let Some(filters) = value["filters"].as_array().filter(|f| !f.is_empty()) else {
                return refuse("`filters` of `and` and `or` must be a list with entries");
            };
            let mut read = Vec::with_capacity(filters.len());
            for filter in filters {
                read.push(Self::read(filter, depth - 1, parts)?);
            }
            return Ok(match kind {
                "and" => Self::All(read),
                _ => Self::Any(read),
            });
        }
        let by = match kind {
            "eq" => Comparison::Equal,
            "ne" => Comparison::NotEqual,
            "gt" => Comparison::Greater,
            "gte" => Comparison::GreaterOrEqual,
            "lt" => Comparison::Less,
            "lte" => Comparison::LessOrEqual,
            "in" => Comparison::In,
            "nin" => Comparison::NotIn,
            _ => return refuse("`type` must be eq, ne, gt, gte, lt, lte, in, nin, and, or"),
        };
        let Some(key) = value["key"].as_str() else {
            return refuse("`key` must be the name of an attribute");
        };
        let operand = &value["value"];
        let fits = match by {
            Comparison::In | Comparison::NotIn => operand
                .as_array()
                .is_some_and(|list| list.iter().all(is_scalar)),
            Comparison::Equal | Comparison::NotEqual => is_scalar(operand),
            _ => matches!(operand, Value::String(_) | Value::Number(_)),
        };
        if !fits {
            return refuse("`value` does not fit its comparison");
        }
        Ok(Self::Compare {
            key: key.to_owned(),
            by,
            value: operand.clone(),
        })
    }

    /// Whether a file with these attributes counts. An attribute that is not there is equal to
    /// nothing, and neither greater nor less.
    pub fn holds(&self, attributes: &Map<String, Value>) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|f| f.holds(attributes)),
            Self::Any(filters) => filters.iter().any(|f| f.holds(attributes)),
            Self::Compare { key, by, value } => compare(attributes.get(key), *by, value),
        }
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn compare(found: Option<&Value>, by: Comparison, value: &Value) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let among = |list: &Value| {
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        found.is_some_and(|found| list.iter().any(|one| equal(found, one)))
    };
    let order = found.and_then(|found| match (found, value) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => found.as_f64()?.partial_cmp(&value.as_f64()?),
    });
    match by {
        Comparison::Equal => found.is_some_and(|found| equal(found, value)),
        Comparison::NotEqual => !found.is_some_and(|found| equal(found, value)),
        Comparison::In => among(value),
        Comparison::NotIn => !among(value),
        Comparison::Greater => order == Some(Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Greater | Equal)),
        Comparison::Less => order == Some(Less),
        Comparison::LessOrEqual => matches!(order, Some(Less | Equal)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn comparisons_hold_for_what_they_say() {
        let attributes = json!({ "team": "blue", "year": 2025, "draft": false });
        let attributes = attributes.as_object().expect("an object");
        for (kind, key, value, holds) in [
            ("eq", "team", json!("blue"), true),
            ("eq", "year", json!(2025.0), true),
            ("eq", "none", json!("x"), false),
            ("ne", "team", json!("red"), true),
            ("ne", "none", json!("x"), true),
            ("gt", "year", json!(2024), true),
            ("gte", "year", json!(2025), true),
            ("lt", "year", json!(2025), false),
            ("lte", "team", json!("blue"), true),
            ("gt", "none", json!(0), false),
            ("in", "team", json!(["red", "blue"]), true),
            ("nin", "team", json!(["red"]), true),
            ("eq", "draft", json!(false), true),
        ] {
            let filter = json!({ "type": kind, "key": key, "value": value });
            let read = Filter::parse(&filter).expect("valid");
            assert_eq!(read.holds(attributes), holds, "{filter}");
        }
        let joined = json!({ "type": "or", "filters": [
            { "type": "eq", "key": "team", "value": "red" },
            { "type": "and", "filters": [{ "type": "gt", "key": "year", "value": 2000 }] },
        ] });
        assert!(Filter::parse(&joined).expect("valid").holds(attributes));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let mut deep = json!({ "type": "eq", "key": "a", "value": 1 });
        for _ in 0..10 {
            deep = json!({ "type": "and", "filters": [deep] });
        }
        for filter in [
            json!({}),
            json!("x"),
            json!({ "type": "like", "key": "a", "value": "b" }),
            json!({ "type": "eq", "value": 1 }),
            json!({ "type": "eq", "key": "a", "value": [1] }),
            json!({ "type": "gt", "key": "a", "value": true }),
            json!({ "type": "in", "key": "a", "value": 1 }),
            json!({ "type": "and", "filters": [] }),
            deep,
        ] {
            assert!(Filter::parse(&filter).is_err(), "{filter}");
        }
    }
}
