//! Files named by id in a request: who may name them, and, for a provider that gets the request as
//! it is, their bytes in place of ids that mean nothing to it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::auth::{Principal, Scope};
use crate::edge::Exchange;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::model::{ModelRequest, Route, Turn, that_take};
use crate::run::attachments::{
    Attachment, MAX_FILE, MAX_FILES, Named, each_named, in_base64, place_of, refusal,
};
use crate::store::FileRow;

/// The members of requests that hold a conversation, on all wires.
const CONVERSATIONS: [&str; 3] = ["messages", "input", "contents"];

/// The file, when the caller may read it.
async fn found(
    gateway: &Gateway,
    caller: &Principal,
    id: &str,
) -> Result<Option<FileRow>, ApiError> {
    // A key has no part in the tenant's files, nor learns which there are.
    if caller.key_id().is_some() {
        return Ok(None);
    }
    let file = gateway.store.file(&caller.tenant_id, id).await?;
    let smith = caller.smith_id();
    let is_theirs =
        |file: &FileRow| smith.is_none_or(|smith| file.smith_id.as_deref() == Some(&**smith));
    Ok(file.filter(is_theirs))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found("file", id)
}

/// `times`: how often it is named, and so put into what a model is sent.
fn check_size(file: &FileRow, times: usize, all: &mut i64) -> Result<(), ApiError> {
    let times = i64::try_from(times).unwrap_or(i64::MAX);
    *all = all.saturating_add(file.bytes.saturating_mul(times));
    if file.bytes > MAX_FILE || *all > MAX_FILES {
        let message = format!(
            "the file '{}' is too large for a message: {} MiB each, {} MiB together",
            file.id,
            MAX_FILE >> 20,
            MAX_FILES >> 20
        );
        let status = http::StatusCode::PAYLOAD_TOO_LARGE;
        return Err(ApiError::new(status, "payload_too_large", message));
    }
    Ok(())
}

/// Counts files with the body that names them.
async fn hold(exchange: &mut Exchange, bytes: usize) -> Result<(), ApiError> {
    match bytes {
        0 => Ok(()),
        bytes => exchange.budget().grow_within_share(bytes).await,
    }
}

/// Puts the files that the request names into it; gives those of `routes` that take them, and all
/// else that is there. 400 when none does, which names the part in `body`.
pub async fn inline(
    exchange: &mut Exchange,
    tenant_id: &str,
    routes: Vec<Route>,
    request: &mut ModelRequest,
    body: &[u8],
) -> Result<Vec<Route>, ApiError> {
    let store = exchange.gateway.store.clone();
    let turns = &mut request.turns;
    let named = Named::find(store.as_ref(), tenant_id, turns).await?;
    hold(exchange, named.weight()).await?;
    let as_named = named.is_some().then(|| turns.clone());
    named.put(store.as_ref(), turns).await?;
    that_take(routes, turns)
        .map_err(|why| refusal(why, as_named.as_deref().unwrap_or(turns), body, ""))
}

/// Each id once, with how often it is there.
fn counted<T: Ord>(ids: Vec<T>) -> BTreeMap<T, usize> {
    let mut counted = BTreeMap::new();
    for id in ids {
        *counted.entry(id).or_default() += 1;
    }
    counted
}

/// Refuses files that the caller may not name. `body` is the request, whose member is named in the
/// refusal.
pub async fn check<'a>(
    gateway: &Gateway,
    caller: &Principal,
    turns: impl IntoIterator<Item = &'a Turn>,
    body: &[u8],
) -> Result<(), ApiError> {
    let mut ids = Vec::new();
    each_named(turns, &mut |id| ids.push(id));
    if ids.is_empty() {
        return Ok(());
    }
    caller.require(Scope::FilesRead)?;
    let mut all = 0;
    for (id, times) in counted(ids) {
        let file = found(gateway, caller, id).await?;
        let checked = file.ok_or_else(|| unknown(id));
        let checked = checked.and_then(|file| check_size(&file, times, &mut all));
        checked.map_err(|error| match place_of(body, &|text| text == id) {
            Some(place) => error.param(place),
            None => error,
        })?;
    }
    Ok(())
}

/// A request for a provider of the client's own wire, with the bytes of files that are kept here in
/// place of their ids. Ids that are the provider's own stay.
pub async fn forwarded(
    exchange: &mut Exchange,
    caller: &Principal,
    body: Bytes,
) -> Result<Bytes, ApiError> {
    // Most requests name no file.
    let names = ["\"file_id\"", "\"fileUri\"", "\"file_uri\""];
    let is_there = |name: &&str| memchr::memmem::find(&body, name.as_bytes()).is_some();
    if !names.iter().any(is_there) {
        return Ok(body);
    }
    let Ok(mut request) = serde_json::from_slice::<Value>(&body) else {
        return Ok(body);
    };
    let mut ids = Vec::new();
    for list in CONVERSATIONS {
        named_in(&request[list], &mut ids);
    }
    let gateway = exchange.gateway.clone();
    let mut rows = Vec::new();
    let mut all = 0;
    for (id, times) in counted(ids) {
        match found(&gateway, caller, &id).await? {
            Some(file) => {
                caller.require(Scope::FilesRead)?;
                check_size(&file, times, &mut all)?;
                rows.push((id, file));
            }
            None if crate::ids::is_minted_here(crate::ids::Kind::File, &id) => {
                let error = unknown(&id);
                return Err(match place_of(&body, &|text| text == id) {
                    Some(place) => error.param(place),
                    None => error,
                });
            }
            None => {}
        }
    }
    hold(exchange, in_base64(all)).await?;
    let mut files = HashMap::new();
    for (id, file) in rows {
        let file = Attachment::load(gateway.store.as_ref(), &file).await?;
        files.insert(id, file);
    }
    if files.is_empty() {
        return Ok(body);
    }
    for list in CONVERSATIONS {
        put_bytes(&mut request[list], &files);
    }
    // Members that were not there have been made by looking for them.
    if let Value::Object(members) = &mut request {
        members.retain(|name, member| !(CONVERSATIONS.contains(&&**name) && member.is_null()));
    }
    Ok(request.to_string().into())
}

/// A file of ours in the place of Gemini's `fileUri`.
fn file_of_uri(data: &Value) -> Option<&str> {
    let uri = data.get("fileUri").or_else(|| data.get("file_uri"))?;
    let is_ours = |id: &&str| crate::ids::is_minted_here(crate::ids::Kind::File, id);
    uri.as_str().filter(is_ours)
}

fn named_in(value: &Value, ids: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| named_in(item, ids)),
        Value::Object(members) => {
            if let Some(Value::String(id)) = members.get("file_id") {
                ids.push(id.clone());
            }
            // Google's files have URLs, ours an id.
            if let Some(id) = file_of_uri(value) {
                ids.push(id.to_owned());
            }
            members.values().for_each(|member| named_in(member, ids));
        }
        _ => {}
    }
}

fn put_bytes(value: &mut Value, files: &HashMap<String, Attachment>) {
    let file_of = |value: &Value| files.get(value.get("file_id")?.as_str()?);
    // Chat Completions takes an image as a part of another kind.
    if let Some(image) = value
        .get("file")
        .and_then(file_of)
        .filter(|file| file.is_image())
    {
        *value = json!({ "type": "image_url", "image_url": { "url": image.data_url() } });
        return;
    }
    // Gemini has it in a member of the part.
    for name in ["fileData", "file_data"] {
        let file = value.get(name).and_then(file_of_uri);
        if let Some(file) = file.and_then(|id| files.get(id))
            && let Value::Object(part) = value
        {
            part.shift_remove(name);
            let data = json!({ "mimeType": file.media_type, "data": file.base64() });
            part.insert("inlineData".to_owned(), data);
            return;
        }
    }
    // Messages has a source within a block.
    if value["source"]["type"] == "file"
        && let Some(file) = value.get("source").and_then(file_of)
    {
        value["source"] = match std::str::from_utf8(&file.content) {
            Ok(text) if !file.is_image() && file.media_type != "application/pdf" => {
                json!({ "type": "text", "media_type": "text/plain", "data": text })
            }
            _ => json!({ "type": "base64", "media_type": file.media_type, "data": file.base64() }),
        };
        if file.is_image()
            && let Value::Object(block) = value
        {
            block.insert("type".to_owned(), json!("image"));
            block.retain(|name, _| matches!(&**name, "type" | "source" | "cache_control"));
        }
        return;
    }
    if let Some(file) = file_of(value)
        && let Value::Object(part) = value
    {
        part.shift_remove("file_id");
        if part.get("type").is_some_and(|kind| *kind == "input_image") {
            part.insert("image_url".to_owned(), json!(file.data_url()));
        } else if part.get("type").is_some_and(|kind| *kind == "input_file") && file.is_image() {
            part.insert("type".to_owned(), json!("input_image"));
            part.shift_remove("filename");
            part.insert("image_url".to_owned(), json!(file.data_url()));
        } else {
            part.insert("file_data".to_owned(), json!(file.data_url()));
            let name = part.entry("filename").or_insert(Value::Null);
            if name.is_null() {
                *name = json!(file.name);
            }
        }
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| put_bytes(item, files)),
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| put_bytes(member, files)),
        _ => {}
    }
}
