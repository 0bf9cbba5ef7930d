//! What is told of the files of a skill's version. It is noted when the version is made, so that a
//! list of versions does not read them all.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::SkillFile;

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillFileOut {
    /// Relative to the folder with the `SKILL.md`.
    pub path: String,
    pub size: i64,
    pub sha256: String,
    pub media_type: String,
}

/// The files of a version.
pub struct Manifest(pub Vec<SkillFileOut>);

impl Manifest {
    pub fn of(files: &[SkillFile]) -> Self {
        Self(files.iter().map(file_out).collect())
    }

    /// As it was noted.
    pub fn parse(noted: &str) -> Option<Self> {
        serde_json::from_str(noted).ok().map(Self)
    }

    /// As it is noted.
    pub fn to_text(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// The paths in a folder of the skill.
    pub fn inside(&self, folder: &str) -> Vec<String> {
        let inside = |path: &&String| {
            let rest = path.strip_prefix(folder);
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let paths = self.0.iter().map(|file| &file.path);
        paths.filter(inside).cloned().collect()
    }

    /// The size of all files.
    pub fn bytes(&self) -> i64 {
        self.0.iter().map(|file| file.size).sum()
    }
}

fn file_out(file: &SkillFile) -> SkillFileOut {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &file.content);
    SkillFileOut {
        path: file.path.clone(),
        size: file.content.len() as i64,
        sha256: hex::encode(digest.as_ref()),
        media_type: media_type(&file.path).to_owned(),
    }
}

/// By the end of a file's name.
fn media_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match ending.to_ascii_lowercase().as_str() {
        "md" | "markdown" => "text/markdown",
        "txt" => "text/plain",
        "json" => "application/json",
        "yaml" | "yml" => "text/yaml",
        "csv" => "text/csv",
        "py" => "text/x-python",
        "sh" => "text/x-shellscript",
        "js" => "text/javascript",
        "ts" => "text/typescript",
        "html" => "text/html",
        "css" => "text/css",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_folder_size_and_digest() {
        let paths = ["SKILL.md", "scripts/a.py", "scripts.md", "assets/b/c.PNG"];
        let files = paths.map(|path| SkillFile {
            path: path.to_owned(),
            content: b"x".to_vec(),
        });
        let manifest = Manifest::of(&files);
        assert_eq!(manifest.inside("scripts"), ["scripts/a.py"]);
        assert_eq!(manifest.inside("assets"), ["assets/b/c.PNG"]);
        assert_eq!(manifest.inside("references"), [""; 0]);
        assert_eq!(manifest.bytes(), 4);
        let types: Vec<&str> = manifest.0.iter().map(|f| f.media_type.as_str()).collect();
        assert_eq!(
            types,
            [
                "text/markdown",
                "text/x-python",
                "text/markdown",
                "image/png"
            ]
        );
        assert_eq!(manifest.0[0].sha256.len(), 64);
        let again = Manifest::parse(&manifest.to_text()).expect("noted");
        assert_eq!(again.0, manifest.0);
        assert!(Manifest::parse("").is_none());
    }
}
