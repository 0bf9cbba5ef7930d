//! How long a provider wants to be left alone. There are many ways to say it.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What is longer is cut: no sum with it may overflow.
const LONGEST: f64 = 31.0 * 86_400.0;

fn seconds(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(LONGEST)))
}

/// From now on; what is past is no pause.
fn until(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::now()).unwrap_or_default()
}

/// What an answer's headers say. `limited`: the answer is about a limit, else what they say of
/// limits is no reason to wait.
pub(super) fn of_headers(headers: &HeaderMap, limited: bool) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let millis = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok());
    if let Some(pause) = millis.and_then(|millis| seconds(millis / 1_000.0)) {
        return Some(pause);
    }
    if let Some(pause) = text("retry-after").and_then(retry_after) {
        return Some(pause);
    }
    if !limited {
        return None;
    }
    // A provider has several limits at once; the ones that are used up are those to wait for.
    const LIMITS: [(&str, &str); 9] = [
        (
            "x-ratelimit-reset-requests",
            "x-ratelimit-remaining-requests",
        ),
        ("x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens"),
        (
            "anthropic-ratelimit-requests-reset",
            "anthropic-ratelimit-requests-remaining",
        ),
        (
            "anthropic-ratelimit-tokens-reset",
            "anthropic-ratelimit-tokens-remaining",
        ),
        (
            "anthropic-ratelimit-input-tokens-reset",
            "anthropic-ratelimit-input-tokens-remaining",
        ),
        (
            "anthropic-ratelimit-output-tokens-reset",
            "anthropic-ratelimit-output-tokens-remaining",
        ),
        (
            "anthropic-ratelimit-unified-reset",
            "anthropic-ratelimit-unified-remaining",
        ),
        ("x-ratelimit-reset", "x-ratelimit-remaining"),
        ("ratelimit-reset", "ratelimit-remaining"),
    ];
    let (mut spent, mut any) = (None, None);
    for (reset, remaining) in LIMITS {
        let Some(pause) = text(reset).and_then(reset_of) else {
            continue;
        };
        let left = text(remaining).and_then(|left| left.parse::<f64>().ok());
        if left.is_some_and(|left| left <= 0.0) {
            spent = spent.max(Some(pause));
        }
        any = any.max(Some(pause));
    }
    spent.or(any)
}

/// Seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(number) = text.parse::<f64>() {
        return seconds(number);
    }
    if let Ok(at) = httpdate::parse_http_date(text) {
        // A date has no fractions: what is left of its second is waited for as well.
        let left = until(at);
        return Some(left + Duration::from_secs(u64::from(!left.is_zero())));
    }
    duration(text)
}

/// A moment, a duration, seconds, or seconds or milliseconds since 1970.
fn reset_of(text: &str) -> Option<Duration> {
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(until(at.into()));
    }
    let Ok(number) = text.parse::<f64>() else {
        return duration(text);
    };
    let since_1970 = match number {
        1e11.. => Some(number / 1_000.0),
        1e9.. => Some(number),
        _ => None,
    };
    match since_1970 {
        Some(at) if at < 1e11 => Some(until(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(at))),
        Some(_) => None,
        None => seconds(number),
    }
}

/// What an error's members say: Google's `RetryInfo`, and what others call `retry_after`.
pub(super) fn in_body(members: &Map<String, Value>) -> Option<Duration> {
    let details = members.get("details").and_then(Value::as_array);
    let told = details.into_iter().flatten().take(32).find_map(|detail| {
        let delay = &detail["retryDelay"];
        match delay {
            Value::String(text) => duration(text),
            // The same as its parts.
            Value::Object(parts) => {
                let part = |name: &str| match parts.get(name) {
                    Some(Value::String(text)) => text.parse::<f64>().ok(),
                    Some(number) => number.as_f64(),
                    None => None,
                };
                seconds(part("seconds").unwrap_or(0.0) + part("nanos").unwrap_or(0.0) / 1e9)
            }
            _ => None,
        }
    });
    let number = |name: &str, of: f64| match members.get(name)? {
        Value::Number(number) => seconds(number.as_f64()? / of),
        Value::String(text) => match text.parse::<f64>() {
            Ok(number) => seconds(number / of),
            Err(_) => duration(text),
        },
        _ => None,
    };
    told.or_else(|| number("retry_after_ms", 1_000.0))
        .or_else(|| number("retry_after", 1.0))
        .or_else(|| number("retry_after_seconds", 1.0))
        .or_else(|| number("retryAfter", 1.0))
}

/// What a message says: "Please try again in 1.5s".
pub(super) fn in_text(message: &str) -> Option<Duration> {
    const PHRASES: [&str; 7] = [
        "try again in ",
        "try again after ",
        "retry in ",
        "retry after ",
        "retrying in ",
        "please wait ",
        "resets in ",
    ];
    let lower = message.to_ascii_lowercase();
    PHRASES.iter().find_map(|phrase| {
        let at = lower.find(phrase)? + phrase.len();
        let rest = lower[at..].trim_start_matches("about ");
        duration_at(rest).map(|(pause, _)| pause)
    })
}

/// `6m0s`, `1.5s`, `20ms`, `1 minute 30 seconds`; all of `text`.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim().to_ascii_lowercase();
    let (pause, rest) = duration_at(&text)?;
    rest.trim().is_empty().then_some(pause)
}

/// The duration that `text` begins with, and what is behind it.
fn duration_at(text: &str) -> Option<(Duration, &str)> {
    let mut rest = text;
    let mut sum = None;
    loop {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let Ok(number) = rest[..digits].trim_end_matches('.').parse::<f64>() else {
            break;
        };
        let behind = rest[digits..].trim_start();
        let letters = behind
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(behind.len());
        let unit = match &behind[..letters] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => 1e-3,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => break,
        };
        sum = Some(sum.unwrap_or(0.0) + number * unit);
        rest = behind[letters..].trim_start_matches([' ', ',']);
        rest = rest.strip_prefix("and ").unwrap_or(rest);
    }
    Some((seconds(sum?)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, String)], limited: bool) -> Option<f64> {
        let headers = headers.iter().map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, value.parse().expect("a value"))
        });
        of_headers(&headers.collect(), limited).map(|pause| pause.as_secs_f64())
    }

    #[test]
    fn headers_say_it_in_many_ways() {
        let one = |name, value: &str| of(&[(name, value.to_owned())], true);
        assert_eq!(one("retry-after", "7"), Some(7.0));
        assert_eq!(one("retry-after", "0.25"), Some(0.25));
        assert_eq!(one("retry-after", "-1"), None);
        assert_eq!(one("retry-after", "1e300"), Some(LONGEST));
        assert_eq!(one("retry-after", "NaN"), None);
        assert_eq!(one("retry-after-ms", "1500"), Some(1.5));
        assert_eq!(one("x-ratelimit-reset-requests", "6m0s"), Some(360.0));
        assert_eq!(one("x-ratelimit-reset-tokens", "20ms"), Some(0.02));
        assert_eq!(one("x-ratelimit-reset-tokens", "2m59.56s"), Some(179.56));
        assert_eq!(one("x-ratelimit-reset", "12"), Some(12.0));
        assert_eq!(one("x-ratelimit-reset", "nonsense"), None);
        let near = |pause: Option<f64>, wanted: f64| {
            let pause = pause.expect("a pause");
            assert!((wanted - 2.0..=wanted + 2.0).contains(&pause), "{pause}");
        };
        let at = SystemTime::now() + Duration::from_secs(60);
        near(one("retry-after", &httpdate::fmt_http_date(at)), 60.0);
        let at: OffsetDateTime = at.into();
        let text = at.format(&Rfc3339).expect("a date");
        near(one("anthropic-ratelimit-requests-reset", &text), 60.0);
        near(
            one("x-ratelimit-reset", &at.unix_timestamp().to_string()),
            60.0,
        );
        near(
            one("x-ratelimit-reset", &format!("{}000", at.unix_timestamp())),
            60.0,
        );
        let past = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH);
        assert_eq!(one("retry-after", &past), Some(0.0));
    }

    #[test]
    fn the_limit_that_is_used_up_is_waited_for() {
        let headers = [
            ("x-ratelimit-reset-requests", "1s".to_owned()),
            ("x-ratelimit-remaining-requests", "0".to_owned()),
            ("x-ratelimit-reset-tokens", "6m0s".to_owned()),
            ("x-ratelimit-remaining-tokens", "100".to_owned()),
        ];
        assert_eq!(of(&headers, true), Some(1.0));
        assert_eq!(of(&headers[2..], true), Some(360.0));
        // They come with every answer.
        assert_eq!(of(&headers, false), None);
    }

    #[test]
    fn messages_say_it_too() {
        for (text, wanted) in [
            (
                "Rate limit reached. Please try again in 1.5s. Visit",
                Some(1.5),
            ),
            ("please try again in 20ms.", Some(0.02)),
            ("Try again in 2m", Some(120.0)),
            ("Please try again in 6m0s.", Some(360.0)),
            ("Please retry in 34.074824224s.", Some(34.074824224)),
            ("Please retry after 9 seconds.", Some(9.0)),
            ("try again in 1 minute and 30 seconds", Some(90.0)),
            ("try again in 1h2m3.5s", Some(3723.5)),
            ("try again in a while", None),
            ("try again in 5 apples", None),
            ("retry after 99999999999999999999999999 days", Some(LONGEST)),
            ("nothing", None),
        ] {
            let told = in_text(text).map(|pause| pause.as_secs_f64());
            assert_eq!(told, wanted, "{text}");
        }
    }
}
