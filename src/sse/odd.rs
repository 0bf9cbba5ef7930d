//! Events that are framed as no standard says, and what they were meant to be.

use serde::de::IgnoredAny;

/// What an event is whose data is no JSON.
#[derive(Debug, PartialEq, Eq)]
pub enum Odd<'a> {
    /// A sign of life, whatever it holds.
    Alive,
    /// The data of several events, or of one, as they should have been sent.
    Events(Vec<&'a [u8]>),
}

const DONE: &[u8] = b"[DONE]";

/// What was meant by an event whose data is no JSON: servers leave out the empty lines between events,
/// say `data:` twice, spell the end in ways of their own, and send the time of day as a ping. `None`
/// where nothing is known to be meant.
pub fn odd<'a>(name: Option<&[u8]>, data: &'a [u8]) -> Option<Odd<'a>> {
    if matches!(
        name,
        Some(b"ping" | b"heartbeat" | b"keepalive" | b"keep-alive")
    ) {
        return Some(Odd::Alive);
    }
    let mut events = Vec::new();
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let mut line = line.trim_ascii();
        while let Some(rest) = line.strip_prefix(b"data:") {
            line = rest.trim_ascii();
        }
        match line {
            b"" => {}
            DONE | b"DONE" | b"[done]" | b"\"[DONE]\"" | b"\"DONE\"" => events.push(DONE),
            _ if line.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(line).is_ok() => {
                events.push(line);
            }
            _ => return None,
        }
    }
    // What is as it was before has no other meaning.
    match &events[..] {
        [] => None,
        [one] if *one == data => None,
        _ => Some(Odd::Events(events)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_told() {
        let events = |data: &'static str| match odd(None, data.as_bytes()) {
            Some(Odd::Events(events)) => events
                .into_iter()
                .map(|event| String::from_utf8_lossy(event).into_owned())
                .collect(),
            _ => Vec::new(),
        };
        assert_eq!(
            events("{\"a\":1}\n{\"b\":2}\n[DONE]"),
            ["{\"a\":1}", "{\"b\":2}", "[DONE]"]
        );
        assert_eq!(events("data: {}"), ["{}"]);
        assert_eq!(events("data: data:[DONE]"), ["[DONE]"]);
        for done in ["DONE", "\"[DONE]\"", "[done]"] {
            assert_eq!(events(done), ["[DONE]"], "{done}");
        }
        for nothing in ["{}", "[DONE]", "{\n\"a\":1}", "", "nonsense", "{} {}"] {
            assert_eq!(odd(None, nothing.as_bytes()), None, "{nothing}");
        }
        assert_eq!(odd(Some(b"ping"), b"2024-01-01"), Some(Odd::Alive));
    }
}
