use super::*;

fn event(event: Value) -> Value {
    json!({ "type": "event_callback", "token": "old", "team_id": "T1", "api_app_id": "A1",
        "event_id": "Ev1", "event_time": 1, "event": event })
}

fn meaning(payload: Value) -> Meaning {
    decode(payload.to_string().as_bytes()).expect("an event").1
}

fn said(payload: Value) -> Said {
    match meaning(payload) {
        Meaning::Said(said) => *said,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_direct_message_is_said() {
    let message = json!({ "type": "message", "channel": "D1", "channel_type": "im", "user": "U1",
        "team": "T1", "text": "hi &amp; ho", "ts": "17.0001" });
    let arrival = arrival(event(message.clone())).expect("an arrival");
    assert_eq!(
        (
            arrival.key.as_str(),
            arrival.kind.as_str(),
            arrival.subject.as_str()
        ),
        ("Ev1", "message", "T1:D1")
    );
    // What shows who calls is not kept.
    assert!(arrival.data.get("token").is_none());
    let said = said(event(message.clone()));
    assert_eq!(
        (said.text.as_str(), said.chat.as_str()),
        ("hi & ho", "T1:D1")
    );
    assert_eq!(
        (said.sender.id.as_str(), said.message.as_str()),
        ("T1:U1", "17.0001")
    );
    assert!(said.is_private && said.sender.is_verified);
    assert_eq!(
        said.reply_to,
        json!({ "team": "T1", "channel": "D1", "user": "U1" })
    );
    // A thread of an assistant is a conversation of its own.
    let mut threaded = message;
    threaded["thread_ts"] = json!("16.0001");
    let said = self::said(event(threaded));
    assert_eq!(said.chat, "T1:D1:16.0001");
    assert_eq!(said.reply_to["thread_ts"], "16.0001");
}

#[test]
fn in_channels_only_what_is_said_to_the_bot_counts() {
    let mention = json!({ "type": "app_mention", "channel": "C1", "user": "U1",
        "text": "<@UBOT> what now?", "ts": "17.0001" });
    let first = said(event(mention.clone()));
    assert_eq!(
        (first.text.as_str(), first.chat.as_str()),
        ("what now?", "T1:C1:17.0001")
    );
    assert_eq!(first.reply_to["thread_ts"], "17.0001");
    assert!(!first.is_private);
    let mut reply = mention.clone();
    reply["thread_ts"] = json!("16.0001");
    assert_eq!(said(event(reply)).chat, "T1:C1:16.0001");
    let say = |more: Value| {
        let mut message = json!({ "type": "message", "channel": "C1", "channel_type": "channel",
            "user": "U1", "text": "hello", "ts": "18.0001" });
        message
            .as_object_mut()
            .expect("one")
            .extend(more.as_object().expect("one").clone());
        meaning(event(message))
    };
    assert!(matches!(say(json!({})), Meaning::Nothing(_)));
    // The same message comes as app_mention, and is answered once.
    assert!(matches!(
        say(json!({ "text": "<@UBOT> hi" })),
        Meaning::Nothing(_)
    ));
    assert!(matches!(
        say(json!({ "thread_ts": "17.0001" })),
        Meaning::Said(_)
    ));
    let to_another = json!({ "thread_ts": "17.0001", "text": "<@U2> look" });
    assert!(matches!(say(to_another), Meaning::Nothing(_)));
    for nobody in [
        json!({ "bot_id": "B1" }),
        json!({ "user": "UBOT" }),
        json!({ "user": "USLACKBOT" }),
        json!({ "subtype": "channel_join" }),
        json!({ "subtype": "bot_message", "user": null }),
    ] {
        let mut more = nobody;
        more["channel_type"] = json!("im");
        assert!(matches!(say(more.clone()), Meaning::Nothing(_)), "{more}");
    }
}

#[test]
fn edits_and_deletions_name_what_they_are_of() {
    let message = |text: &str| {
        json!({ "type": "message", "user": "U1", "text": text,
        "ts": "17.0001", "thread_ts": "17.0001" })
    };
    let changed = |text: &str| {
        event(
            json!({ "type": "message", "subtype": "message_changed", "hidden": true,
            "channel": "C1", "channel_type": "channel", "ts": "19.0001",
            "message": message(text), "previous_message": message("<@UBOT> a") }),
        )
    };
    let edit = said(changed("<@UBOT> b"));
    assert_eq!(
        (
            edit.text.as_str(),
            edit.message.as_str(),
            edit.chat.as_str(),
            edit.is_edit
        ),
        ("b", "17.0001", "T1:C1:17.0001", true)
    );
    assert!(matches!(meaning(changed("<@UBOT> a")), Meaning::Nothing(_)));
    let deleted = event(
        json!({ "type": "message", "subtype": "message_deleted", "channel": "D1",
        "channel_type": "im", "ts": "19.0001", "deleted_ts": "17.0001",
        "previous_message": { "user": "U1", "text": "a", "ts": "17.0001" } }),
    );
    let Meaning::TakenBack(chat, message) = meaning(deleted) else {
        panic!("nothing is taken back");
    };
    assert_eq!((chat.as_str(), message.as_str()), ("T1:D1", "17.0001"));
}

#[test]
fn commands_are_words_of_their_own() {
    let token = "a".repeat(43);
    assert_eq!(command("/new"), Some(Command::New));
    assert_eq!(command("/stop now"), Some(Command::Stop));
    assert_eq!(
        command(&format!("start {token}")),
        Some(Command::Start(Some(token.clone())))
    );
    assert_eq!(
        command(&format!("/start {token}")),
        Some(Command::Start(Some(token)))
    );
    for words in [
        "start the engine",
        "start",
        "stop",
        "say /new",
        "/newest",
        "",
    ] {
        assert_eq!(command(words), None, "{words}");
    }
    let start = json!({ "type": "app_mention", "channel": "C1", "user": "U1", "ts": "17.0001",
        "text": format!("<@UBOT> start {}", "b".repeat(43)) });
    let start = said(event(start));
    // The whole channel is bound; the answer is in the thread.
    assert_eq!(
        (start.chat.as_str(), &start.reply_to["thread_ts"]),
        ("T1:C1", &json!("17.0001"))
    );
}

#[test]
fn strange_deliveries_are_none() {
    for strange in [
        json!({}),
        json!([]),
        json!({ "type": "event_callback" }),
        json!({ "type": "event_callback", "event_id": "Ev1" }),
        json!({ "type": "event_callback", "event_id": "", "event": { "type": "message" } }),
        json!({ "type": "url_verification", "challenge": "x" }),
    ] {
        assert!(
            decode(strange.to_string().as_bytes()).is_none(),
            "{strange}"
        );
    }
    let echo = json!({ "type": "message", "subtype": "message_changed", "channel": "D1",
        "message": { "bot_id": "B1", "app_id": "A1", "ts": "1.1", "text": "I" } });
    assert!(decode(event(echo).to_string().as_bytes()).is_none());
    let odd = event(json!({ "type": "message", "channel": "a:b", "user": "U1", "ts": "x" }));
    assert!(matches!(meaning(odd), Meaning::Nothing(_)));
    let forwarded = json!({ "type": "message", "channel": "D1", "user": "U1", "ts": "1.1",
        "text": "see", "attachments": [{ "is_msg_unfurl": true, "author_name": "Bo",
            "text": "a &lt; b" }, { "text": "a preview" }] });
    assert_eq!(
        said(event(forwarded)).text,
        "see\n[Forwarded, of Bo: a < b]"
    );
}
