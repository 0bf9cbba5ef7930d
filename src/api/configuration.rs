//! The members that agents' drafts and smiths' overrides have in common.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::edge::extract::{MAX_WORD, check_text};
use crate::error::ApiError;
use crate::json::{Json, Object};
use crate::store::{AgentConfig, AgentVariable};
use crate::tools::hosted;

/// The longest instructions, in bytes.
const MAX_INSTRUCTIONS: usize = 512 * 1024;
/// The most entries that a list of names has.
const MAX_LIST: usize = 1000;

/// The members that a smith may override.
pub const OVERRIDABLE: [&str; 8] = [
    "model",
    "instructions",
    "enabled_hosted_tools",
    "vector_store_ids",
    "mcp_servers",
    "skills",
    "auto_memory",
    "memory_consolidation",
];

/// A skill, at a version or at its default one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkillRef {
    pub skill_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<SkillVersion>,
}

/// A version's number, or a name such as `latest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SkillVersion {
    Number(i64),
    Name(String),
}

/// A `{{ name }}` of the instructions, bound from the smith's metadata and fields. It comes back as
/// it was written.
#[derive(ToSchema)]
#[allow(dead_code, reason = "documents what is kept as it was written")]
pub struct Variable {
    #[schema(pattern = "^[A-Za-z_][A-Za-z0-9_.-]*$", max_length = 64)]
    name: String,
    default: Option<String>,
    description: Option<String>,
    /// A required one that is unbound fails the run with `invalid_variables`; a null is left out.
    required: Option<bool>,
}

/// What is set: a null clears.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfigPatch(pub BTreeMap<&'static str, Value>);

impl ConfigPatch {
    /// Notes a member that was sent.
    pub fn set<T: Serialize>(&mut self, name: &'static str, sent: &Option<Option<T>>) {
        if let Some(value) = sent {
            self.0
                .insert(name, serde_json::to_value(value).unwrap_or_default());
        }
    }

    /// Checks what types cannot say.
    pub fn check(&self) -> Result<(), ApiError> {
        for (name, value) in &self.0 {
            match value {
                Value::String(text) if *name == "instructions" => {
                    check_text(name, text, MAX_INSTRUCTIONS)?;
                }
                Value::String(text) => check_text(name, text, MAX_WORD)?,
                Value::Array(entries) => {
                    if entries.len() > MAX_LIST {
                        return Err(ApiError::invalid(
                            *name,
                            format!("must have at most {MAX_LIST} entries"),
                        ));
                    }
                    for entry in entries.iter().filter_map(Value::as_str) {
                        check_text(name, entry, MAX_WORD)?;
                    }
                }
                _ => {}
            }
        }
        if let Some(Value::Array(tools)) = self.0.get("enabled_hosted_tools") {
            let unknown = tools.iter().filter_map(Value::as_str);
            check_hosted_tools(unknown)?;
        }
        Ok(())
    }

    /// A draft with the patch applied; a cleared member has its default.
    pub fn applied(&self, draft: &AgentConfig) -> Result<AgentConfig, ApiError> {
        draft
            .with_members(self.0.iter().map(|(name, value)| (*name, value)))
            .map_err(ApiError::internal)
    }
}

/// Refuses names of hosted tools that there are not.
pub fn check_hosted_tools<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), ApiError> {
    let unknown: Vec<String> = names
        .filter(|name| hosted::hosted(name).is_none())
        .map(|name| format!("'{name}'"))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let listed = hosted::HOSTED.iter().filter(|tool| tool.is_listed());
    let known: Vec<&str> = listed.map(|tool| tool.name()).collect();
    Err(ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "unsupported_tools",
        format!(
            "no hosted tool is called {}; there are {}",
            unknown.join(", "),
            known.join(", ")
        ),
    )
    .param("enabled_hosted_tools"))
}

/// Variables as they were written, without members that nobody knows.
pub fn checked_variables(given: Vec<Object>) -> Result<Vec<AgentVariable>, ApiError> {
    if given.len() > MAX_LIST {
        let message = format!("must have at most {MAX_LIST} entries");
        return Err(ApiError::invalid("variables", message));
    }
    let mut names = std::collections::HashSet::new();
    let mut kept = Vec::with_capacity(given.len());
    for (at, mut variable) in given.into_iter().enumerate() {
        let known = ["name", "default", "description", "required"];
        // Clients know `required` as there or not, never as null.
        variable
            .retain(|key, value| known.contains(&key) && !(key == "required" && value.is_null()));
        for (member, value) in variable.iter() {
            let param = || format!("variables[{at}].{member}");
            let fits = match (member, value) {
                ("required", Json::Bool(_)) | ("default" | "description", Json::Null) => true,
                ("name" | "default" | "description", Json::String(text)) => {
                    check_text("variables", text, MAX_INSTRUCTIONS)
                        .map_err(|error| error.param(param()))?;
                    true
                }
                _ => false,
            };
            if !fits {
                let wanted = match member {
                    "required" => "must be true or false",
                    _ => "must be a string",
                };
                return Err(ApiError::invalid(param(), wanted));
            }
        }
        let variable = AgentVariable(variable);
        let name = variable.name();
        let mut bytes = name.bytes();
        let sane = bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            && name.len() <= 64;
        let refused = |why: &str| {
            ApiError::bad_request("invalid_variables", format!("'{name}' {why}"))
                .param(format!("variables[{at}].name"))
        };
        if !sane {
            return Err(refused("is no name of a variable"));
        }
        if !names.insert(name.to_owned()) {
            return Err(refused("is there twice"));
        }
        kept.push(variable);
    }
    Ok(kept)
}

/// Declares an input with the members of a configuration beside its own.
macro_rules! with_configuration {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        pub struct $name {
            $($body)*
            /// `<provider>/<model>`, an alias, or a model whose provider is known by its name.
            #[serde(default, deserialize_with = "crate::edge::extract::sent")]
            #[schema(value_type = Option<String>, max_length = 512)]
            pub model: Option<Option<String>>,
            /// May hold `{{ variables }}`.
            #[serde(default, deserialize_with = "crate::edge::extract::sent")]
            #[schema(value_type = Option<String>)]
            pub instructions: Option<Option<String>>,
            #[serde(default, deserialize_with = "crate::edge::extract::sent")]
            #[schema(value_type = Option<Vec<String>>)]
            pub enabled_hosted_tools: Option<Option<Vec<String>>>,
            #[serde(default, deserialize_with = "crate::edge::extract::sent")]
            #[schema(value_type = Option<Vec<String>>)]
            pub vector_store_ids: Option<Option<Vec<String>>>,
            /// Null: all registered servers.
            #[serde(default, deserialize_with = "crate::edge::extract::sent")]
            #[schema(value_type = Option<Vec<String>>)]
            pub mcp_servers: Option<Option<Vec<String>>>,
            #[serde(default, deserialize_with = "crate::edge::extract::sent")]
            #[schema(value_type = Option<Vec<crate::api::configuration::SkillRef>>)]
            pub skills: Option<Option<Vec<crate::api::configuration::SkillRef>>>,
            #[serde(default, deserialize_with = "crate::edge::extract::sent")]
            #[schema(value_type = Option<bool>)]
            pub auto_memory: Option<Option<bool>>,
            #[serde(default, deserialize_with = "crate::edge::extract::sent")]
            #[schema(value_type = Option<bool>)]
            pub memory_consolidation: Option<Option<bool>>,
        }

        impl $name {
            fn common(&self) -> Result<crate::api::configuration::ConfigPatch, ApiError> {
                let mut patch = crate::api::configuration::ConfigPatch::default();
                patch.set("model", &self.model);
                patch.set("instructions", &self.instructions);
                patch.set("enabled_hosted_tools", &self.enabled_hosted_tools);
                patch.set("vector_store_ids", &self.vector_store_ids);
                patch.set("mcp_servers", &self.mcp_servers);
                patch.set("skills", &self.skills);
                patch.set("auto_memory", &self.auto_memory);
                patch.set("memory_consolidation", &self.memory_consolidation);
                patch.check()?;
                Ok(patch)
            }
        }
    };
}

pub(super) use with_configuration;

/// The configuration that a smith's fields show.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Inherited {
    pub model: Option<String>,
    pub instructions: Option<String>,
    pub enabled_hosted_tools: Vec<String>,
    pub vector_store_ids: Vec<String>,
    pub mcp_servers: Option<Vec<String>>,
    pub skills: Vec<SkillRef>,
    pub auto_memory: Option<bool>,
    pub memory_consolidation: Option<bool>,
}

/// What a smith's members would be without its overrides.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SmithInherited {
    /// Empty: none is set anywhere.
    pub model: String,
    pub instructions: Option<String>,
    pub enabled_hosted_tools: Vec<String>,
    pub vector_store_ids: Vec<String>,
    pub mcp_servers: Option<Vec<String>>,
    pub skills: Vec<SkillRef>,
    pub auto_memory: bool,
    pub memory_consolidation: bool,
}

impl Inherited {
    /// With `default_model` where no model is set; what is switched neither on nor off is off.
    pub fn effective(self, default_model: Option<&str>) -> SmithInherited {
        let default_model = || default_model.unwrap_or_default().to_owned();
        SmithInherited {
            model: self.model.unwrap_or_else(default_model),
            instructions: self.instructions,
            enabled_hosted_tools: self.enabled_hosted_tools,
            vector_store_ids: self.vector_store_ids,
            mcp_servers: self.mcp_servers,
            skills: self.skills,
            auto_memory: self.auto_memory.unwrap_or(false),
            memory_consolidation: self.memory_consolidation.unwrap_or(false),
        }
    }
}

/// An agent's draft, or the snapshot of a version.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AgentDraft {
    #[serde(flatten)]
    pub common: Inherited,
    #[schema(value_type = Vec<Variable>)]
    pub variables: Vec<AgentVariable>,
    #[schema(value_type = Vec<crate::run::panels::UiResource>)]
    pub ui_resources: Vec<Object>,
}

impl From<&AgentConfig> for Inherited {
    fn from(config: &AgentConfig) -> Self {
        Self {
            model: config.model.clone(),
            instructions: config.instructions.clone(),
            enabled_hosted_tools: config.enabled_hosted_tools.clone(),
            vector_store_ids: config.vector_store_ids.clone(),
            mcp_servers: config.mcp_servers.clone(),
            skills: config
                .skills
                .iter()
                .filter_map(|skill| serde_json::from_value(skill.clone()).ok())
                .collect(),
            auto_memory: config.auto_memory,
            memory_consolidation: config.memory_consolidation,
        }
    }
}

impl From<&AgentConfig> for AgentDraft {
    fn from(config: &AgentConfig) -> Self {
        Self {
            common: config.into(),
            variables: config.variables.clone(),
            ui_resources: config.ui_resources.clone(),
        }
    }
}

/// The members of `config` that are not what `agent` has, as overrides.
pub fn differing(config: &AgentConfig, agent: &AgentConfig) -> BTreeMap<String, Value> {
    let (Ok(mine), Ok(theirs)) = (serde_json::to_value(config), serde_json::to_value(agent)) else {
        return BTreeMap::new();
    };
    OVERRIDABLE
        .iter()
        .filter(|key| mine[**key] != theirs[**key])
        .map(|key| ((*key).to_owned(), mine[*key].clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_clears_and_an_absent_member_stays() {
        let draft = AgentConfig {
            model: Some("a".into()),
            instructions: Some("b".into()),
            mcp_servers: Some(vec!["x".into()]),
            ..AgentConfig::default()
        };
        let mut patch = ConfigPatch::default();
        patch.set("model", &Some(None::<String>));
        patch.set("instructions", &None::<Option<String>>);
        patch.set("mcp_servers", &Some(None::<Vec<String>>));
        let patched = patch.applied(&draft).expect("a draft");
        assert_eq!(patched.model, None);
        assert_eq!(patched.instructions.as_deref(), Some("b"));
        assert_eq!(patched.mcp_servers, None);
    }

    #[test]
    fn variables_have_sane_names_once_and_come_back_as_written() {
        let check = |text: &str| {
            let given = serde_json::from_str(text).expect("a list");
            let kept = checked_variables(given).map_err(|e| e.code.into_owned());
            kept.map(|kept| serde_json::to_string(&kept).expect("written"))
        };
        for written in [
            r#"[{"name":"a.b"}]"#,
            r#"[{"required":false,"description":null,"name":"a","default":"b"}]"#,
        ] {
            assert_eq!(check(written).as_deref(), Ok(written));
        }
        let kept = check(r#"[{"kind":"text","name":"a","required":null}]"#);
        assert_eq!(kept.as_deref(), Ok(r#"[{"name":"a"}]"#));
        let refused = Err("invalid_variables".to_owned());
        assert_eq!(check(r#"[{"name":"1"}]"#), refused);
        assert_eq!(check(r#"[{}]"#), refused);
        assert_eq!(check(r#"[{"name":"a"},{"name":"a"}]"#), refused);
        let refused = Err("invalid_request".to_owned());
        assert_eq!(check(r#"[{"name":"a","required":"yes"}]"#), refused);
        assert_eq!(check(r#"[{"name":1}]"#), refused);
    }

    #[test]
    fn hosted_tools_that_there_are_not_are_refused_by_name() {
        let check = |names: &[&str]| check_hosted_tools(names.iter().copied());
        assert!(check(&["calculator", "web_search"]).is_ok());
        let refused = check(&["calculator", "nope", "nor_this"]).expect_err("refused");
        assert_eq!(refused.code, "unsupported_tools");
        assert!(refused.message.contains("'nope', 'nor_this'"));
    }
}
