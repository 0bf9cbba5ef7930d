//! What a platform says of a message after it was sent.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Fault, Hub};
use crate::store::{OutboundRow, now_micros};

/// A message that is on its way is asked for again after so long.
const SOON: Duration = Duration::from_secs(4);

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// It is there, under the platform's own name.
    Sent(String),
    /// It is not, and will not be.
    Failed(String),
}

/// A piece of a message, by the key that it was sent with.
pub fn piece_of(key: &str) -> Option<(&str, usize)> {
    let (id, at) = key.rsplit_once('-')?;
    Some((id, at.parse().ok()?))
}

/// A message after a report of one of its pieces; `None`: the report says nothing new.
fn after(mut row: OutboundRow, at: usize, report: &Report) -> Result<Option<OutboundRow>, Fault> {
    let mut progress: Value = serde_json::from_str(&row.progress).unwrap_or_default();
    let sent = progress["sent"].as_array().map_or(0, Vec::len);
    let is_sending = progress["sending"].as_u64() == Some(at as u64);
    let concerned = at < sent || is_sending;
    if !concerned {
        return Ok(None);
    }
    let is_over = row.due_at.is_none();
    match report {
        // It is known already.
        Report::Sent(_) if at < sent => return Ok(None),
        _ if !is_over => {
            return Err(Fault::Later {
                why: "the message is on its way".to_owned(),
                after: Some(SOON),
            });
        }
        Report::Sent(name) => {
            if let Some(names) = progress["sent"].as_array_mut() {
                names.push(json!(name));
            } else {
                progress["sent"] = json!([name]);
            }
            // What comes after it is sent now.
            "pending".clone_into(&mut row.status);
            row.last_error = None;
            row.due_at = Some(now_micros());
        }
        Report::Failed(_) if row.status == "failed" => return Ok(None),
        Report::Failed(why) => {
            // Redelivered, it goes on from here.
            if let Some(names) = progress["sent"].as_array_mut() {
                names.truncate(at);
            }
            "failed".clone_into(&mut row.status);
            row.last_error = Some(why.clone());
        }
    }
    progress["sending"] = Value::Null;
    row.progress = progress.to_string();
    row.updated_at = now_micros();
    Ok(Some(row))
}

impl Hub {
    /// Writes what a platform says of a piece of a message. Answers the message when that was news.
    pub async fn reported(
        &self,
        tenant_id: &str,
        key: &str,
        report: &Report,
    ) -> Result<Option<OutboundRow>, Fault> {
        let Some((id, at)) = piece_of(key) else {
            return Ok(None);
        };
        let Some(row) = self.store.outbound(tenant_id, id).await? else {
            return Ok(None);
        };
        let Some(row) = after(row, at, report)? else {
            return Ok(None);
        };
        if !self.store.record_outbound(&row, None).await? {
            return Err(Fault::later("the message is another node's by now"));
        }
        match report {
            Report::Sent(_) => self.outgoing.notify_one(),
            Report::Failed(_) => self.tell_failure(&row).await,
        }
        Ok(Some(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(status: &str, due_at: Option<i64>, progress: &Value) -> OutboundRow {
        OutboundRow {
            id: "out_1".to_owned(),
            tenant_id: "t".to_owned(),
            smith_id: "s".to_owned(),
            deployment_id: "d".to_owned(),
            channel: "whatsapp".to_owned(),
            chat: "1".to_owned(),
            run_id: None,
            kind: "answer".to_owned(),
            reply_to: "{}".to_owned(),
            content: None,
            status: status.to_owned(),
            attempts: 1,
            takings: 0,
            progress: progress.to_string(),
            last_error: Some("unknown".to_owned()),
            due_at,
            created_at: 0,
            updated_at: 0,
        }
    }

    #[test]
    fn what_was_unknown_is_known_and_goes_on() {
        let unknown = row("unknown", None, &json!({ "sent": ["a"], "sending": 1 }));
        let now = after(unknown, 1, &Report::Sent("b".to_owned())).expect("taken");
        let now = now.expect("news");
        assert_eq!((now.status.as_str(), now.last_error), ("pending", None));
        assert_eq!(
            serde_json::from_str::<Value>(&now.progress).ok(),
            Some(json!({ "sent": ["a", "b"], "sending": null }))
        );
        assert!(now.due_at.is_some());
    }

    #[test]
    fn what_failed_afterwards_has_failed_once() {
        let failed = Report::Failed("gone".to_owned());
        let sent = row(
            "sent",
            None,
            &json!({ "sent": ["a", "b"], "sending": null }),
        );
        let now = after(sent, 1, &failed).expect("taken").expect("news");
        assert_eq!(
            (now.status.as_str(), now.last_error.as_deref()),
            ("failed", Some("gone"))
        );
        assert!(now.progress.contains(r#"["a"]"#) && now.due_at.is_none());
        assert_eq!(after(now, 0, &failed), Ok(None));
    }

    #[test]
    fn what_is_on_its_way_is_waited_for() {
        let held = row("pending", Some(9), &json!({ "sent": [], "sending": 0 }));
        let report = Report::Failed("x".to_owned());
        assert!(matches!(
            after(held.clone(), 0, &report),
            Err(Fault::Later { .. })
        ));
        // Of a piece that was never sent.
        assert_eq!(after(held, 3, &report), Ok(None));
        assert_eq!(piece_of("out_1-0"), Some(("out_1", 0)));
        assert_eq!(piece_of("out_1"), None);
    }
}
