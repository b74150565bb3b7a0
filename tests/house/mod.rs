//! The house rules that a compiler cannot hold. Each takes the tree and reports what breaks it.

mod documents;
mod layers;
mod outside;
mod source;
mod text;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

pub(crate) use layers::ROOMS;
use source::Source;

/// The text files of the repository, by their path from its root, with `/` between names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    pub(crate) files: BTreeMap<String, String>,
}

/// A place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) file: String,
    /// From 1; 0 for the file as a whole.
    pub(crate) line: usize,
    pub(crate) rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

impl Finding {
    fn new(file: &str, line: usize, rule: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, rule: rule.into() }
    }
}

impl Tree {
    /// Reads every text file below `root`, save what is built, fetched or hidden; `.ci` is none of these.
    pub(crate) fn read(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut left = vec![root.to_owned()];
        while let Some(dir) = left.pop() {
            for entry in std::fs::read_dir(&dir).expect("a directory can be listed") {
                let path = entry.expect("an entry can be read").path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let made = matches!(name, "target" | "node_modules");
                if made || (name.starts_with('.') && name != ".ci") {
                    continue;
                }
                if path.is_dir() {
                    left.push(path);
                } else if let Ok(text) = std::fs::read_to_string(&path) {
                    let inside = path.strip_prefix(root).expect("it lies below the root");
                    let names: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
                    files.insert(names.join("/"), text);
                }
            }
        }
        Self { files }
    }

    fn text(&self, path: &str) -> &str {
        self.files.get(path).map_or("", String::as_str)
    }

    /// The text of a file that is there.
    pub(crate) fn text_mut(&mut self, path: &str) -> &mut String {
        self.files.get_mut(path).expect("the file is there")
    }

    /// True if `path` is the end of some file's path.
    fn ends_with(&self, path: &str) -> bool {
        let ends = |file: &String| {
            file.strip_suffix(path).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        };
        self.files.keys().any(ends)
    }

    /// True for a file, and for a directory with a file in it.
    fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files.keys().any(|file| {
            file.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// The Rust files.
fn sources(tree: &Tree) -> Vec<Source> {
    let rust = tree
        .files
        .iter()
        .filter(|(path, _)| path.ends_with(".rs") && !path.starts_with("fuzz/target/"));
    let mut sources: Vec<_> = rust.map(|(path, text)| Source::new(path, text)).collect();
    source::mark_test_modules(&mut sources);
    sources
}

/// Files that are on a list of exceptions and no longer need it.
pub(crate) fn outgrown(tree: &Tree) -> Vec<&'static str> {
    words::done(&sources(tree))
}

/// Everything that breaks a rule, by file and line.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let sources = sources(tree);
    let mut findings = Vec::new();
    for source in &sources {
        layers::imports(tree, source, &mut findings);
        layers::confined(source, &mut findings);
        outside::seams(source, &mut findings);
        text::all(source, &mut findings);
    }
    layers::siblings(tree, &mut findings);
    text::machine_paths(tree, &mut findings);
    documents::all(tree, &sources, &mut findings);
    words::all(tree, &sources, &mut findings);
    findings.sort_by(|a, b| (&a.file, a.line, &a.rule).cmp(&(&b.file, b.line, &b.rule)));
    findings
}
