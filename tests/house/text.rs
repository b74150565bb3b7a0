//! Rules about the text of one file.

use super::source::Source;
use super::{Finding, Tree};

/// Longest file, in lines, tests included.
const LINES_MAX: usize = 600;

/// Directories that only exist on somebody's machine.
const MACHINE: [&str; 5] = ["home", "work", "root", "Users", "mnt"];

pub(crate) fn all(source: &Source, findings: &mut Vec<Finding>) {
    length(source, findings);
    module_doc(source, findings);
    unwraps(source, findings);
    sleeps(source, findings);
}

fn length(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        let rule = format!("{lines} lines, and at most {LINES_MAX} are allowed: split the file");
        findings.push(Finding::new(&source.path, LINES_MAX + 1, rule));
    }
}

/// A module says what it is, first of all.
fn module_doc(source: &Source, findings: &mut Vec<Finding>) {
    let first = source.text.trim_start();
    if !first.starts_with("//!") && !first.starts_with("#![doc") {
        findings.push(Finding::new(&source.path, 1, "the module does not begin with `//!`"));
    }
}

fn unwraps(source: &Source, findings: &mut Vec<Finding>) {
    let tokens = source.tokens();
    for window in tokens.windows(3).filter(|window| !source.is_test(window[0].0)) {
        let rule = match [window[0].1, window[1].1, window[2].1] {
            [".", "unwrap", "("] => "unwrap outside tests: return an error, or say why with expect",
            ["todo" | "unimplemented", "!", _] => "unfinished code outside tests",
            _ => continue,
        };
        findings.push(Finding::new(&source.path, window[0].0, rule));
    }
}

/// Tests wait for conditions. A pause that is no wait, such as one between polls or as load, says so.
fn sleeps(source: &Source, findings: &mut Vec<Finding>) {
    let lines: Vec<_> = source.text.lines().collect();
    for window in source.tokens().windows(2) {
        let (line, name) = window[0];
        let pause = matches!(name, "sleep" | "sleep_until" | "sleep_ms" | "park_timeout");
        if !pause || window[1].1 != "(" || !source.is_test(line) {
            continue;
        }
        let is_comment = |above: &&&str| above.trim_start().starts_with("//");
        let above = lines[..line - 1].iter().rev().take_while(is_comment);
        if !above.chain(&lines[line - 1..line]).any(|above| above.contains("// paced:")) {
            let rule = "sleeping in a test: wait for a condition, or say `// paced:` and why";
            findings.push(Finding::new(&source.path, line, rule));
        }
    }
}

/// Nothing names a directory of the machine that it was written on.
pub(crate) fn machine_paths(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in &tree.files {
        for (at, line) in text.lines().enumerate() {
            let mut parts = line.match_indices('/');
            let found = parts.find_map(|(slash, _)| {
                let before = line[..slash].chars().next_back();
                let inside_a_path =
                    before.is_some_and(|c| c.is_alphanumeric() || "._-~/*}>)$".contains(c));
                let rest = &line[slash + 1..];
                let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
                MACHINE.iter().find(|name| **name == &rest[..end] && !inside_a_path)
            });
            if let Some(name) = found {
                let rule = format!("a path of somebody's machine: /{name}");
                findings.push(Finding::new(path, at + 1, rule));
            }
        }
    }
}
