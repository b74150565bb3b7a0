//! Which folder may name which, and names that have one place.

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

/// A name, and the only file or folder that may use it.
const CONFINED: [(&str, &[&str]); 4] = [
    ("openraft", &["src/raft/"]),
    ("bincode", &["src/format/codec.rs"]),
    ("unsafe", &UNSAFE),
    ("unsafe_code", &UNSAFE),
];

/// Maps of sealed segments; and, in the simulation, functions that replace the C library's.
const UNSAFE: [&str; 2] = ["src/seam/disk/mmap.rs", "jepsen/src/world/entropy.rs"];

/// The folder of `src` that a file belongs to; "" for the vocabulary.
fn folder(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/").filter(|inside| *inside != "lib.rs")?;
    Some(inside.split_once('/').map_or("", |(folder, _)| folder))
}

pub(crate) fn imports(tree: &Tree, source: &Source, findings: &mut Vec<Finding>) {
    let Some(folder) = folder(&source.path) else { return };
    let allowed = match LAYERS.iter().find(|(layer, _)| *layer == folder) {
        Some((_, allowed)) => *allowed,
        None if folder.is_empty() => &[],
        None => {
            let rule = format!("src/{folder} is no layer of DESIGN.md section 3 and of this test");
            findings.push(Finding::new(&source.path, 0, rule));
            return;
        }
    };
    for (line, name) in root_names(source) {
        let Some(layer) = layer_of(tree, name) else { continue };
        if layer != folder && !allowed.contains(&layer) {
            let from = if folder.is_empty() { "the vocabulary (src/*.rs)" } else { folder };
            let through = if name == layer { "" } else { &format!(" (through {name})") };
            let rule = format!("layers: {from} may not name {layer}{through}");
            findings.push(Finding::new(&source.path, line, rule));
        }
    }
}

/// The layer that a name at the crate's root stands for: its folder, or what `lib.rs` re-exports from it.
fn layer_of(tree: &Tree, name: &str) -> Option<&'static str> {
    let layers = || LAYERS.iter().map(|(layer, _)| *layer);
    if let Some(layer) = layers().find(|layer| *layer == name) {
        return Some(layer);
    }
    let lib = Source::new("src/lib.rs", tree.text("src/lib.rs"));
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
fn root_names(source: &Source) -> Vec<(usize, &str)> {
    let tokens = source.tokens();
    let inside = source.path.trim_start_matches("src/").trim_end_matches(".rs");
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
                let supers = tokens[at..].iter().step_by(2).take_while(|t| t.1 == "super").count();
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
