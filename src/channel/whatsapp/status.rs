//! What becomes of a message, as WhatsApp says afterwards
//! (<https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/status>).

use serde_json::Value;

use super::{KIND, api, template};
use crate::channel::report::{Report, piece_of};
use crate::channel::{Fault, Hub, Meaning};
use crate::store::InboundRow;

/// A message that is on its way is waited for so often.
const WAITS: i64 = 7;

/// What a status says of which message (by the key that it was sent with), and the code of an error.
pub fn report(status: &Value) -> Option<(&str, Report, Option<i64>)> {
    let key = status["biz_opaque_callback_data"].as_str()?;
    match status["status"].as_str()? {
        "sent" | "delivered" | "read" | "played" => {
            let name = status["id"].as_str()?.to_owned();
            Some((key, Report::Sent(name), None))
        }
        "failed" => {
            let error = &status["errors"][0];
            let why = format!("WhatsApp did not deliver it: {}", api::told(error));
            Some((key, Report::Failed(why), error["code"].as_i64()))
        }
        _ => None,
    }
}

/// Writes what became of a message.
pub async fn interpret(hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
    let data: Value =
        serde_json::from_str(&arrival.data).map_err(|error| Fault::Never(error.to_string()))?;
    let Some((key, report, code)) = report(&data["status"]) else {
        return Ok(Meaning::Nothing(
            "says nothing of a message of this gateway",
        ));
    };
    if code == Some(api::WINDOW_CLOSED) {
        send_template(hub, arrival, key).await?;
    }
    match hub.reported(&arrival.tenant_id, key, &report).await {
        Ok(_) => Ok(Meaning::Nothing("what became of a message")),
        Err(Fault::Later { .. }) if arrival.attempts + 1 >= WAITS => {
            Ok(Meaning::Nothing("the message is still on its way"))
        }
        Err(fault) => Err(fault),
    }
}

/// Puts the deployment's template into the outbox, before the message is told to have failed: what is
/// begun again finds it there.
async fn send_template(hub: &Hub, arrival: &InboundRow, key: &str) -> Result<(), Fault> {
    let Some((id, at)) = piece_of(key) else {
        return Ok(());
    };
    let row = hub.store.outbound(&arrival.tenant_id, id).await?;
    let Some(row) = row.filter(|row| row.due_at.is_none() && row.kind != "approval") else {
        return Ok(());
    };
    let piece = match hub.channel(KIND) {
        Some(channel) => hub.words_at(channel.as_ref(), &row, at).await?,
        None => None,
    };
    if let Some(message) = template::after(hub, &row, at, piece.as_deref()).await?
        && hub.store.insert_outbound(&message).await?
    {
        hub.outgoing.notify_one();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn statuses_are_of_the_message_that_they_name() {
        let status = |word: &str| {
            json!({ "id": "wamid.1", "status": word, "timestamp": "1750030073",
                "recipient_id": "16505551234", "biz_opaque_callback_data": "out_1-0",
                "errors": [{ "code": 131_026, "title": "Message undeliverable",
                    "error_data": { "details": "Not on WhatsApp." } }] })
        };
        for word in ["sent", "delivered", "read"] {
            let said = Report::Sent("wamid.1".to_owned());
            assert_eq!(report(&status(word)), Some(("out_1-0", said, None)));
        }
        let failed = status("failed");
        let (_, failed, code) = report(&failed).expect("a report");
        assert_eq!(code, Some(131_026));
        let Report::Failed(why) = failed else {
            panic!("it has failed");
        };
        assert!(
            why.ends_with("Message undeliverable (131026): Not on WhatsApp."),
            "{why}"
        );
        assert_eq!(report(&status("warning")), None);
        assert_eq!(report(&json!({ "id": "wamid.1", "status": "sent" })), None);
    }
}
