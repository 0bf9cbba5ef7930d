//! Reports of what was not delivered (RFC 3464). Anybody can send one: it counts when it names a message
//! of ours, whose Message-ID nobody guesses, and somebody whom that message went to.

use serde_json::json;

use super::KIND;
use super::arrival::short;
use crate::channel::{Fault, Hub, Meaning};
use crate::ids;
use crate::store::{EventRow, InboundRow, SuppressionRow, now_micros};
use crate::untrusted::mail::{Report, Reported};

/// Writes what a report says.
pub async fn told(hub: &Hub, arrival: &InboundRow, report: &Report) -> Result<Meaning, Fault> {
    let tenant_id = &arrival.tenant_id;
    let Some(message_id) = &report.message_id else {
        return Ok(Meaning::Nothing(
            "a report of delivery that names no message",
        ));
    };
    let sent = hub
        .store
        .email_message(tenant_id, &short(message_id))
        .await?;
    let Some((sent, outbound_id)) = sent.and_then(|sent| {
        let outbound_id = sent.outbound_id.clone()?;
        Some((sent, outbound_id))
    }) else {
        return Ok(Meaning::Nothing("a report of delivery of nothing of ours"));
    };
    let people: Vec<String> = serde_json::from_str(&sent.people).unwrap_or_default();
    let failed: Vec<&Reported> = report
        .recipients
        .iter()
        .filter(|one| one.action == "failed" && people.contains(&one.address))
        .collect();
    if failed.is_empty() {
        return Ok(Meaning::Nothing("a report of delivery that is no failure"));
    }
    let message = hub.store.outbound(tenant_id, &outbound_id).await?;
    for (number, one) in failed.iter().enumerate() {
        let error = format!("{} {}", one.status, one.diagnostic);
        if is_gone(&one.status) {
            suppress(hub, tenant_id, &one.address, error.trim()).await?;
        }
        let data = json!({ "message_id": outbound_id,
            "deployment_id": message.as_ref().map(|found| &found.deployment_id),
            "channel": KIND, "run_id": message.as_ref().and_then(|found| found.run_id.clone()),
            "status": "bounced", "error": error.trim(), "recipient": one.address,
            "inbound_event_id": arrival.id });
        let smith = message.as_ref().map(|found| found.smith_id.as_str());
        let mut event = EventRow::new(tenant_id, "email.send_failed", smith, &data, None);
        // Of the arrival, so that a report that is read twice is told once.
        if number == 0
            && let Some(body) = ids::body(ids::Kind::InboundEvent, &arrival.id)
        {
            event.id = format!("{}{body}", ids::Kind::Event.prefix());
        }
        hub.runs.tell(event).await?;
    }
    Ok(Meaning::Nothing(
        "a report of a message that was not delivered",
    ))
}

/// Whether a status says that the address is none (RFC 3463), now and later.
pub fn is_gone(status: &str) -> bool {
    matches!(
        status,
        "5.1.0" | "5.1.1" | "5.1.2" | "5.1.3" | "5.1.6" | "5.1.10" | "5.2.1"
    )
}

/// Has an address not written to again.
pub async fn suppress(
    hub: &Hub,
    tenant_id: &str,
    address: &str,
    detail: &str,
) -> Result<(), Fault> {
    const MAX_DETAIL: usize = 500;
    let detail: String = detail
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_DETAIL)
        .collect();
    let row = SuppressionRow {
        tenant_id: tenant_id.to_owned(),
        address: address.to_lowercase(),
        reason: "bounce".to_owned(),
        detail: Some(detail),
        created_at: now_micros(),
    };
    Ok(hub.store.put_suppression(&row).await?)
}
