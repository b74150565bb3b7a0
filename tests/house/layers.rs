//! Which folder may name which, and names that have one place.

use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;
use super::{Finding, Tree};

/// DESIGN.md section 3: each folder of `src`, and the folders that it may name besides itself and the
/// vocabulary in `src/*.rs`.
pub(crate) const LAYERS: [(&str, &[&str]); 10] = [
    ("seam", &[]),
    ("format", &[]),
    ("segment", &["seam", "format"]),
    ("log", &["seam", "format", "segment"]),
    ("wire", &["seam", "format"]),
    ("raft", &["seam", "format", "segment", "log", "wire"]),
    ("node", &["seam", "format", "segment", "log", "wire", "raft"]),
    ("client", &["seam", "format", "wire", "node"]),
    ("server", &["seam", "format", "wire", "node"]),
    ("simulation", &["seam", "format", "segment", "log"]),
];

/// The table of docs/broker.md: each room of `broker/src`, and the rooms that it may name besides itself and the vocabulary in
/// `broker/src/*.rs`. What is for tests only may name any.
pub(crate) const ROOMS: [(&str, &[&str]); 11] = [
    ("remoting", &[]),
    ("record", &[]),
    ("state", &["record"]),
    ("request", &["remoting", "record", "state"]),
    ("net", &["remoting", "request"]),
    ("clients", &["remoting", "record", "request", "net"]),
    ("log", &["remoting", "record", "state", "request", "net", "clients"]),
    ("tasks", &["remoting", "record", "state", "request", "log"]),
    ("handle", &["remoting", "record", "state", "request", "net", "clients", "log"]),
    ("open", &["state", "net", "log", "tasks", "handle"]),
    ("tools", &["remoting", "record", "state", "net"]),
];

/// Root files of the broker that name rooms: what fuzz targets call.
const ABOVE_ROOMS: [&str; 1] = ["broker/src/fuzz.rs"];

/// Most files and folders in one folder of these: a newcomer reads the list.
const SIBLINGS_MAX: usize = 16;
const READ_BY_NEWCOMERS: [&str; 2] = ["broker/src/", "src/log/"];

/// A crate whose folders are layers.
struct Layered {
    src: &'static str,
    layers: &'static [(&'static str, &'static [&'static str])],
    /// What one folder is called, and where they are listed.
    called: &'static str,
    page: &'static str,
    /// Whether what is for tests only keeps to the layers, too.
    tests: bool,
}

const CRATES: [Layered; 2] = [
    Layered {
        src: "src/",
        layers: &LAYERS,
        called: "layer",
        page: "DESIGN.md section 3",
        tests: true,
    },
    Layered {
        src: "broker/src/",
        layers: &ROOMS,
        called: "room",
        page: "docs/broker.md",
        tests: false,
    },
];

/// A name, and the only file or folder that may use it.
const CONFINED: [(&str, &[&str]); 4] = [
    ("openraft", &["src/raft/"]),
    ("bincode", &["src/format/codec.rs"]),
    ("unsafe", &UNSAFE),
    ("unsafe_code", &UNSAFE),
];

/// Maps of sealed segments; and, in the simulation, functions that replace the C library's.
const UNSAFE: [&str; 2] = ["src/seam/disk/mmap.rs", "jepsen/src/world/entropy.rs"];

impl Layered {
    /// The folder that a file belongs to; "" for the vocabulary.
    fn folder<'a>(&self, path: &'a str) -> Option<&'a str> {
        let inside = path.strip_prefix(self.src).filter(|inside| *inside != "lib.rs")?;
        Some(inside.split_once('/').map_or("", |(folder, _)| folder))
    }

    fn imports(&self, tree: &Tree, source: &Source, findings: &mut Vec<Finding>) {
        let Some(folder) = self.folder(&source.path) else { return };
        let all_tests = (1..=source.text.lines().count()).all(|line| source.is_test(line));
        if !self.tests && all_tests || ABOVE_ROOMS.contains(&source.path.as_str()) {
            return;
        }
        let allowed = match self.layers.iter().find(|(layer, _)| *layer == folder) {
            Some((_, allowed)) => *allowed,
            None if folder.is_empty() => &[],
            None => {
                let Self { src, called, page, .. } = self;
                let rule = format!("{src}{folder} is no {called} of {page} and of this test");
                findings.push(Finding::new(&source.path, 0, rule));
                return;
            }
        };
        for (line, name) in self.root_names(source) {
            let Some(layer) = self.layer_of(tree, name) else { continue };
            if !self.tests && source.is_test(line) {
                continue;
            }
            if layer != folder && !allowed.contains(&layer) {
                let vocabulary = format!("the vocabulary ({}*.rs)", self.src);
                let from = if folder.is_empty() { vocabulary.as_str() } else { folder };
                let through = if name == layer { "" } else { &format!(" (through {name})") };
                let rule = format!("layers: {from} may not name {layer}{through}");
                findings.push(Finding::new(&source.path, line, rule));
            }
        }
    }

    /// The layer that a name at the crate's root stands for: its folder, or what `lib.rs` re-exports from it.
    fn layer_of(&self, tree: &Tree, name: &str) -> Option<&'static str> {
        let layers = || self.layers.iter().map(|(layer, _)| *layer);
        if let Some(layer) = layers().find(|layer| *layer == name) {
            return Some(layer);
        }
        let path = format!("{}lib.rs", self.src);
        let lib = Source::new(&path, tree.text(&path));
        let tokens = lib.tokens();
        layers().find(|layer| {
            let exported = tokens.windows(4).enumerate().filter(|(_, window)| {
                window[0].1 == "pub" && window[1].1 == "use" && window[2].1 == *layer
            });
            let mut names = exported.flat_map(|(at, _)| {
                tokens[at..].iter().map(|token| token.1).take_while(|token| *token != ";")
            });
            names.any(|exported| exported == name)
        })
    }

    /// Names that follow `crate::`, or enough `super::` to reach the crate's root.
    fn root_names<'a>(&self, source: &'a Source) -> Vec<(usize, &'a str)> {
        let tokens = source.tokens();
        let inside = source.path.trim_start_matches(self.src).trim_end_matches(".rs");
        let depth = inside.split('/').filter(|part| *part != "mod").count();
        let mut names = Vec::new();
        // For each open brace, whether it is a module's.
        let mut braces: Vec<bool> = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let behind_path = at > 0 && tokens[at - 1].1 == "::";
            match tokens[at].1 {
                "{" => braces.push(at > 1 && tokens[at - 2].1 == "mod"),
                "}" => drop(braces.pop()),
                start @ ("crate" | "super") if !behind_path => {
                    let supers =
                        tokens[at..].iter().step_by(2).take_while(|t| t.1 == "super").count();
                    let modules = depth + braces.iter().filter(|module| **module).count();
                    let steps = if start == "crate" { 1 } else { supers };
                    at += 2 * steps - 1;
                    if start == "crate" || supers == modules {
                        heads(&tokens[at..], &mut names);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        names
    }
}

pub(crate) fn imports(tree: &Tree, source: &Source, findings: &mut Vec<Finding>) {
    for layered in CRATES {
        layered.imports(tree, source, findings);
    }
}

/// No folder has more files and folders than a newcomer can read, and tests are in one place.
pub(crate) fn siblings(tree: &Tree, findings: &mut Vec<Finding>) {
    let mut folders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for path in tree.files.keys() {
        let folder = path.strip_suffix("tests.rs").map(|before| format!("{before}tests/"));
        if folder.is_some_and(|folder| tree.files.keys().any(|other| other.starts_with(&folder))) {
            findings.push(Finding::new(path, 0, "tests.rs stands beside a folder tests"));
        }
        if !READ_BY_NEWCOMERS.iter().any(|read| path.starts_with(read)) {
            continue;
        }
        for (slash, _) in path.match_indices('/').skip(1) {
            let inside = &path[slash + 1..];
            let name = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
            if !matches!(name, "mod" | "lib") {
                folders.entry(&path[..slash]).or_default().insert(name);
            }
        }
    }
    for (folder, names) in folders.iter().filter(|(_, names)| names.len() > SIBLINGS_MAX) {
        let rule = format!(
            "{} files and folders in {folder}, and at most {SIBLINGS_MAX} are allowed: make a room",
            names.len()
        );
        findings.push(Finding::new(folder, 0, rule));
    }
}

/// The first names behind `::`: one, or those of a group.
fn heads<'a>(tokens: &[(usize, &'a str)], names: &mut Vec<(usize, &'a str)>) {
    let Some(((_, "::"), rest)) = tokens.split_first() else { return };
    if rest.first().is_none_or(|token| token.1 != "{") {
        names.extend(rest.first());
        return;
    }
    let mut depth = 0;
    let mut head = false;
    for &(line, token) in rest {
        match token {
            "{" => (depth, head) = (depth + 1, depth == 0),
            "}" => depth -= 1,
            "," => head = depth == 1,
            name if head => {
                names.push((line, name));
                head = false;
            }
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

/// Names that have one place, and the reason that each use of `unsafe` gives.
pub(crate) fn confined(source: &Source, findings: &mut Vec<Finding>) {
    let lines: Vec<_> = source.text.lines().collect();
    for (line, token) in source.tokens() {
        let Some((name, places)) = CONFINED.iter().find(|(name, _)| *name == token) else {
            continue;
        };
        let at_home = places.iter().any(|place| source.path.starts_with(place));
        let in_its_test = *name == "openraft" && source.path.starts_with("tests/");
        if !at_home && !in_its_test {
            let rule = format!("{name} is named only in {}", places.join(" and "));
            findings.push(Finding::new(&source.path, line, rule));
        }
        let above = lines[..line - 1].iter().rev().take_while(|above| {
            let above = above.trim_start();
            above.starts_with("//") || above.starts_with("#[")
        });
        let said = above.chain(&lines[line - 1..line]).any(|line| line.contains("SAFETY:"));
        if token == "unsafe" && !said {
            let rule = "unsafe without a SAFETY comment above it";
            findings.push(Finding::new(&source.path, line, rule));
        }
    }
}
