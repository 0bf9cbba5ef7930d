//! No two files of a room import each other, in however many steps. A `mod.rs` is a room's face: what
//! lies below it may use what it defines, and it may use what lies below.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{code_of, sources};

/// A module's path, without `crate`.
type Module = Vec<String>;

fn module_of(file: &str) -> Module {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Module = path.split('/').map(str::to_owned).collect();
    if ["mod", "lib"].contains(&parts[parts.len() - 1].as_str()) {
        parts.pop();
    }
    parts
}

/// The paths of what stands behind `use`, with the names that they are given.
fn expanded(tree: &str) -> Vec<(Module, String)> {
    let mut found = Vec::new();
    let (before, list) = match tree.split_once('{') {
        None => {
            let (path, alias) = match tree.split_once(" as ") {
                Some((path, alias)) => (path, Some(alias.trim())),
                None => (tree, None),
            };
            let parts: Module = path
                .split("::")
                .map(|part| part.trim().to_owned())
                .filter(|part| !part.is_empty())
                .collect();
            let name = alias.or(parts.last().map(String::as_str));
            let name = name.unwrap_or_default().to_owned();
            return vec![(parts, name)];
        }
        Some((before, rest)) => (before, &rest[..rest.rfind('}').expect("an end")]),
    };
    let start: Module = before
        .split("::")
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect();
    let (mut depth, mut from) = (0, 0);
    for (at, letter) in list.char_indices().chain([(list.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                for (path, name) in expanded(&list[from..at]) {
                    found.push(([start.clone(), path].concat(), name));
                }
                from = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|(path, _)| path.len() > start.len());
    found
}

/// The statements that begin with `use`, with whether they pass on what they name; and all else.
fn statements(code: &str) -> (Vec<(bool, String)>, String) {
    let (mut uses, mut rest) = (Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let begun = line.trim_start();
        let public = begun.starts_with("pub") && begun.contains(" use ");
        if !public && !begun.starts_with("use ") {
            rest.push_str(line);
            rest.push('\n');
            continue;
        }
        let mut whole = begun.to_owned();
        while !whole.contains(';') {
            whole.push_str(lines.next().expect("the statement's end"));
        }
        let tree = whole.split_once("use ").map_or("", |(_, tree)| tree);
        uses.push((public, tree.trim_end_matches(';').to_owned()));
    }
    (uses, rest)
}

/// Paths that are written out where they are used.
fn inline(code: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let path = code[at..]
                .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
                .next()
                .unwrap_or_default();
            let parts = path.split("::").filter(|part| !part.is_empty());
            found.push(parts.map(str::to_owned).collect());
        }
    }
    found
}

#[derive(Default)]
struct Modules {
    files: BTreeMap<Module, String>,
    /// What a module passes on, by the name that it has there.
    passed_on: BTreeMap<Module, BTreeMap<String, Module>>,
}

impl Modules {
    /// A path from the crate's root on; `None` for other crates' and for what is in scope.
    fn absolute(&self, here: &Module, path: &[String]) -> Option<Module> {
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([here, &path[1..]].concat()),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                let kept = here.len().checked_sub(up)?;
                Some([&here[..kept], &path[up..]].concat())
            }
            first => {
                let below = [&here[..], &[first.to_owned()]].concat();
                let path = [&here[..], path].concat();
                self.files.contains_key(&below).then_some(path)
            }
        }
    }

    /// The module in which what `path` names is defined.
    fn defining(&self, path: &[String], steps: usize) -> Module {
        let mut known = 0;
        while known < path.len() && self.files.contains_key(&path[..known + 1]) {
            known += 1;
        }
        let module = path[..known].to_vec();
        let passed_on = path.get(known).and_then(|name| {
            let target = self.passed_on.get(&module)?.get(name)?;
            self.absolute(&module, target)
        });
        match passed_on {
            Some(target) if steps > 0 => {
                self.defining(&[&target[..], &path[known + 1..]].concat(), steps - 1)
            }
            _ => module,
        }
    }
}

/// Which files import which.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut modules = Modules::default();
    let mut parsed = Vec::new();
    for (file, text) in sources() {
        let module = module_of(&file);
        let (uses, rest) = statements(&code_of(&text));
        for (public, tree) in &uses {
            if *public {
                let passed_on = modules.passed_on.entry(module.clone()).or_default();
                passed_on.extend(expanded(tree).into_iter().map(|(path, name)| (name, path)));
            }
        }
        modules.files.insert(module.clone(), file.clone());
        parsed.push((file, module, uses, rest));
    }
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, module, uses, rest) in parsed {
        let written = uses.iter().filter(|(public, _)| !public);
        let paths = written.flat_map(|(_, tree)| expanded(tree));
        let paths = paths.map(|(path, _)| path).chain(inline(&rest));
        for path in paths {
            let Some(path) = modules.absolute(&module, &path) else {
                continue;
            };
            let target = modules.defining(&path, 8);
            // What is below a module's face uses it as a matter of course.
            if !module.starts_with(&target) {
                let target = modules.files[&target].clone();
                found.entry(file.clone()).or_default().insert(target);
            }
        }
    }
    found
}

/// All files that `from` reaches.
fn reached(imports: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(file) = next.pop() {
        for target in imports.get(&file).into_iter().flatten() {
            if seen.insert(target.clone()) {
                next.push(target.clone());
            }
        }
    }
    seen
}

#[test]
fn no_files_import_each_other() {
    let imports = imports();
    let count: usize = imports.values().map(BTreeSet::len).sum();
    assert!(count > 1000, "{count} imports");
    let circular: Vec<&String> = imports
        .keys()
        .filter(|file| reached(&imports, file).contains(*file))
        .collect();
    assert!(circular.is_empty(), "imports go round: {circular:#?}");
}

#[test]
fn paths_are_read_as_they_are_written() {
    let paths = |tree: &str| -> Vec<String> {
        let found = expanded(tree).into_iter();
        found
            .map(|(path, name)| format!("{} {name}", path.join("::")))
            .collect()
    };
    assert_eq!(paths("super::a"), ["super::a a"]);
    assert_eq!(
        paths("crate::{a::{self, B as C}, d}"),
        ["crate::a::self self", "crate::a::B C", "crate::d d"]
    );
    assert_eq!(inline("x: super::a::B, crate::c!(), mycrate::d").len(), 2);
}
