//! Files that come with messages (<https://docs.slack.dev/reference/objects/file-object>), and files
//! that leave (<https://docs.slack.dev/messaging/working-with-files#upload>).

use http::header;
use serde_json::{Value, json};

use super::api::{self, By, Workspace};
use super::workspace;
use crate::channel::files::{is_picture, part_of};
use crate::channel::said::add_line;
use crate::channel::{Fault, Hub, Outgoing, Said};
use crate::store::OutboundRow;

/// Files of one message that are read; more are told of.
const MOST: usize = 10;

/// Shares a file where an answer goes; answers its id. Only the last of the three steps shows it.
pub async fn share(hub: &Hub, to: &OutboundRow, file: &Outgoing) -> Result<String, Fault> {
    let place: Value = serde_json::from_str(&to.reply_to).unwrap_or_default();
    let team = place["team"].as_str().unwrap_or_default();
    let workspace = workspace::workspace(hub, &to.tenant_id, team).await?;
    let by = By::Token(&workspace.token);
    let length = file.content.len().to_string();
    let fields = [("filename", file.name.as_str()), ("length", &length)];
    let given = api::asked(api::form(hub, by, "files.getUploadURLExternal", &fields).await)?;
    let (Some(url), Some(id)) = (given["upload_url"].as_str(), given["file_id"].as_str()) else {
        return Err(Fault::later("Slack names no place for a file"));
    };
    api::upload(hub, url, file.content.clone()).await?;
    let mut body = json!({ "files": [{ "id": id, "title": file.name }],
        "channel_id": place["channel"] });
    if place["thread_ts"].is_string() {
        body["thread_ts"] = place["thread_ts"].clone();
    }
    api::call(hub, &workspace.token, "files.completeUploadExternal", &body).await?;
    Ok(id.to_owned())
}

/// Adds what came with a message: files are kept here first.
pub async fn attach(
    hub: &Hub,
    tenant_id: &str,
    workspace: &Workspace,
    message: &Value,
    said: &mut Said,
) -> Result<(), Fault> {
    let files = message["files"].as_array().map_or(&[][..], Vec::as_slice);
    for file in files.iter().take(MOST) {
        one(hub, tenant_id, workspace, file, said).await?;
    }
    if files.len() > MOST {
        let more = files.len() - MOST;
        add_line(
            &mut said.text,
            &format!("[{more} more files are not read.]"),
        );
    }
    Ok(())
}

async fn one(
    hub: &Hub,
    tenant_id: &str,
    workspace: &Workspace,
    file: &Value,
    said: &mut Said,
) -> Result<(), Fault> {
    // Of a file in a shared channel Slack tells its name alone.
    let found;
    let file = match file["file_access"] == json!("check_file_info") {
        true => {
            let by = By::Token(&workspace.token);
            let id = file["id"].as_str().unwrap_or_default();
            let answer = api::asked(api::form(hub, by, "files.info", &[("file", id)]).await);
            match answer {
                Ok(answer) => found = answer["file"].clone(),
                Err(Fault::Never(_)) => found = file.clone(),
                Err(fault) => return Err(fault),
            }
            &found
        }
        false => file,
    };
    let name = [&file["name"], &file["title"], &file["id"]];
    let mut names = name.into_iter().filter_map(Value::as_str);
    let name = names.find(|name| !name.is_empty()).unwrap_or("file");
    let url = [&file["url_private_download"], &file["url_private"]];
    let url = url.into_iter().find_map(Value::as_str);
    let Some(url) = url.filter(|url| api::on_slack(hub, url).is_some()) else {
        add_line(
            &mut said.text,
            &format!("[A file, {name}, is not there to read.]"),
        );
        return Ok(());
    };
    let limit = hub.config.max_file_bytes;
    let too_large = || format!("[A file, {name}, is too large to read.]");
    if file["size"]
        .as_u64()
        .is_some_and(|size| size > limit as u64)
    {
        add_line(&mut said.text, &too_large());
        return Ok(());
    }
    let media_type = file["mimetype"].as_str();
    let got = api::file(hub, &workspace.token, url, limit).await?;
    let given = got.headers.get(header::CONTENT_TYPE);
    let is_page = given.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let is_denied = is_page && media_type.is_none_or(|kind| !kind.contains("html"));
    match got.status.as_u16() {
        // Without the scope `files:read` Slack answers with its page for signing in.
        200..=299 if !is_denied => {}
        429 | 500..=599 => {
            return Err(Fault::Later {
                why: format!("Slack gave no file ({})", got.status),
                after: got.retry_after(),
            });
        }
        _ => {
            tracing::info!(tenant_id, status = %got.status, "Slack gave no file: files:read?");
            add_line(
                &mut said.text,
                &format!("[A file, {name}, could not be read.]"),
            );
            return Ok(());
        }
    }
    let kept = hub.keep_file(tenant_id, name, media_type, got.body).await?;
    said.parts.push(part_of(kept, name, is_picture(media_type)));
    Ok(())
}
