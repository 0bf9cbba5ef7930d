use super::*;

fn press(action: &str) -> Value {
    let kept = json!({ "id": "apr_1", "chat": "T1:C1:17.0001" }).to_string();
    json!({ "type": "block_actions", "token": "old", "trigger_id": "1.2.3",
        "user": { "id": "U1", "team_id": "T1", "username": "ann" }, "team": { "id": "T1" },
        "container": { "channel_id": "C1", "message_ts": "18.0001" },
        "response_url": "https://hooks.slack.com/actions/T1/1/x",
        "actions": [{ "action_id": action, "value": kept, "action_ts": "19.1" }] })
}

#[test]
fn a_press_is_a_decision() {
    let arrival = arrival(None, press(APPROVE)).expect("an arrival");
    assert_eq!(
        (arrival.key.as_str(), arrival.subject.as_str()),
        ("block_actions:1.2.3", "T1:C1:17.0001")
    );
    // Nothing that is kept lets its reader answer as the app.
    assert!(!arrival.data.to_string().contains("hooks.slack.com"));
    assert!(!arrival.data.to_string().contains("old"));
    let Meaning::Decided(decision) = read("block_actions", &press(REJECT)) else {
        panic!("nothing is decided");
    };
    assert_eq!(
        (
            decision.approval_id.as_str(),
            decision.approve,
            decision.chat.as_str()
        ),
        ("apr_1", false, "T1:C1:17.0001")
    );
    assert_eq!(decision.sender.id, "T1:U1");
    assert!(matches!(
        read("block_actions", &press("other")),
        Meaning::Nothing(_)
    ));
    assert!(matches!(
        read("block_actions", &press(ANSWER)),
        Meaning::Nothing(_)
    ));
    assert!(super::arrival(None, json!({ "type": "block_suggestion" })).is_none());
}

#[test]
fn a_form_answers_its_question() {
    let kept = json!({ "id": "apr_1", "chat": "T1:C1:17.0001", "channel": "C1",
        "message": "18.0001" });
    let submitted = json!({ "type": "view_submission", "trigger_id": "1.2.4",
        "user": { "id": "U1" }, "team": { "id": "T1" },
        "view": { "callback_id": form::CALLBACK, "private_metadata": kept.to_string(),
            "state": { "values": { "q:size": { "value": { "type": "plain_text_input",
                "value": "m" } } } } } });
    let asked = asked_in(&submitted).expect("ours");
    assert_eq!(
        (asked.channel.as_str(), asked.message.as_str()),
        ("C1", "18.0001")
    );
    let Meaning::Decided(decision) = read("view_submission", &submitted) else {
        panic!("nothing is decided");
    };
    assert_eq!(decision.content, Some(json!({ "size": "m" })));
    assert!(decision.approve);
}

#[test]
fn slash_commands_are_commands_or_said() {
    let said = |command: &str, text: &str| {
        let fields = json!({ "command": command, "text": text, "team_id": "T1",
            "channel_id": "C1", "user_id": "U1", "user_name": "ann", "trigger_id": "1.2.3",
            "response_url": "https://hooks.slack.com/commands/1" });
        let arrival = command_arrival(None, fields).expect("an arrival");
        assert_eq!(arrival.subject, "T1:C1");
        match read(&arrival.kind, &arrival.data) {
            Meaning::Said(said) => *said,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(said("/smith", "").command, Some(Command::Help));
    assert_eq!(said("/smith", "new").command, Some(Command::New));
    assert_eq!(said("/stop", "").command, Some(Command::Stop));
    assert_eq!(
        said("/smith", "start abc").command,
        Some(Command::Start(Some("abc".into())))
    );
    let question = said("/smith", "stop the music &amp; go");
    assert_eq!(question.command, None);
    assert_eq!(question.text, "stop the music & go");
    assert_eq!(
        (question.chat.as_str(), question.sender.id.as_str()),
        ("T1:C1", "T1:U1")
    );
    assert!(command_arrival(None, json!({ "ssl_check": "1" })).is_none());
}

#[test]
fn cards_are_within_slacks_limits() {
    let card = Card {
        approval_id: "apr_1".to_owned(),
        tool: "delete_<all>".to_owned(),
        arguments: "<&>".repeat(5000),
        question: None,
        link: None,
    };
    let (title, shown) = blocks(&card, "T1:C1:17.0001");
    assert_eq!(title, "May I use delete_&lt;all&gt;?");
    let text = shown[0]["text"]["text"].as_str().expect("text");
    assert!(text.encode_utf16().count() <= 3000 && text.ends_with("…\n```"));
    let buttons = shown[1]["elements"].as_array().expect("buttons");
    assert_eq!(buttons.len(), 2);
    // What Slack has no field for is asked on a page.
    let odd = Card {
        question: Some(Question {
            message: "Which?".to_owned(),
            schema: json!({ "properties": { "a": { "type": "object" } } }),
        }),
        link: Some("https://gateway.example/q".to_owned()),
        ..card
    };
    let (_, shown) = blocks(&odd, "T1:C1");
    assert_eq!(shown[1]["elements"][0]["url"], "https://gateway.example/q");
    assert_eq!(shown[1]["elements"][1]["action_id"], REJECT);
}
