//! What people find when they type a slash
//! (<https://docs.discord.com/developers/interactions/application-commands>).

use serde_json::{Value, json};

/// Files that may come with a question.
pub const FILES: [&str; 3] = ["file", "file2", "file3"];

const TEXT: u64 = 3;
const ATTACHMENT: u64 = 11;

fn command(name: &str, description: &str, options: Value) -> Value {
    // Within servers and in messages to the bot.
    json!({ "type": 1, "name": name, "description": description, "options": options,
        "contexts": [0, 1], "integration_types": [0] })
}

/// All commands, which take the place of those that were there.
pub fn all() -> Value {
    let text = |name: &str, description: &str| json!({ "type": TEXT, "name": name, "description": description, "required": true });
    let mut asked = vec![text("message", "What you want to say")];
    for name in FILES {
        let file = json!({ "type": ATTACHMENT, "name": name, "description": "A file to look at",
            "required": false });
        asked.push(file);
    }
    json!([
        command("ask", "Say something to the assistant", json!(asked)),
        command("new", "Begin a new conversation", json!([])),
        command("stop", "End what the assistant is doing", json!([])),
        command("help", "What the assistant does here", json!([])),
        command(
            "start",
            "Connect this channel with the token that you were given",
            json!([text("token", "The token")])
        ),
    ])
}
