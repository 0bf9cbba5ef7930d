//! A smith's tools, by the names that its model knows, and how each is called.

use std::collections::HashMap;
use std::sync::Arc;

use globset::Glob;
use serde_json::{Map, Value, json};

use super::hosted::Hosted;
use super::mcp::ServerKey;
use super::send::SendFunction;
use super::skills::{self, Attached};
use crate::model::ToolDef;
use crate::store::{McpServerRow, McpSettings, McpTool};
use crate::untrusted::Schema;

/// The longest function name that all providers take.
const MAX_NAME: usize = 64;
/// The server of hosted tools, for clients.
pub const HOSTED_SERVER: &str = "hosted";

/// How a tool is called.
#[derive(Clone)]
pub(super) enum Kind {
    Hosted(&'static dyn Hosted),
    /// The search, over these vector stores alone.
    Documents(&'static dyn Hosted, Arc<[String]>),
    Mcp(Arc<McpServerRow>),
    /// Of a server that is not registered.
    Mounted(ServerKey),
    /// Sends over a channel.
    Send(Arc<SendFunction>),
    /// Reads the smith's skills.
    Skills(Arc<[Attached]>),
}

/// A tool as a model sees it.
#[derive(Clone)]
pub struct Tool {
    /// As its server names it.
    pub name: String,
    /// The MCP server's name, or [`HOSTED_SERVER`].
    pub server: String,
    /// Whether a human must approve its calls, whatever their arguments.
    pub needs_approval: bool,
    /// Whether a second call does no harm.
    pub repeatable: bool,
    pub(super) kind: Kind,
    /// What its arguments are held to; a schema that is none, or beyond its bounds, refuses nothing.
    pub(super) schema: Option<Schema>,
}

impl Tool {
    pub(super) fn new(
        name: String,
        server: String,
        needs_approval: bool,
        repeatable: bool,
        kind: Kind,
        schema: &Value,
    ) -> Self {
        Self {
            name,
            server,
            needs_approval,
            repeatable,
            kind,
            schema: Schema::read(schema).ok(),
        }
    }
}

/// The tools of a smith, by the names that its model knows.
#[derive(Clone, Default)]
pub struct ToolSet {
    pub defs: Vec<ToolDef>,
    pub tools: HashMap<String, Tool>,
    /// What the model is told of its skills.
    pub prompt: Option<String>,
    /// `{code, message}` each: sources that are lost.
    pub warnings: Vec<Value>,
}

impl ToolSet {
    /// Adds a tool under the name that its model knows, or one like it where that is another tool's,
    /// which is told. One that is there already is not added twice.
    pub(super) fn add(
        &mut self,
        known: String,
        description: Option<String>,
        parameters: Value,
        tool: Tool,
    ) {
        let known = match self.tools.get(&known) {
            None => known,
            Some(_) if self.tools.values().any(|known| known.is(&tool)) => return,
            Some(_) => {
                let free = self.free_name(&known);
                self.warnings
                    .push(json!({ "code": "tool_renamed", "message": format!(
                    "the tool '{}' of '{}' is known to the model as '{free}': '{known}' is another",
                    tool.name, tool.server) }));
                free
            }
        };
        self.tools.insert(known.clone(), tool);
        self.defs.push(ToolDef {
            name: known,
            description,
            parameters,
            strict: None,
        });
    }

    fn free_name(&self, known: &str) -> String {
        let numbered = (2..).map(|number: usize| {
            let number = format!("_{number}");
            let kept = known.len().min(MAX_NAME - number.len());
            format!("{}{number}", known.get(..kept).unwrap_or_default())
        });
        let mut free = numbered.filter(|name| !self.tools.contains_key(name));
        free.next().unwrap_or_default()
    }
}

impl Tool {
    /// Whether a human must approve a call with these arguments.
    pub fn asks_first(&self, arguments: &Map<String, Value>) -> bool {
        match &self.kind {
            Kind::Send(function) => !function.is_known(arguments),
            _ => self.needs_approval,
        }
    }

    /// Whether it is this tool.
    fn is(&self, other: &Self) -> bool {
        std::mem::discriminant(&self.kind) == std::mem::discriminant(&other.kind)
            && (&self.server, &self.name) == (&other.server, &other.name)
    }
}

/// Whether a policy or the server's own hint makes a tool wait for an approval.
pub fn requires_approval(settings: &McpSettings, tool: &McpTool) -> bool {
    tool.destructive
        || settings.approval_policy.iter().any(|rule| {
            Glob::new(&rule.pattern).is_ok_and(|g| g.compile_matcher().is_match(&tool.name))
        })
}

/// Whether the allow-list lets a tool through.
pub fn is_allowed(settings: &McpSettings, name: &str) -> bool {
    let list = settings.tool_allowlist.as_ref();
    list.is_none_or(|list| list.iter().any(|allowed| allowed == name))
}

pub(super) fn add_hosted(set: &mut ToolSet, tool: &'static dyn Hosted) {
    for function in tool.functions() {
        let added = Tool::new(
            function.name.to_owned(),
            HOSTED_SERVER.to_owned(),
            tool.needs_approval(function.name),
            // The memory's update replaces the whole text; what a human approves is done once.
            !tool.needs_approval(function.name),
            Kind::Hosted(tool),
            &function.parameters,
        );
        let described = Some(function.description.to_owned());
        set.add(
            function.name.to_owned(),
            described,
            function.parameters,
            added,
        );
    }
}

pub(super) fn add_send(set: &mut ToolSet, functions: &[Arc<SendFunction>]) {
    for function in functions {
        let parameters = function.parameters();
        let added = Tool::new(
            function.name.to_owned(),
            HOSTED_SERVER.to_owned(),
            false,
            // A call's message has a name of its own: it is sent once.
            true,
            Kind::Send(function.clone()),
            &parameters,
        );
        let described = Some(function.description.to_owned());
        set.add(function.name.to_owned(), described, parameters, added);
    }
}

pub(super) fn add_skills(set: &mut ToolSet, skills: Arc<[Attached]>) {
    set.prompt = Some(skills::prompt(&skills));
    for (name, description, parameters) in skills::functions(&skills) {
        let added = Tool::new(
            name.to_owned(),
            HOSTED_SERVER.to_owned(),
            false,
            true,
            Kind::Skills(skills.clone()),
            &parameters,
        );
        set.add(
            name.to_owned(),
            Some(description.to_owned()),
            parameters,
            added,
        );
    }
}

pub(super) fn add_mcp(
    set: &mut ToolSet,
    known: String,
    server: &Arc<McpServerRow>,
    tool: &McpTool,
) {
    let mut schema = Value::Object(tool.input_schema.clone());
    if schema["type"].is_null() {
        schema["type"] = json!("object");
    }
    let added = Tool::new(
        tool.name.clone(),
        server.name.clone(),
        requires_approval(&server.settings, tool),
        tool.read_only || tool.idempotent,
        Kind::Mcp(server.clone()),
        &schema,
    );
    set.add(known, tool.description.clone(), schema, added);
}

/// A name that all providers take for a function.
pub(super) fn function_name(name: &str) -> String {
    let fit = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => c,
        _ => '_',
    };
    name.chars().map(fit).take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_all_providers() {
        assert_eq!(function_name("repo/list.all"), "repo_list_all");
        assert_eq!(function_name(&"x".repeat(100)).len(), MAX_NAME);
    }

    #[test]
    fn a_tool_whose_name_is_taken_gets_another_and_is_told() {
        let mut set = ToolSet::default();
        let mut add = |known: &str, server: &str, name: &str| {
            let kind = Kind::Skills(Arc::from([]));
            let (name, server) = (name.to_owned(), server.to_owned());
            let tool = Tool::new(name, server, false, true, kind, &json!({}));
            set.add(known.to_owned(), None, json!({}), tool);
        };
        add("shop__find", "desk", "shop__find");
        for _ in 0..2 {
            add("shop__find", "shop", "find");
        }
        let long = "x".repeat(MAX_NAME);
        for tool in ["a", "b", "c"] {
            add(&long, "shop", tool);
        }
        let known: Vec<&str> = set.defs.iter().map(|def| def.name.as_str()).collect();
        let cut = |number: u8| format!("{}_{number}", "x".repeat(MAX_NAME - 2));
        let expected = ["shop__find", "shop__find_2", &long, &cut(2), &cut(3)];
        assert_eq!(known, expected);
        assert_eq!(set.tools["shop__find_2"].name, "find");
        assert_eq!(set.warnings.len(), 3);
        let told = set.warnings[0]["message"].to_string();
        assert!(told.contains("'find' of 'shop'") && told.contains("shop__find_2"));
    }
}
