//! Tools and the form of the answer: schemas in the target's dialect, names that it takes, and the
//! ways to hold a model to a schema that has no member for it.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::fence::Fence;
use super::names::tool_name;
use super::undo::{Answer, Undo};
use crate::config::{Rules, Structured};
use crate::model::error::ModelError;
use crate::model::provider::JSON_ONLY;
use crate::model::request::{Effort, ModelRequest, Part, ResponseFormat, ToolChoice, ToolDef};
use crate::model::rules::is_forced;
use crate::model::schema;

const ANSWER_TOOL: &str = "answer";

/// Says the form of the answer in a way that the target takes.
pub fn fit_format(
    request: &mut ModelRequest,
    rules: &Rules,
    undo: &mut Undo,
) -> Result<(), ModelError> {
    let asked = request.response_format.take();
    undo.fence = asked.is_some().then(Box::<Fence>::default);
    match asked.clone() {
        None => {}
        Some(ResponseFormat::JsonObject) => match rules.structured {
            Structured::Prompt => {
                undo.held_to = asked.map(Box::new);
                instruct(request, JSON_ONLY);
            }
            _ => {
                request.response_format = Some(ResponseFormat::JsonObject);
                mention_json(request, rules);
            }
        },
        Some(ResponseFormat::JsonSchema {
            name,
            description,
            schema,
            strict,
        }) => {
            schema::check(&schema).map_err(ModelError::Unsupported)?;
            let fitted = match rules.structured {
                Structured::Native => schema::output(&schema, strict, rules.output_schema),
                _ => None,
            };
            let is_held =
                |fitted: &schema::Fitted| fitted.schema == schema && fitted.strict >= strict;
            if !fitted.as_ref().is_some_and(is_held) {
                undo.held_to = asked.map(Box::new);
            }
            if let Some(fitted) = fitted {
                request.response_format = Some(ResponseFormat::JsonSchema {
                    name,
                    description: with_note(description, fitted.note),
                    schema: fitted.schema,
                    strict: fitted.strict,
                });
                return Ok(());
            }
            by_other_means(request, rules, undo, &name, description, &schema);
        }
    }
    Ok(())
}

/// Holds the model to a schema that the wire's own member does not take.
fn by_other_means(
    request: &mut ModelRequest,
    rules: &Rules,
    undo: &mut Undo,
    name: &str,
    description: Option<String>,
    schema: &Value,
) {
    let thinks = request
        .params
        .effort
        .is_some_and(|effort| effort.budget_tokens() > Effort::None.budget_tokens());
    let by_tool = match rules.structured {
        // A schema of this kind can be a tool's.
        Structured::Native | Structured::Tool => {
            rules.forced_tools && !thinks && schema::is_object(schema)
        }
        Structured::JsonMode | Structured::Prompt => false,
    };
    if by_tool {
        let taken: HashSet<&str> = request.tools.iter().map(|t| t.name.as_str()).collect();
        let mut tool = ANSWER_TOOL.to_owned();
        while taken.contains(tool.as_str()) {
            tool.push('_');
        }
        let about = description.unwrap_or_else(|| format!("Gives the final answer ({name})."));
        let alone = request.tools.is_empty();
        request.tools.push(ToolDef {
            name: tool.clone(),
            description: Some(about),
            parameters: schema.clone(),
            strict: None,
        });
        request.tool_choice = Some(match alone {
            true => ToolChoice::Named(tool.clone()),
            false => ToolChoice::Required,
        });
        if alone {
            request.parallel_tool_calls = Some(false);
        }
        undo.answer = Some(Answer::by(tool));
        return;
    }
    let text = format!("{JSON_ONLY} It must conform to this JSON Schema:\n{schema}");
    instruct(request, &text);
    if rules.structured == Structured::JsonMode {
        request.response_format = Some(ResponseFormat::JsonObject);
    }
}

fn instruct(request: &mut ModelRequest, text: &str) {
    let system = request.system.get_or_insert_default();
    if !system.is_empty() {
        system.push_str("\n\n");
    }
    system.push_str(text);
}

/// OpenAI's JSON mode is refused where no message says "JSON".
fn mention_json(request: &mut ModelRequest, rules: &Rules) {
    if rules.output_schema != crate::config::Dialect::Openai {
        return;
    }
    let says = |text: &str| text.to_ascii_lowercase().contains("json");
    let is_said = request.system.as_deref().is_some_and(says)
        || request
            .turns
            .iter()
            .flat_map(|turn| &turn.parts)
            .any(|part| matches!(part, Part::Text { text } if says(text)));
    if !is_said {
        instruct(request, JSON_ONLY);
    }
}

fn with_note(description: Option<String>, note: Option<String>) -> Option<String> {
    match (description, note) {
        (Some(description), Some(note)) if !description.is_empty() => {
            Some(format!("{description}\n\n{note}"))
        }
        (description, note) => note.or(description),
    }
}

/// Puts tools and the choice among them into the target's terms.
pub fn fit_tools(request: &mut ModelRequest, rules: &Rules, undo: &mut Undo) {
    let most = rules.tool_name_chars as usize;
    let mut seen = HashSet::new();
    let mut tools = Vec::with_capacity(request.tools.len());
    for tool in std::mem::take(&mut request.tools) {
        let name = tool_name(&tool.name, most);
        // The same name twice is refused.
        if !seen.insert(name.clone()) {
            continue;
        }
        if name != tool.name {
            undo.names.push((name.clone(), tool.name));
        }
        let strict = tool.strict == Some(true);
        let fitted = schema::tool(&tool.parameters, strict, rules.tool_schema);
        tools.push(ToolDef {
            name,
            description: with_note(tool.description, fitted.note),
            parameters: fitted.schema,
            strict: tool.strict.map(|_| fitted.strict),
        });
    }
    request.tools = tools;
    if let Some(ToolChoice::Named(name)) = &mut request.tool_choice {
        *name = tool_name(name, most);
    }
    if let Some(answer) = &mut undo.answer {
        answer.tool = tool_name(&answer.tool, most);
    }
    if is_forced(request.tool_choice.as_ref()) && !rules.forced_tools {
        let asked = match request.tool_choice.take() {
            Some(ToolChoice::Named(name)) => format!("Call the tool `{name}` now."),
            _ => "Call one of the tools now.".to_owned(),
        };
        instruct(request, &asked);
        request.tool_choice = Some(ToolChoice::Auto);
    }
}

/// Declares the tools that the history calls, where a history with calls needs tools.
pub fn declare_past(request: &mut ModelRequest, rules: &Rules) {
    if !rules.declares_past_tools || !request.tools.is_empty() {
        return;
    }
    let mut seen = HashSet::new();
    for part in request.turns.iter().flat_map(|turn| &turn.parts) {
        if let Part::ToolCall { name, .. } = part
            && seen.insert(name.as_str())
        {
            request.tools.push(ToolDef {
                name: name.clone(),
                description: Some("It can not be called now.".to_owned()),
                parameters: json!({ "type": "object", "properties": {} }),
                strict: None,
            });
        }
    }
    if !request.tools.is_empty() {
        request.tool_choice = Some(ToolChoice::None);
    }
}
