//! Agent skills: their rows and the trait. Versions never change.

use async_trait::async_trait;

use super::{Result, Slice};

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SkillRow {
    pub id: String,
    pub tenant_id: String,
    /// Empty: the tenant's own.
    pub smith_id: String,
    /// Unique for its owner.
    pub name: String,
    pub default_version: i64,
    /// The highest that was ever given.
    pub latest_version: i64,
    pub created_at: i64,
    pub updated_at: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SkillVersionRow {
    pub tenant_id: String,
    pub skill_id: String,
    pub version: i64,
    pub name: String,
    pub description: String,
    /// All that its SKILL.md says in the front matter, as JSON text.
    pub front_matter: String,
    pub created_at: i64,
    /// JSON of what is told of its files; absent for those that were made before it was noted.
    pub manifest: Option<String>,
}

/// A version of an agent that holds a version of a skill.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SkillUse {
    pub version: i64,
    pub agent_id: String,
    pub agent_version: i64,
}

/// A file of a skill; its path is relative to the folder with the SKILL.md.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SkillFile {
    pub path: String,
    pub content: Vec<u8>,
}

/// What became of a wish to delete a skill, or a version of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkillRemoval {
    Done,
    Missing,
    /// Versions of live agents hold it.
    InUse(i64),
    /// The default version stays.
    Default,
}

/// Skills.
#[async_trait]
pub trait SkillStore: Send + Sync {
    /// Makes a skill with its first version; `false` when its owner has one of that name.
    async fn insert_skill(
        &self,
        skill: &SkillRow,
        version: &SkillVersionRow,
        files: &[SkillFile],
    ) -> Result<bool>;
    /// Adds the next version, whose number the store gives; `None`: no such skill.
    async fn add_skill_version(
        &self,
        version: &SkillVersionRow,
        files: &[SkillFile],
        make_default: bool,
    ) -> Result<Option<SkillVersionRow>>;
    async fn skill(&self, tenant_id: &str, id: &str) -> Result<Option<SkillRow>>;
    /// With `smith_id`, those of that smith.
    async fn skills(
        &self,
        tenant_id: &str,
        smith_id: Option<&str>,
        slice: &Slice,
    ) -> Result<Vec<SkillRow>>;
    async fn skill_version(
        &self,
        tenant_id: &str,
        skill_id: &str,
        version: i64,
    ) -> Result<Option<SkillVersionRow>>;
    /// By number; `after`, when given, is the last number of the page before.
    async fn skill_versions(
        &self,
        tenant_id: &str,
        skill_id: &str,
        after: Option<i64>,
        ascending: bool,
        limit: i64,
    ) -> Result<Vec<SkillVersionRow>>;
    /// All files of a version, by path.
    async fn skill_files(
        &self,
        tenant_id: &str,
        skill_id: &str,
        version: i64,
    ) -> Result<Vec<SkillFile>>;
    /// The paths and lengths of a version's files.
    async fn skill_paths(
        &self,
        tenant_id: &str,
        skill_id: &str,
        version: i64,
    ) -> Result<Vec<(String, i64)>>;
    /// One file of a version.
    async fn skill_file(
        &self,
        tenant_id: &str,
        skill_id: &str,
        version: i64,
        path: &str,
    ) -> Result<Option<Vec<u8>>>;
    /// `false` when there is no such skill or version.
    async fn set_skill_default(
        &self,
        tenant_id: &str,
        skill_id: &str,
        version: i64,
        now: i64,
    ) -> Result<bool>;
    /// Versions of live agents that hold versions `from` to `to` of a skill.
    async fn skill_uses(
        &self,
        tenant_id: &str,
        skill_id: &str,
        from: i64,
        to: i64,
    ) -> Result<Vec<SkillUse>>;
    async fn delete_skill(&self, tenant_id: &str, id: &str) -> Result<SkillRemoval>;
    async fn delete_skill_version(
        &self,
        tenant_id: &str,
        skill_id: &str,
        version: i64,
    ) -> Result<SkillRemoval>;
}

/// Which version of a skill a reference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedVersion {
    Default,
    Latest,
    Number(i64),
    /// A word that names no version.
    None,
}

impl WantedVersion {
    /// From the `version` member of a reference.
    pub fn of(version: &serde_json::Value) -> Self {
        match version {
            serde_json::Value::Null => Self::Default,
            serde_json::Value::Number(number) => number.as_i64().map_or(Self::None, Self::Number),
            serde_json::Value::String(text) => match text.as_str() {
                "latest" => Self::Latest,
                "" | "default" => Self::Default,
                number => number.parse().map_or(Self::None, Self::Number),
            },
            _ => Self::None,
        }
    }

    /// The number, when it names one.
    pub fn number(self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    /// Whether it means the newest one.
    pub fn is_latest(self) -> bool {
        self == Self::Latest
    }
}

#[cfg(test)]
mod tests {
    use super::WantedVersion;
    use serde_json::json;

    #[test]
    fn references_name_versions() {
        for (given, wanted) in [
            (json!(null), WantedVersion::Default),
            (json!("latest"), WantedVersion::Latest),
            (json!(3), WantedVersion::Number(3)),
            (json!("3"), WantedVersion::Number(3)),
            (json!("newest"), WantedVersion::None),
            (json!([]), WantedVersion::None),
        ] {
            assert_eq!(WantedVersion::of(&given), wanted);
        }
    }
}
