//! `/v1/skills`: agent skills, in OpenAI's shape. A skill is a folder with a `SKILL.md`; its
//! versions never change, and those that versions of agents hold cannot be deleted.

use axum::Json;
use axum::extract::multipart::{Multipart, MultipartRejection};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::files::download_headers;
use super::skill_bundle::{self, Bundle};
use super::skill_manifest::{Manifest, SkillFileOut};
use crate::auth::{Principal, scope};
use crate::edge::AppState;
use crate::edge::extract::{Input, May};
use crate::edge::page::{Filters, OaiList, SliceParams, SliceQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::ids;
use crate::json::{Json as Tree, Object};
use crate::store::{
    SkillFile, SkillRemoval, SkillRow, SkillUse, SkillVersionRow, WantedVersion, now_micros,
};

/// A skill, in OpenAI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct SkillOut {
    pub id: String,
    #[schema(example = "skill")]
    pub object: &'static str,
    pub name: String,
    pub description: String,
    pub default_version: i64,
    pub latest_version: i64,
    pub created_at: Time,
    pub updated_at: Time,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SkillVersionOut {
    pub id: String,
    #[schema(example = "skill.version")]
    pub object: &'static str,
    pub skill_id: String,
    pub version: i64,
    pub name: String,
    pub description: String,
    /// From the front matter of `SKILL.md`, as the next two.
    pub license: Option<String>,
    #[schema(value_type = serde_json::Value)]
    pub compatibility: Option<Tree>,
    pub metadata: Option<Object>,
    /// Paths in `references/`.
    pub references: Vec<String>,
    /// Paths in `scripts/`.
    pub scripts: Vec<String>,
    /// Paths in `assets/`.
    pub assets: Vec<String>,
    pub files: Vec<SkillFileOut>,
    /// Versions of agents that hold it.
    pub referenced_by: Vec<SkillReference>,
    /// The size of all files.
    pub bytes: i64,
    pub created_at: Time,
}

/// A version of an agent.
#[derive(Debug, Serialize, ToSchema)]
pub struct SkillReference {
    pub agent_id: String,
    pub version: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SkillDeleted {
    pub id: String,
    pub object: &'static str,
    pub deleted: bool,
    /// Of a version: its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub version: Option<String>,
}

/// The files of a skill: one by one with their paths as names, or one zip.
#[derive(ToSchema)]
#[allow(dead_code, reason = "documents the multipart form")]
pub struct SkillIn {
    #[schema(format = Binary)]
    files: String,
    /// Of a new version: whether it becomes the default one.
    default: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct SkillUpdate {
    /// A version's number.
    #[schema(value_type = i64)]
    pub default_version: serde_json::Value,
}

/// What is shown of a front matter, beside the name and the description.
#[derive(Default, Deserialize)]
#[serde(default)]
struct FrontMatter {
    license: Option<Tree>,
    compatibility: Option<Tree>,
    metadata: Option<Tree>,
}

/// Versions as they are shown, with what was noted of them and who holds them.
async fn versions_out(
    gateway: &AppState,
    rows: Vec<SkillVersionRow>,
) -> Result<Vec<SkillVersionOut>, ApiError> {
    let numbers = || rows.iter().map(|row| row.version);
    let (Some(first), Some(from), Some(to)) = (rows.first(), numbers().min(), numbers().max())
    else {
        return Ok(Vec::new());
    };
    let store = &gateway.store;
    let uses = store
        .skill_uses(&first.tenant_id, &first.skill_id, from, to)
        .await?;
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        let manifest = match row.manifest.as_deref().and_then(Manifest::parse) {
            Some(manifest) => manifest,
            None => {
                let files = store.skill_files(&row.tenant_id, &row.skill_id, row.version);
                Manifest::of(&files.await?)
            }
        };
        let matter: FrontMatter = serde_json::from_str(&row.front_matter).unwrap_or_default();
        let holders = uses.iter().filter(|held| held.version == row.version);
        let reference = |held: &SkillUse| SkillReference {
            agent_id: held.agent_id.clone(),
            version: held.agent_version,
        };
        out.push(SkillVersionOut {
            id: version_id(&row),
            object: "skill.version",
            version: row.version,
            name: row.name,
            description: row.description,
            references: manifest.inside("references"),
            scripts: manifest.inside("scripts"),
            assets: manifest.inside("assets"),
            bytes: manifest.bytes(),
            license: match matter.license {
                Some(Tree::String(text)) => Some(text),
                _ => None,
            },
            compatibility: matter.compatibility,
            metadata: match matter.metadata {
                Some(Tree::Object(entries)) => Some(entries),
                _ => None,
            },
            files: manifest.0,
            referenced_by: holders.map(reference).collect(),
            skill_id: row.skill_id,
            created_at: Time(row.created_at),
        });
    }
    Ok(out)
}

fn version_id(row: &SkillVersionRow) -> String {
    format!("{}_v{}", row.skill_id, row.version)
}

async fn version_out(
    gateway: &AppState,
    row: SkillVersionRow,
) -> Result<Json<SkillVersionOut>, ApiError> {
    let shown = versions_out(gateway, vec![row]).await?.pop();
    shown
        .map(Json)
        .ok_or_else(|| ApiError::internal("a version is not shown"))
}

/// A skill with the description of its default version.
async fn skill_out(gateway: &AppState, row: SkillRow) -> Result<SkillOut, ApiError> {
    let shown = gateway
        .store
        .skill_version(&row.tenant_id, &row.id, row.default_version)
        .await?;
    Ok(SkillOut {
        object: "skill",
        description: shown.map(|v| v.description).unwrap_or_default(),
        default_version: row.default_version,
        latest_version: row.latest_version,
        created_at: Time(row.created_at),
        updated_at: Time(row.updated_at),
        name: row.name,
        id: row.id,
    })
}

async fn found(gateway: &AppState, caller: &Principal, id: &str) -> Result<SkillRow, ApiError> {
    let row = gateway.store.skill(&caller.tenant_id, id).await?;
    let row = row.ok_or_else(|| ApiError::not_found("skill", id))?;
    if caller.smith_id().is_some() {
        caller.require_smith(&row.smith_id)?;
    }
    Ok(row)
}

/// The number of a version that a path or a body names.
fn number(text: &str) -> Result<i64, ApiError> {
    let missing = || ApiError::not_found("skill version", text);
    text.parse().map_err(|_| missing())
}

async fn bundle(
    gateway: &AppState,
    caller: &Principal,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Bundle, ApiError> {
    let form = form.map_err(|e| ApiError::bad_request("invalid_request", e.body_text()))?;
    skill_bundle::read(form, &gateway.sandbox, &caller.tenant_id).await
}

fn refused(removal: SkillRemoval, what: &str, id: &str) -> Result<(), ApiError> {
    match removal {
        SkillRemoval::Done => Ok(()),
        SkillRemoval::Missing => Err(ApiError::not_found(what, id)),
        SkillRemoval::InUse(uses) => Err(ApiError::conflict(
            "skill_in_use",
            format!("{uses} versions of agents hold it"),
        )),
        SkillRemoval::Default => Err(ApiError::conflict(
            "skill_in_use",
            "it is the default version; make another one the default first",
        )),
    }
}

/// Lists the skills; with a smith token, that smith's.
#[utoipa::path(get, path = "/v1/skills", tag = "skills", params(SliceParams),
    responses((status = 200, body = OaiList<SkillOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::SkillsRead>,
    query: SliceQuery,
) -> Result<Json<OaiList<SkillOut>>, ApiError> {
    let smith = caller.smith_id().map(|id| id.to_string());
    let rows = gateway
        .store
        .skills(&caller.tenant_id, smith.as_deref(), &query.slice)
        .await?;
    let mut shown = Vec::with_capacity(rows.len());
    for row in rows {
        shown.push(skill_out(&gateway, row).await?);
    }
    Ok(Json(query.list(shown, |s| s.id.clone(), |s| s)))
}

/// Makes a skill of its files.
#[utoipa::path(post, path = "/v1/skills", tag = "skills",
    request_body(content = SkillIn, content_type = "multipart/form-data"),
    responses((status = 200, body = SkillOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::SkillsWrite>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Json<SkillOut>, ApiError> {
    let bundle = bundle(&gateway, &caller, form).await?;
    let now = now_micros();
    let skill = SkillRow {
        id: ids::mint(ids::Kind::Skill),
        tenant_id: caller.tenant_id.to_string(),
        smith_id: caller.smith_id().map_or(String::new(), |id| id.to_string()),
        name: bundle.name.clone(),
        default_version: 1,
        latest_version: 1,
        created_at: now,
        updated_at: now,
    };
    let version = SkillVersionRow {
        tenant_id: skill.tenant_id.clone(),
        skill_id: skill.id.clone(),
        version: 1,
        name: bundle.name,
        description: bundle.description,
        front_matter: Value::Object(bundle.front_matter).to_string(),
        created_at: now,
        manifest: Some(Manifest::of(&bundle.files).to_text()),
    };
    let made = gateway.store.insert_skill(&skill, &version, &bundle.files);
    if !made.await? {
        let message = format!("there is a skill '{}' already", skill.name);
        return Err(ApiError::conflict("skill_exists", message));
    }
    Ok(Json(skill_out(&gateway, skill).await?))
}

/// Reads a skill.
#[utoipa::path(get, path = "/v1/skills/{id}", tag = "skills", params(("id" = String, Path)),
    responses((status = 200, body = SkillOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::SkillsRead>,
    Path(id): Path<String>,
) -> Result<Json<SkillOut>, ApiError> {
    let skill = found(&gateway, &caller, &id).await?;
    Ok(Json(skill_out(&gateway, skill).await?))
}

/// Makes a version the default one.
#[utoipa::path(post, path = "/v1/skills/{id}", tag = "skills", params(("id" = String, Path)),
    request_body = SkillUpdate, responses((status = 200, body = SkillOut)))]
pub async fn update(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::SkillsWrite>,
    Path(id): Path<String>,
    Input(input): Input<SkillUpdate>,
) -> Result<Json<SkillOut>, ApiError> {
    let mut skill = found(&gateway, &caller, &id).await?;
    let missing = || ApiError::invalid("default_version", "is no version of this skill");
    let version = match WantedVersion::of(&input.default_version) {
        WantedVersion::Number(number) => number,
        WantedVersion::Latest => skill.latest_version,
        WantedVersion::Default | WantedVersion::None => return Err(missing()),
    };
    let now = now_micros();
    let set = gateway
        .store
        .set_skill_default(&skill.tenant_id, &skill.id, version, now);
    if !set.await? {
        return Err(missing());
    }
    skill.default_version = version;
    skill.updated_at = now;
    Ok(Json(skill_out(&gateway, skill).await?))
}

/// Deletes a skill that no version of an agent holds.
#[utoipa::path(delete, path = "/v1/skills/{id}", tag = "skills", params(("id" = String, Path)),
    responses((status = 200, body = SkillDeleted)))]
pub async fn remove(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::SkillsWrite>,
    Path(id): Path<String>,
) -> Result<Json<SkillDeleted>, ApiError> {
    let skill = found(&gateway, &caller, &id).await?;
    let removal = gateway.store.delete_skill(&skill.tenant_id, &id).await?;
    refused(removal, "skill", &id)?;
    Ok(Json(SkillDeleted {
        id,
        object: "skill.deleted",
        deleted: true,
        version: None,
    }))
}

/// Lists a skill's versions.
#[utoipa::path(get, path = "/v1/skills/{id}/versions", tag = "skills",
    params(("id" = String, Path), SliceParams),
    responses((status = 200, body = OaiList<SkillVersionOut>)))]
pub async fn versions(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::SkillsRead>,
    Path(id): Path<String>,
    query: SliceQuery,
) -> Result<Json<OaiList<SkillVersionOut>>, ApiError> {
    let skill = found(&gateway, &caller, &id).await?;
    // A version's id ends in its number; the number alone does too.
    let after = query.slice.after.as_deref().map(|after| {
        let number = after.rsplit_once("_v").map_or(after, |(_, number)| number);
        number.parse::<i64>()
    });
    let after = after
        .transpose()
        .map_err(|_| ApiError::invalid("after", "is no version of this skill"))?;
    let rows = gateway
        .store
        .skill_versions(
            &skill.tenant_id,
            &skill.id,
            after,
            query.slice.ascending,
            query.slice.limit,
        )
        .await?;
    let shown = versions_out(&gateway, rows).await?;
    Ok(Json(query.list(
        shown,
        |version| version.id.clone(),
        |version| version,
    )))
}

/// Adds a version.
#[utoipa::path(post, path = "/v1/skills/{id}/versions", tag = "skills",
    params(("id" = String, Path)),
    request_body(content = SkillIn, content_type = "multipart/form-data"),
    responses((status = 200, body = SkillVersionOut)))]
pub async fn add_version(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::SkillsWrite>,
    Path(id): Path<String>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Json<SkillVersionOut>, ApiError> {
    let skill = found(&gateway, &caller, &id).await?;
    let bundle = bundle(&gateway, &caller, form).await?;
    if bundle.name != skill.name {
        return Err(ApiError::bad_request(
            "invalid_bundle",
            format!("this skill's name is '{}' in all its versions", skill.name),
        )
        .param("files"));
    }
    let version = SkillVersionRow {
        tenant_id: skill.tenant_id,
        skill_id: skill.id,
        version: 0,
        name: bundle.name,
        description: bundle.description,
        front_matter: Value::Object(bundle.front_matter).to_string(),
        created_at: now_micros(),
        manifest: Some(Manifest::of(&bundle.files).to_text()),
    };
    let kept = gateway
        .store
        .add_skill_version(&version, &bundle.files, bundle.make_default)
        .await?;
    let kept = kept.ok_or_else(|| ApiError::not_found("skill", &id))?;
    version_out(&gateway, kept).await
}

/// Reads what is known of a version.
#[utoipa::path(get, path = "/v1/skills/{id}/versions/{version}", tag = "skills",
    params(("id" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = SkillVersionOut)))]
pub async fn version(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::SkillsRead>,
    Path((id, version)): Path<(String, String)>,
) -> Result<Json<SkillVersionOut>, ApiError> {
    let skill = found(&gateway, &caller, &id).await?;
    let row = gateway
        .store
        .skill_version(&skill.tenant_id, &id, number(&version)?)
        .await?;
    let row = row.ok_or_else(|| ApiError::not_found("skill version", &version))?;
    version_out(&gateway, row).await
}

/// Deletes a version that no version of an agent holds.
#[utoipa::path(delete, path = "/v1/skills/{id}/versions/{version}", tag = "skills",
    params(("id" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = SkillDeleted)))]
pub async fn remove_version(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::SkillsWrite>,
    Path((id, version)): Path<(String, String)>,
) -> Result<Json<SkillDeleted>, ApiError> {
    let skill = found(&gateway, &caller, &id).await?;
    let removal = gateway
        .store
        .delete_skill_version(&skill.tenant_id, &id, number(&version)?)
        .await?;
    refused(removal, "skill version", &version)?;
    Ok(Json(SkillDeleted {
        id,
        object: "skill.version.deleted",
        deleted: true,
        version: Some(version),
    }))
}

/// The file of a path, which may begin with the folder that the bundle was uploaded in: one that the
/// skill itself does not have.
fn one_of(files: Vec<SkillFile>, path: &str) -> Option<SkillFile> {
    let place = |wanted: &str| files.iter().position(|file| file.path == wanted);
    let in_root = || {
        let (root, inside) = path.split_once('/')?;
        let has_folder = |file: &SkillFile| file.path.split('/').next() == Some(root);
        let is_root = !matches!(root, "" | "." | "..") && !files.iter().any(has_folder);
        is_root.then(|| place(inside)).flatten()
    };
    let at = place(path).or_else(in_root)?;
    files.into_iter().nth(at)
}

/// A version's zip, or one file of it.
async fn bytes_of(
    gateway: &AppState,
    skill: &SkillRow,
    version: i64,
    path: Option<String>,
) -> Result<Response, ApiError> {
    let files = gateway
        .store
        .skill_files(&skill.tenant_id, &skill.id, version)
        .await?;
    if files.is_empty() {
        return Err(ApiError::not_found("skill version", &version.to_string()));
    }
    let (kind, name, content) = match path {
        None => (
            "application/zip",
            format!("{}.zip", skill.name),
            skill_bundle::packed(&skill.name, &files)?,
        ),
        Some(path) => {
            let file = one_of(files, &path);
            let file = file.ok_or_else(|| ApiError::not_found("file", &path))?;
            let name = file
                .path
                .rsplit('/')
                .next()
                .unwrap_or(&file.path)
                .to_owned();
            ("application/octet-stream", name, file.content)
        }
    };
    Ok((download_headers(kind, &name), content).into_response())
}

/// Reads the default version as a zip.
#[utoipa::path(get, path = "/v1/skills/{id}/content", tag = "skills",
    params(("id" = String, Path)),
    responses((status = 200, content_type = "application/zip", body = Vec<u8>)))]
pub async fn content(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::SkillsRead>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let skill = found(&gateway, &caller, &id).await?;
    bytes_of(&gateway, &skill, skill.default_version, None).await
}

/// Reads a version as a zip, or one of its files.
#[utoipa::path(get, path = "/v1/skills/{id}/versions/{version}/content", tag = "skills",
    params(("id" = String, Path), ("version" = String, Path),
        ("path" = Option<String>, Query)),
    responses((status = 200, content(
        (Vec<u8> = "application/zip"), (Vec<u8> = "application/octet-stream")))))]
pub async fn version_content(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::SkillsRead>,
    Path((id, version)): Path<(String, String)>,
    query: Filters,
) -> Result<Response, ApiError> {
    let skill = found(&gateway, &caller, &id).await?;
    bytes_of(&gateway, &skill, number(&version)?, query.get("path")).await
}
