//! Deliveries as WhatsApp's documentation shows them.

use super::*;

fn delivery(messages: Value) -> Value {
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": "102290129340398",
        "changes": [{ "field": "messages", "value": { "messaging_product": "whatsapp",
            "metadata": { "display_phone_number": "15550783881", "phone_number_id": "106540352242922" },
            "contacts": [{ "profile": { "name": "Sheena Nelson" }, "wa_id": "16505551234" }],
            "messages": messages } }] }] })
}

fn message(mut more: Value) -> Value {
    let mut message = json!({ "from": "16505551234", "id": "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQz",
        "timestamp": "1749416383", "type": "text" });
    message
        .as_object_mut()
        .expect("an object")
        .append(more.as_object_mut().expect("one"));
    message
}

fn one(more: Value) -> Meaning {
    let delivery = delivery(json!([message(more)]));
    let mut found = decode(delivery.to_string().as_bytes());
    assert_eq!(found.len(), 1);
    found.remove(0).1
}

fn said(more: Value) -> Box<Said> {
    match one(more) {
        Meaning::Said(said) => said,
        other => panic!("nothing is said: {other:?}"),
    }
}

#[test]
fn a_text_is_said_by_its_sender() {
    let said = said(json!({ "text": { "body": " Does it come in another color? " } }));
    assert_eq!(said.text, "Does it come in another color?");
    assert_eq!(
        (said.sender.id.as_str(), said.chat.as_str()),
        ("16505551234", "16505551234")
    );
    assert_eq!(said.sender.name.as_deref(), Some("Sheena Nelson"));
    assert_eq!(said.reply_to["to"], "16505551234");
    assert_eq!(
        said.reply_to["message"],
        "wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQz"
    );
    assert!(said.is_private && said.command.is_none());
}

#[test]
fn each_message_and_status_is_an_arrival() {
    let mut delivery = delivery(json!([
        message(json!({ "id": "wamid.1" })),
        message(json!({ "id": "wamid.2" })),
        message(json!({ "id": "" })),
        { "type": "text" },
    ]));
    delivery["entry"][0]["changes"][0]["value"]["statuses"] = json!([
        { "id": "wamid.3", "status": "sent", "recipient_id": "16505551234" },
        { "id": "wamid.3", "status": "read", "recipient_id": "16505551234" },
    ]);
    let found = arrivals(&delivery);
    let keys: Vec<&str> = found
        .iter()
        .map(|(_, arrival)| arrival.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "wamid.1",
            "wamid.2",
            "status.sent:wamid.3",
            "status.read:wamid.3"
        ]
    );
    assert!(found.iter().all(|(number, _)| number == "106540352242922"));
    delivery["entry"][0]["changes"][0]["field"] = json!("account_update");
    assert!(arrivals(&delivery).is_empty());
    for other in [
        json!({}),
        json!([]),
        json!({ "object": "page", "entry": [] }),
    ] {
        assert!(arrivals(&other).is_empty());
    }
}

#[test]
fn presses_are_decisions_and_choices_are_words() {
    let press = |id: &str| {
        json!({ "type": "interactive", "context": { "from": "15550783881", "id": "wamid.card" },
            "interactive": { "type": "button_reply",
                "button_reply": { "id": id, "title": "Approve" } } })
    };
    let Meaning::Decided(decision) = one(press("a:apr_1")) else {
        panic!("nothing is decided");
    };
    assert!(decision.approve && decision.approval_id == "apr_1");
    assert!(matches!(one(press("r:apr_1")), Meaning::Decided(d) if !d.approve));
    assert_eq!(said(press("blue")).text, "Approve");
    let list = json!({ "type": "interactive", "interactive": { "type": "list_reply",
        "list_reply": { "id": "priority_express", "title": "Priority Mail", "description": "1 to 2 days" } } });
    assert_eq!(said(list).text, "Priority Mail\n1 to 2 days");
    let quick =
        json!({ "type": "button", "button": { "payload": "Unsubscribe", "text": "Unsubscribe" } });
    assert_eq!(said(quick).text, "Unsubscribe");
}

#[test]
fn changes_and_deletions_name_what_they_are_of() {
    let edit = said(json!({ "type": "edit", "id": "wamid.new", "edit": {
        "original_message_id": "wamid.old", "message": { "type": "text", "text": { "body": "third" } } } }));
    assert!(edit.is_edit && edit.message == "wamid.old" && edit.text == "third");
    let gone = one(json!({ "type": "revoke", "revoke": { "original_message_id": "wamid.old" } }));
    assert!(
        matches!(gone, Meaning::TakenBack(chat, id) if chat == "16505551234" && id == "wamid.old")
    );
}

#[test]
fn what_is_no_text_is_told_in_words() {
    let place = json!({ "type": "location", "location": { "latitude": 37.44, "longitude": -122.16,
        "name": "Lucky's", "address": "1 Main St" } });
    assert_eq!(
        said(place).text,
        "[Location: 37.44, -122.16, Lucky's, 1 Main St]"
    );
    let contacts = json!({ "type": "contacts", "contacts": [{ "name": { "formatted_name": "Ann Lee" },
        "phones": [{ "phone": "+1 555" }] }] });
    assert_eq!(said(contacts).text, "[Contact: Ann Lee +1 555]");
    for nothing in [
        json!({ "type": "reaction", "reaction": { "message_id": "wamid.1", "emoji": "👍" } }),
        json!({ "type": "system", "system": { "body": "changed" } }),
        json!({ "type": "unsupported", "errors": [{ "code": 131_051 }] }),
        json!({ "type": "text", "from": null }),
    ] {
        assert!(matches!(one(nothing), Meaning::Nothing(_)));
    }
    let image = said(json!({ "type": "image", "image": { "id": "1", "caption": "this" } }));
    assert_eq!(image.text, "this");
    assert_eq!(
        name_of("audio", &json!({ "voice": true }), Some("audio/ogg")),
        "voice.ogg"
    );
    assert_eq!(
        name_of("document", &json!({}), Some("application/vnd.ms-excel")),
        "document"
    );
}

#[test]
fn groups_are_answered_when_they_ask() {
    let group = |more: Value| {
        let mut all = json!({ "group_id": "Y2FwaV9n", "text": { "body": "hi" } });
        all.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("one").clone());
        one(all)
    };
    assert!(matches!(group(json!({})), Meaning::Nothing(_)));
    let Meaning::Said(reply) = group(json!({ "context": { "from": "15550783881" } })) else {
        panic!("the reply is not seen");
    };
    assert!(!reply.is_private && reply.chat == "Y2FwaV9n");
    assert_eq!(reply.reply_to["group"], true);
    assert!(matches!(
        group(json!({ "text": { "body": "/help" } })),
        Meaning::Said(_)
    ));
}

#[test]
fn commands_are_words_of_their_own() {
    assert_eq!(
        command("/Start abc"),
        Some(Command::Start(Some("abc".into())))
    );
    assert_eq!(command("/stop"), Some(Command::Stop));
    assert_eq!(command("/newest"), None);
    assert_eq!(command("say /new"), None);
    // Who hides their number is known by another id.
    let hidden = said(
        json!({ "from": null, "from_user_id": "US.13491208655302741918",
        "text": { "body": "hi" } }),
    );
    assert_eq!(hidden.sender.id, "US.13491208655302741918");
    assert_eq!(hidden.reply_to["recipient"], "US.13491208655302741918");
}
