//! The files of a skill: taken out of a form or a zip, checked, and packed again. A bundle has one
//! root folder (or none) with a `SKILL.md` whose front matter names and describes the skill.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};

use axum::extract::multipart::Multipart;
use bytes::Bytes;
use serde::Deserialize;

use super::extract::bad_form;
use crate::error::ApiError;
use crate::store::SkillFile;

/// The most that a skill may hold, unpacked (`observed.md` 10).
const MAX_BYTES: usize = 32 * 1024 * 1024;
const MAX_FILES: usize = 1000;
const MAX_PATH: usize = 512;
const MAX_NAME: usize = 64;
const MAX_DESCRIPTION: usize = 4096;
const MAIN_FILE: &str = "SKILL.md";

/// A checked bundle.
pub struct Bundle {
    pub name: String,
    pub description: String,
    pub files: Vec<SkillFile>,
    /// The form's `default` member.
    pub make_default: bool,
}

#[derive(Deserialize)]
struct FrontMatter {
    name: String,
    #[serde(default)]
    description: String,
}

fn bad(why: impl Into<String>) -> ApiError {
    ApiError::bad_request("invalid_bundle", why.into()).param("files")
}

/// Reads the form of an upload.
pub async fn read(mut form: Multipart) -> Result<Bundle, ApiError> {
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
        [(_, content)] if content.starts_with(b"PK\x03\x04") => unpacked(content)?,
        _ => uploads
            .into_iter()
            .map(|(path, content)| (path, content.to_vec()))
            .collect(),
    };
    let mut bundle = checked(files)?;
    bundle.make_default = make_default;
    Ok(bundle)
}

/// The files of a zip.
fn unpacked(content: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ApiError> {
    let broken = |e: zip::result::ZipError| bad(format!("the zip cannot be read: {e}"));
    let mut archive = zip::ZipArchive::new(Cursor::new(content)).map_err(broken)?;
    if archive.len() > MAX_FILES {
        return Err(bad(format!("a skill has at most {MAX_FILES} files")));
    }
    let (mut files, mut left) = (Vec::new(), MAX_BYTES);
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).map_err(broken)?;
        if entry.is_dir() || entry.is_symlink() {
            continue;
        }
        let path = entry.name().map_err(broken)?.into_owned();
        let mut file = Vec::new();
        // What an entry says of its size may be a lie.
        let limit = left as u64 + 1;
        (&mut entry)
            .take(limit)
            .read_to_end(&mut file)
            .map_err(|e| bad(format!("'{path}' cannot be read: {e}")))?;
        left = left
            .checked_sub(file.len())
            .ok_or_else(|| ApiError::too_large(MAX_BYTES))?;
        files.push((path, file));
    }
    Ok(files)
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
        && !parts.contains(&"..")
        && !path.chars().any(char::is_control);
    sane.then(|| parts.join("/"))
}

fn checked(files: Vec<(String, Vec<u8>)>) -> Result<Bundle, ApiError> {
    let mut clean_files = BTreeMap::new();
    for (path, content) in files {
        let path = clean(&path).ok_or_else(|| bad(format!("'{path}' is no path of a file")))?;
        // What macOS adds to archives.
        if path.starts_with("__MACOSX/") || path.ends_with(".DS_Store") {
            continue;
        }
        if clean_files.insert(path.clone(), content).is_some() {
            return Err(bad(format!("'{path}' is there twice")));
        }
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
    let main = files.iter().find(|file| file.path == MAIN_FILE);
    let text = main
        .and_then(|file| std::str::from_utf8(&file.content).ok())
        .ok_or_else(|| bad(format!("{MAIN_FILE} must be UTF-8")))?;
    let matter = front_matter(text)?;
    Ok(Bundle {
        name: matter.name,
        description: matter.description,
        files,
        make_default: false,
    })
}

fn front_matter(text: &str) -> Result<FrontMatter, ApiError> {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let matter = text
        .strip_prefix("---\n")
        .and_then(|rest| rest.split_once("\n---"))
        .map(|(matter, _)| matter)
        .ok_or_else(|| bad(format!("{MAIN_FILE} must begin with front matter")))?;
    let matter: FrontMatter = serde_yaml_ng::from_str(matter)
        .map_err(|e| bad(format!("the front matter of {MAIN_FILE}: {e}")))?;
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=MAX_NAME).contains(&matter.name.len()) || !matter.name.bytes().all(word) {
        return Err(bad(format!(
            "the name in {MAIN_FILE} must be 1 to {MAX_NAME} of [a-z0-9-]"
        )));
    }
    if matter.description.len() > MAX_DESCRIPTION || matter.description.contains('\0') {
        return Err(bad(format!(
            "the description in {MAIN_FILE} has at most {MAX_DESCRIPTION} bytes"
        )));
    }
    Ok(matter)
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
    use super::*;

    const MAIN: &[u8] = b"---\nname: greeter\ndescription: >\n  Greets\n  people\n---\nSay hi.";

    fn files(paths: &[&str]) -> Vec<(String, Vec<u8>)> {
        let content = |path: &&str| ((*path).to_owned(), MAIN.to_vec());
        paths.iter().map(content).collect()
    }

    #[test]
    fn a_bundle_is_read_from_its_root_folder() {
        let bundle = checked(files(&["g/SKILL.md", "g/a/b.txt"])).expect("a bundle");
        assert_eq!(bundle.name, "greeter");
        assert_eq!(bundle.description.trim(), "Greets people");
        let paths: Vec<&str> = bundle.files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["SKILL.md", "a/b.txt"]);
        let zip = packed("greeter", &bundle.files).expect("packed");
        let again = checked(unpacked(&zip).expect("unpacked")).expect("a bundle");
        assert_eq!(again.files, bundle.files);
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for paths in [
            &["../SKILL.md"][..],
            &["/SKILL.md"],
            &["a/../SKILL.md"],
            &["a\\..\\SKILL.md"],
            &["a/b.md"],
            &["a/b/SKILL.md"],
            &["a/SKILL.md", "c/x.md"],
        ] {
            let refused = checked(files(paths)).map(|b| b.name).expect_err("refused");
            assert_eq!(refused.code, "invalid_bundle", "{paths:?}");
        }
        for text in ["no matter", "---\nname: A B\n---\n", "---\n[\n---\n"] {
            assert!(front_matter(text).is_err(), "{text}");
        }
    }
}
