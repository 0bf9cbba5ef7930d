//! Skills at work: a model is told the name and description of each, and reads the rest by tools
//! when a task calls for it. Scripts are read as any file; nothing runs them here.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::hosted::{cut, object, text};
use crate::error::ApiError;
use crate::store::{Store, WantedVersion};
use crate::untrusted::split_front_matter;

/// Skills of one smith; more are left out, with a warning.
const MAX_SKILLS: usize = 64;
/// What a prompt says of one skill, in bytes.
const MAX_DESCRIPTION: usize = 1024;
/// What one call reads, in bytes.
const PAGE: usize = 48 * 1024;
/// Files that are listed with a skill.
const MAX_LISTED: usize = 200;
const MAIN_FILE: &str = "SKILL.md";

pub const READ_SKILL: &str = "read_skill";
pub const READ_FILE: &str = "read_skill_file";

/// A version of a skill that a smith has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// What the model calls it by.
    name: String,
    description: String,
    skill_id: String,
    version: i64,
}

/// The skills that a configuration refers to. One that is not there is a warning.
pub async fn attached(
    store: &dyn Store,
    tenant_id: &str,
    smith_id: &str,
    references: &[Value],
    warnings: &mut Vec<Value>,
) -> Result<Vec<Attached>, ApiError> {
    let mut warn = |message: String| {
        warnings.push(json!({ "code": "skill_files_unavailable", "message": message }));
    };
    if references.len() > MAX_SKILLS {
        warn(format!(
            "a smith has at most {MAX_SKILLS} skills: the others are left out"
        ));
    }
    let mut found: Vec<Attached> = Vec::new();
    for reference in references.iter().take(MAX_SKILLS) {
        let id = reference["skill_id"].as_str().unwrap_or_default();
        let skill = store.skill(tenant_id, id).await?;
        let is_its = |of: &String| of.is_empty() || of == smith_id;
        let Some(skill) = skill.filter(|skill| is_its(&skill.smith_id)) else {
            warn(format!("the skill '{id}' is not there"));
            continue;
        };
        let number = match WantedVersion::of(&reference["version"]) {
            WantedVersion::Default => Some(skill.default_version),
            WantedVersion::Latest => Some(skill.latest_version),
            WantedVersion::Number(number) => Some(number),
            WantedVersion::None => None,
        };
        let version = match number {
            Some(number) => store.skill_version(tenant_id, id, number).await?,
            None => None,
        };
        let Some(version) = version else {
            warn(format!(
                "the skill '{}' has no version {}",
                skill.name, reference["version"]
            ));
            continue;
        };
        let taken = found.iter().any(|other| other.name == version.name);
        found.push(Attached {
            name: match taken {
                true => skill.id.clone(),
                false => version.name,
            },
            description: version.description,
            skill_id: skill.id,
            version: version.version,
        });
    }
    Ok(found)
}

/// What a model is told of its skills before it needs them.
pub fn prompt(skills: &[Attached]) -> String {
    let mut prompt = format!(
        "# Skills\n\nYou have skills: instructions for certain kinds of work. When a task fits the \
         description of one, call `{READ_SKILL}` with its name before you begin, and follow what \
         it says. `{READ_FILE}` reads the files that it refers to. Scripts can be read, but \
         nothing runs them here.\n"
    );
    for skill in skills {
        let words: Vec<&str> = skill.description.split_whitespace().collect();
        let description = words.join(" ");
        let _ = write!(
            prompt,
            "\n- {}: {}",
            skill.name,
            cut(&description, MAX_DESCRIPTION)
        );
    }
    prompt
}

/// The functions, with the schemas of their arguments.
pub fn functions(skills: &[Attached]) -> [(&'static str, &'static str, Value); 2] {
    let names: Vec<&str> = skills.iter().map(|skill| skill.name.as_str()).collect();
    let name = json!({ "type": "string", "enum": names });
    let offset = json!({ "type": "integer", "minimum": 0,
        "description": "Where to go on with a long text, in bytes" });
    [
        (
            READ_SKILL,
            "Read a skill's instructions and the list of its files",
            object(json!({ "name": name, "offset": offset }), &["name"]),
        ),
        (
            READ_FILE,
            "Read a file of a skill",
            object(
                json!({ "name": name, "offset": offset, "path": { "type": "string",
                    "description": "As the skill's list of files has it" } }),
                &["name", "path"],
            ),
        ),
    ]
}

/// Calls one of them.
pub async fn call(
    store: &Arc<dyn Store>,
    tenant_id: &str,
    skills: &[Attached],
    function: &str,
    args: &Map<String, Value>,
) -> Result<String, String> {
    let name = text(args, "name")?;
    let known = |skill: &&Attached| skill.name == name || skill.skill_id == name;
    let skill = skills
        .iter()
        .find(known)
        .ok_or_else(|| format!("there is no skill '{name}'"))?;
    let offset = args.get("offset").and_then(Value::as_u64).unwrap_or(0);
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let lost = |_| "the skill cannot be read now".to_owned();
    let (id, version) = (&skill.skill_id, skill.version);
    let file = async |path: &str| {
        let found = store.skill_file(tenant_id, id, version, path).await;
        found.map_err(lost)
    };
    if function == READ_FILE {
        let asked = text(args, "path")?;
        let path = inside(asked, &skill.name);
        let content = file(&path).await?;
        let content = content.ok_or_else(|| {
            format!("the skill '{name}' has no file '{asked}': `{READ_SKILL}` lists its files")
        })?;
        return Ok(shown_file(&path, &content, offset));
    }
    let main = file(MAIN_FILE).await?;
    let main = main.ok_or_else(|| format!("the skill '{name}' was deleted"))?;
    let main = String::from_utf8_lossy(&main);
    let body = split_front_matter(&main).map_or(&*main, |(_, body)| body);
    let mut shown = page(body.trim_start(), offset);
    let paths = store.skill_paths(tenant_id, id, version).await;
    let paths = paths.map_err(lost)?;
    let others: Vec<_> = paths.iter().filter(|(path, _)| path != MAIN_FILE).collect();
    if !others.is_empty() {
        shown += &format!("\n\nFiles of this skill, for `{READ_FILE}`:");
        for (path, bytes) in others.iter().take(MAX_LISTED) {
            let _ = write!(shown, "\n- {path} ({bytes} bytes)");
        }
        if others.len() > MAX_LISTED {
            let _ = write!(shown, "\n- and {} more", others.len() - MAX_LISTED);
        }
    }
    Ok(shown)
}

/// A path as it is kept: without the skill's own folder, which the bundle may have had.
fn inside(path: &str, skill: &str) -> String {
    let parts: Vec<&str> = path
        .split(['/', '\\'])
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    match parts.as_slice() {
        [root, rest @ ..] if *root == skill && !rest.is_empty() => rest.join("/"),
        parts => parts.join("/"),
    }
}

fn shown_file(path: &str, content: &[u8], offset: usize) -> String {
    match std::str::from_utf8(content) {
        Ok(text) if !text.contains('\0') => page(text, offset),
        _ => format!(
            "'{path}' is no text: it is a binary file of {} bytes, which cannot be shown here.",
            content.len()
        ),
    }
}

/// A part of a text, with a note where it goes on.
fn page(text: &str, offset: usize) -> String {
    let from = (0..=offset.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    let from = from.unwrap_or(0);
    let shown = cut(&text[from..], PAGE);
    let end = from + shown.len();
    match end < text.len() {
        true => format!(
            "{shown}\n\n[cut: {end} of {} bytes are shown; go on with \"offset\": {end}]",
            text.len()
        ),
        false => shown.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skill(name: &str, description: &str) -> Attached {
        Attached {
            name: name.to_owned(),
            description: description.to_owned(),
            skill_id: "skill_1".to_owned(),
            version: 1,
        }
    }

    #[test]
    fn a_prompt_says_little_of_each() {
        let prompt = prompt(&[skill("a", "One\n  line."), skill("b", &"x".repeat(5000))]);
        assert!(prompt.contains("\n- a: One line.\n- b: xxx"));
        assert!(prompt.len() < 2000);
    }

    #[test]
    fn long_files_come_in_pages() {
        let text = "ä".repeat(PAGE);
        let first = page(&text, 0);
        assert!(first.contains(&format!("\"offset\": {PAGE}")));
        assert!(page(&text, PAGE).starts_with('ä'));
        // Inside a character the one before it is where it begins.
        assert!(page(&text, 1).starts_with('ä'));
        assert_eq!(page("abc", 100), "");
        assert!(shown_file("a.png", b"\x89PNG\0", 0).contains("binary file of 5 bytes"));
    }

    #[test]
    fn paths_may_name_the_folder() {
        assert_eq!(inside("a/b.txt", "a"), "b.txt");
        assert_eq!(inside("./b\\c.txt", "a"), "b/c.txt");
        assert_eq!(inside("a", "a"), "a");
    }
}
