//! `current_time`: the date and time in a time zone, with `jiff` for its zone database.

use async_trait::async_trait;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::{Answer, Function, Hosted, Parts, ToolUser, object};

pub struct CurrentTime;

#[async_trait]
impl Hosted for CurrentTime {
    fn name(&self) -> &'static str {
        "current_time"
    }

    fn description(&self) -> &'static str {
        "The date and time in a time zone."
    }

    fn functions(&self) -> Vec<Function> {
        let zone = json!({ "type": "string",
            "description": "An IANA name such as Europe/Berlin; left out: the person's own zone" });
        vec![Function {
            name: "current_time",
            description: "The date and time now",
            parameters: object(json!({ "timezone": zone }), &[]),
        }]
    }

    async fn call(
        &self,
        _function: &str,
        args: &Map<String, Value>,
        caller: &ToolUser,
        _parts: &Parts,
    ) -> Result<Answer, String> {
        let asked = args.get("timezone").and_then(Value::as_str);
        let name = asked.or(caller.timezone.as_deref()).unwrap_or("UTC");
        at(Timestamp::now(), name).map(Answer::from)
    }
}

fn at(now: Timestamp, name: &str) -> Result<String, String> {
    let zone = TimeZone::get(name).map_err(|_| format!("no time zone '{name}'"))?;
    let local = now.to_zoned_datetime(zone);
    Ok(local.strftime("%A, %Y-%m-%dT%H:%M:%S%:z (%Q)").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_named_and_applied() {
        let now: Timestamp = "2026-07-01T10:00:00Z".parse().expect("a time");
        assert_eq!(
            at(now, "Europe/Berlin").as_deref(),
            Ok("Wednesday, 2026-07-01T12:00:00+02:00 (Europe/Berlin)")
        );
        assert!(at(now, "Europe/Nowhere").is_err());
    }
}
