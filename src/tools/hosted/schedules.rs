//! `schedules`: a smith makes, lists and drops turns that it begins by itself. Making and dropping wait
//! for a human.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Answer, Function, Hosted, Parts, ToolUser, object};
use crate::cron::Clock;
use crate::ids;
use crate::model::{Part, Role, Turn};
use crate::store::{MAX_SCHEDULES, ScheduleRow, now_micros};

const MAX_MESSAGE: usize = 8 * 1024;
const MAX_WORD: usize = 200;
const LISTED: i64 = 100;

pub struct ScheduleTools;

#[async_trait]
impl Hosted for ScheduleTools {
    fn name(&self) -> &'static str {
        "schedules"
    }

    fn description(&self) -> &'static str {
        "Makes, lists and drops turns that begin by the clock; a human approves changes."
    }

    fn functions(&self) -> Vec<Function> {
        let word =
            |about: &str| json!({ "type": "string", "maxLength": MAX_WORD, "description": about });
        let message = json!({ "type": "string", "maxLength": MAX_MESSAGE,
            "description": "What you are told at each of these times" });
        vec![
            Function {
                name: "create_schedule",
                description: "Begin a turn by the clock, again and again",
                parameters: object(
                    json!({
                        "cron": word("Five fields: minute, hour, day, month, weekday"),
                        "timezone": word("An IANA name; left out: the person's own zone"),
                        "name": word("What you call it"),
                        "message": message,
                    }),
                    &["cron", "message"],
                ),
            },
            Function {
                name: "list_schedules",
                description: "List what you have planned",
                parameters: object(json!({}), &[]),
            },
            Function {
                name: "delete_schedule",
                description: "Drop something that you have planned",
                parameters: object(json!({ "id": word("As list_schedules names it") }), &["id"]),
            },
        ]
    }

    fn needs_approval(&self, function: &str) -> bool {
        function != "list_schedules"
    }

    async fn call(
        &self,
        function: &str,
        args: &Map<String, Value>,
        caller: &ToolUser,
        parts: &Parts,
    ) -> Result<Answer, String> {
        let (tenant, smith) = (&*caller.tenant_id, &*caller.smith_id);
        let failed = |_| "schedules cannot be reached now".to_owned();
        match function {
            "create_schedule" => create(args, caller, parts).await,
            "delete_schedule" => {
                let id = super::text(args, "id")?;
                let deleted = parts.store.delete_schedule(tenant, smith, id).await;
                match deleted.map_err(failed)? {
                    true => Ok("Dropped.".to_owned().into()),
                    false => Err(format!("there is no schedule '{id}'")),
                }
            }
            _ => {
                let found = parts.store.schedules(tenant, smith, None, LISTED).await;
                let found = found.map_err(failed)?.into_vec();
                let listed: Vec<Value> = found.iter().map(shown).collect();
                Ok(Value::Array(listed).to_string().into())
            }
        }
    }
}

fn shown(row: &ScheduleRow) -> Value {
    let at = |micros: Option<i64>| {
        let at = micros.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
        at.map(|at| at.to_string())
    };
    let input: Value = serde_json::from_str(&row.input).unwrap_or_default();
    json!({ "id": row.id, "name": row.name, "cron": row.cron, "timezone": row.timezone,
        "message": input[0]["content"], "enabled": row.enabled,
        "next_fire_at": at(row.next_fire_at) })
}

async fn create(
    args: &Map<String, Value>,
    caller: &ToolUser,
    parts: &Parts,
) -> Result<Answer, String> {
    let (cron, message) = (super::text(args, "cron")?, super::text(args, "message")?);
    let given = |name: &str| {
        args.get(name)
            .and_then(Value::as_str)
            .filter(|s| !s.is_empty())
    };
    let zone = given("timezone")
        .or(caller.timezone.as_deref())
        .unwrap_or("UTC");
    let name = given("name");
    let words = [cron, zone, name.unwrap_or_default()];
    if words
        .iter()
        .any(|word| word.len() > MAX_WORD || word.contains('\0'))
    {
        return Err(format!(
            "each of cron, timezone and name has at most {MAX_WORD} bytes"
        ));
    }
    if message.trim().is_empty() || message.len() > MAX_MESSAGE || message.contains('\0') {
        return Err(format!("the message must be 1 to {MAX_MESSAGE} bytes"));
    }
    let clock = Clock::new(cron, zone).map_err(|error| error.to_string())?;
    let turns = [Turn {
        role: Role::User,
        parts: vec![Part::Text {
            text: message.to_owned(),
        }],
    }];
    let now = now_micros();
    let mut row = ScheduleRow {
        id: ids::mint(ids::Kind::Schedule),
        tenant_id: caller.tenant_id.to_string(),
        smith_id: caller.smith_id.to_string(),
        name: name.map(str::to_owned),
        cron: cron.to_owned(),
        timezone: zone.to_owned(),
        turns: serde_json::to_string(&turns).map_err(|error| error.to_string())?,
        input: json!([{ "role": "user", "content": message }]).to_string(),
        thread_id: None,
        enabled: true,
        jitter_seconds: 0,
        next_fire_at: None,
        due_at: None,
        last_fire_at: None,
        created_at: now,
    };
    clock.set_next(&mut row, now);
    let kept = parts.store.insert_schedule(&row, MAX_SCHEDULES).await;
    match kept.map_err(|_| "schedules cannot be reached now".to_owned())? {
        true => Ok(shown(&row).to_string().into()),
        false => Err(format!("there are {MAX_SCHEDULES} schedules already")),
    }
}
