//! The members that agents' drafts and smiths' overrides have in common.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::extract::check_text;
use crate::error::ApiError;
use crate::store::{AgentConfig, AgentVariable};

/// The longest instructions, in bytes.
const MAX_INSTRUCTIONS: usize = 512 * 1024;
/// The most entries that a list of names has.
const MAX_LIST: usize = 1000;
const MAX_WORD: usize = 512;

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

/// A `{{ name }}` of the instructions, bound from the smith's metadata and fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Variable {
    #[schema(pattern = "^[A-Za-z_][A-Za-z0-9_.-]*$", max_length = 64)]
    pub name: String,
    #[serde(default)]
    pub default: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    /// A required one that is unbound fails the run with `invalid_variables`.
    #[serde(default)]
    pub required: Option<bool>,
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
        if let Some(Value::Array(variables)) = self.0.get("variables") {
            check_variables(variables)?;
        }
        Ok(())
    }

    /// A draft with the patch applied.
    pub fn applied(&self, draft: &AgentConfig) -> Result<AgentConfig, ApiError> {
        let Value::Object(mut document) =
            serde_json::to_value(draft).map_err(ApiError::internal)?
        else {
            return Err(ApiError::internal("a draft is no object"));
        };
        for (name, value) in &self.0 {
            match value {
                // What is absent has its default, which is what clearing means.
                Value::Null => document.remove(*name),
                value => document.insert((*name).to_owned(), value.clone()),
            };
        }
        serde_json::from_value(Value::Object(document)).map_err(ApiError::internal)
    }
}

fn check_variables(variables: &[Value]) -> Result<(), ApiError> {
    let mut names = std::collections::HashSet::new();
    for (at, variable) in variables.iter().enumerate() {
        let name = variable["name"].as_str().unwrap_or_default();
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
        if !names.insert(name) {
            return Err(refused("is there twice"));
        }
    }
    Ok(())
}

/// Declares an input with the members of a configuration beside its own.
macro_rules! with_configuration {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        pub struct $name {
            $($body)*
            /// `<provider>/<model>`, an alias, or a model whose provider is known by its name.
            #[serde(default, deserialize_with = "crate::api::extract::sent")]
            #[schema(value_type = Option<String>, max_length = 512)]
            pub model: Option<Option<String>>,
            /// May hold `{{ variables }}`.
            #[serde(default, deserialize_with = "crate::api::extract::sent")]
            #[schema(value_type = Option<String>)]
            pub instructions: Option<Option<String>>,
            #[serde(default, deserialize_with = "crate::api::extract::sent")]
            #[schema(value_type = Option<Vec<String>>)]
            pub enabled_hosted_tools: Option<Option<Vec<String>>>,
            #[serde(default, deserialize_with = "crate::api::extract::sent")]
            #[schema(value_type = Option<Vec<String>>)]
            pub vector_store_ids: Option<Option<Vec<String>>>,
            /// Null: all registered servers.
            #[serde(default, deserialize_with = "crate::api::extract::sent")]
            #[schema(value_type = Option<Vec<String>>)]
            pub mcp_servers: Option<Option<Vec<String>>>,
            #[serde(default, deserialize_with = "crate::api::extract::sent")]
            #[schema(value_type = Option<Vec<crate::api::configuration::SkillRef>>)]
            pub skills: Option<Option<Vec<crate::api::configuration::SkillRef>>>,
            #[serde(default, deserialize_with = "crate::api::extract::sent")]
            #[schema(value_type = Option<bool>)]
            pub auto_memory: Option<Option<bool>>,
            #[serde(default, deserialize_with = "crate::api::extract::sent")]
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

/// An agent's draft, or the snapshot of a version.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AgentDraft {
    #[serde(flatten)]
    pub common: Inherited,
    pub variables: Vec<Variable>,
    pub ui_resources: Vec<Map<String, Value>>,
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
            variables: config.variables.iter().map(Variable::from).collect(),
            ui_resources: config
                .ui_resources
                .iter()
                .filter_map(|resource| resource.as_object().cloned())
                .collect(),
        }
    }
}

impl From<&AgentVariable> for Variable {
    fn from(variable: &AgentVariable) -> Self {
        Self {
            name: variable.name.clone(),
            default: variable.default.clone(),
            description: variable.description.clone(),
            required: Some(variable.required),
        }
    }
}

impl From<&Variable> for AgentVariable {
    fn from(variable: &Variable) -> Self {
        Self {
            name: variable.name.clone(),
            default: variable.default.clone(),
            description: variable.description.clone(),
            required: variable.required.unwrap_or(false),
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
    use serde_json::json;

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
    fn variables_have_sane_names_once() {
        let check = |variables: Value| {
            let patch = ConfigPatch(BTreeMap::from([("variables", variables)]));
            patch.check().map_err(|e| e.code.into_owned())
        };
        assert_eq!(check(json!([{ "name": "a.b" }])), Ok(()));
        let refused = Err("invalid_variables".to_owned());
        assert_eq!(check(json!([{ "name": "1" }])), refused);
        assert_eq!(check(json!([{ "name": "a" }, { "name": "a" }])), refused);
    }
}
