//! The files of a skill: taken out of a form or a zip, checked, and packed again. A bundle has one
//! root folder (or none) with a `SKILL.md` whose front matter names and describes the skill.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Write};
use std::sync::Arc;

use axum::extract::multipart::Multipart;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::edge::extract::bad_form;
use crate::error::ApiError;
use crate::store::SkillFile;
use crate::untrusted::{
    ArchiveBounds, Sandbox, SandboxError, check_front_matter, split_front_matter,
};

/// The most that a skill may hold, unpacked (`observed.md` 10).
const MAX_BYTES: usize = 32 * 1024 * 1024;
const MAX_FILES: usize = 1000;
const MAX_PATH: usize = 512;
const MAX_NAME: usize = 64;
const MAX_DESCRIPTION: usize = 4096;
/// Folders inside each other.
const MAX_FOLDERS: usize = 16;
const MAIN_FILE: &str = "SKILL.md";

/// A checked bundle.
pub struct Bundle {
    pub name: String,
    pub description: String,
    /// All that stands in the front matter, `name` and `description` too.
    pub front_matter: Map<String, Value>,
    pub files: Vec<SkillFile>,
    /// The form's `default` member.
    pub make_default: bool,
}

fn bad(why: impl Into<String>) -> ApiError {
    ApiError::bad_request("invalid_bundle", why.into()).param("files")
}

/// What the sandbox could not do.
fn undone(error: &SandboxError, what: &str) -> ApiError {
    match error.may_pass() {
        true => ApiError::unavailable("service_overloaded", error.told(what), 1),
        false => bad(error.told(what)),
    }
}

/// Reads the form of an upload.
pub async fn read(
    mut form: Multipart,
    sandbox: &Arc<Sandbox>,
    tenant: &Arc<str>,
) -> Result<Bundle, ApiError> {
    let mut uploads: Vec<(String, Bytes)> = Vec::new();
    let (mut total, mut make_default) = (0, false);
    while let Some(field) = form.next_field().await.map_err(|e| bad_form(&e))? {
        match field.name() {
            Some("files" | "files[]" | "file") => {
                let name = field.file_name().unwrap_or_default().to_owned();
                let content = field.bytes().await.map_err(|e| bad_form(&e))?;
                total += content.len();
                if total > MAX_BYTES {
                    return Err(ApiError::too_large(MAX_BYTES));
                }
                if uploads.len() >= MAX_FILES {
                    return Err(bad(format!("a skill has at most {MAX_FILES} files")));
                }
                uploads.push((name, content));
            }
            Some("default") => {
                let text = field.text().await.map_err(|e| bad_form(&e))?;
                make_default = text == "true";
            }
            _ => {}
        }
    }
    let files = match uploads.as_slice() {
        [] => return Err(ApiError::invalid("files", "is missing")),
        [(_, content)] if content.starts_with(b"PK\x03\x04") => {
            let bounds = ArchiveBounds {
                bytes: MAX_BYTES,
                files: MAX_FILES,
            };
            let files = sandbox.archive(tenant, bounds, content.to_vec()).await;
            files.map_err(|error| undone(&error, "unpacking the zip"))?
        }
        _ => uploads
            .into_iter()
            .map(|(path, content)| (path, content.to_vec()))
            .collect(),
    };
    let files = checked(files)?;
    let yaml = front_matter(&files)?;
    check_front_matter(&yaml).map_err(unfit)?;
    let parsed = sandbox.front_matter(tenant, &yaml).await;
    let parsed = parsed.map_err(|error| match error.may_pass() {
        true => undone(&error, "reading the front matter"),
        false => unfit(error.told("it")),
    })?;
    let (name, description, front_matter) = named(parsed)?;
    Ok(Bundle {
        name,
        description,
        front_matter,
        files,
        make_default,
    })
}

/// A path without its surprises, or `None` when it leads out of the bundle.
fn clean(path: &str) -> Option<String> {
    let path = path.replace('\\', "/");
    let parts: Vec<&str> = path
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    let sane = !path.starts_with('/')
        && !parts.is_empty()
        && path.len() <= MAX_PATH
        && parts.len() <= MAX_FOLDERS
        // A drive of Windows.
        && !parts[0].ends_with(':')
        && !parts.contains(&"..")
        && !path.chars().any(char::is_control);
    sane.then(|| parts.join("/"))
}

fn checked(files: Vec<(String, Vec<u8>)>) -> Result<Vec<SkillFile>, ApiError> {
    let mut clean_files = BTreeMap::new();
    let mut folded = BTreeSet::new();
    for (path, content) in files {
        let path = clean(&path).ok_or_else(|| bad(format!("'{path}' is no path of a file")))?;
        // What macOS adds to archives.
        if path.starts_with("__MACOSX/") || path.ends_with(".DS_Store") {
            continue;
        }
        // On many disks names that differ in case alone are one file.
        if !folded.insert(path.to_lowercase()) {
            return Err(bad(format!("'{path}' is there twice")));
        }
        clean_files.insert(path, content);
    }
    let main = clean_files
        .keys()
        .filter(|path| path.rsplit('/').next() == Some(MAIN_FILE))
        .min_by_key(|path| path.matches('/').count())
        .ok_or_else(|| bad(format!("there is no {MAIN_FILE}")))?;
    let root = main[..main.len() - MAIN_FILE.len()].to_owned();
    if root.matches('/').count() > 1 {
        return Err(bad(format!("{MAIN_FILE} must be in the root folder")));
    }
    let mut files = Vec::with_capacity(clean_files.len());
    for (path, content) in clean_files {
        let inside = path
            .strip_prefix(&root)
            .ok_or_else(|| bad(format!("'{path}' is outside the root folder")))?;
        files.push(SkillFile {
            path: inside.to_owned(),
            content,
        });
    }
    Ok(files)
}

fn unfit(why: impl std::fmt::Display) -> ApiError {
    let message = format!("the front matter of {MAIN_FILE}: {why}");
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_bundle", message).param("files")
}

/// The YAML at the head of the main file.
fn front_matter(files: &[SkillFile]) -> Result<String, ApiError> {
    let main = files.iter().find(|file| file.path == MAIN_FILE);
    let text = main
        .and_then(|file| std::str::from_utf8(&file.content).ok())
        .ok_or_else(|| bad(format!("{MAIN_FILE} must be UTF-8")))?;
    let (matter, _) = split_front_matter(text)
        .ok_or_else(|| bad(format!("{MAIN_FILE} must begin with front matter")))?;
    Ok(matter.replace("\r\n", "\n"))
}

/// What the front matter says, with the members that a skill must have.
fn named(parsed: Value) -> Result<(String, String, Map<String, Value>), ApiError> {
    let Value::Object(matter) = parsed else {
        return Err(unfit("it must be a mapping"));
    };
    let name = match matter.get("name") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Number(name)) => name.to_string(),
        _ => return Err(unfit("'name' is missing")),
    };
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(word) {
        return Err(bad(format!(
            "the name in {MAIN_FILE} must be 1 to {MAX_NAME} of [a-z0-9-]"
        )));
    }
    let description = match matter.get("description") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err(unfit("'description' must be a text")),
    };
    if description.len() > MAX_DESCRIPTION || description.contains('\0') {
        return Err(bad(format!(
            "the description in {MAIN_FILE} has at most {MAX_DESCRIPTION} bytes"
        )));
    }
    Ok((name, description, matter))
}

/// A zip of a skill's files, in a folder of its name.
pub fn packed(name: &str, files: &[SkillFile]) -> Result<Vec<u8>, ApiError> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for file in files {
        zip.start_file(format!("{name}/{}", file.path), options)
            .map_err(ApiError::internal)?;
        zip.write_all(&file.content).map_err(ApiError::internal)?;
    }
    Ok(zip.finish().map_err(ApiError::internal)?.into_inner())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MAIN: &[u8] = b"---\nname: greeter\ndescription: >\n  Greets\n  people\n---\nSay hi.";

    fn files(paths: &[&str]) -> Vec<(String, Vec<u8>)> {
        let content = |path: &&str| ((*path).to_owned(), MAIN.to_vec());
        paths.iter().map(content).collect()
    }

    #[test]
    fn a_bundle_is_read_from_its_root_folder() {
        let found = checked(files(&["g/SKILL.md", "g/a/b.txt"])).expect("a bundle");
        let paths: Vec<&str> = found.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["SKILL.md", "a/b.txt"]);
        let yaml = front_matter(&found).expect("front matter");
        assert_eq!(yaml, "name: greeter\ndescription: >\n  Greets\n  people");
        assert!(
            packed("greeter", &found)
                .expect("packed")
                .starts_with(b"PK")
        );
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let deep = "a/".repeat(20) + "b.txt";
        for paths in [
            &["../SKILL.md"][..],
            &["/SKILL.md"],
            &["a/../SKILL.md"],
            &["a\\..\\SKILL.md"],
            &["C:/SKILL.md"],
            &["a/b.md"],
            &["a/b/SKILL.md"],
            &["a/SKILL.md", "c/x.md"],
            &["SKILL.md", "a.txt", "A.TXT"],
            &["SKILL.md", &deep],
        ] {
            let refused = checked(files(paths)).expect_err("refused");
            assert_eq!(refused.code, "invalid_bundle", "{paths:?}");
        }
    }

    #[test]
    fn the_front_matter_names_and_describes() {
        let matter = json!({ "name": "a", "license": "MIT", "allowed-tools": ["x"] });
        let (name, description, kept) = named(matter).expect("named");
        assert_eq!((name.as_str(), description.as_str()), ("a", ""));
        assert_eq!(kept["license"], "MIT");
        for matter in [
            json!([]),
            json!({}),
            json!({ "name": "A B" }),
            json!({ "name": ["a"] }),
            json!({ "name": "a", "description": ["b"] }),
            json!({ "name": "a", "description": "b".repeat(5000) }),
        ] {
            assert!(named(matter).is_err());
        }
    }
}
