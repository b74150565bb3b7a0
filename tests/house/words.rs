//! Words that make a native reader stumble.

use super::source::Source;
use super::{Finding, Tree};

/// Each of these has a plainer way to say it.
const BANNED: [&str; 9] = [
    "anew",
    "mended",
    "is to be",
    "are to be",
    "of its own",
    "of their own",
    "in place of",
    "comes upon",
    "came upon",
];

/// Folders and files whose comments still have such words. They leave this list, and none is added.
const LEFT: &[&str] = &[
    "broker/src/",
    "jepsen/src/cluster.rs",
    "jepsen/src/history.rs",
    "jepsen/src/recorder.rs",
    "jepsen/src/report.rs",
    "jepsen/src/sim/",
    "src/client/",
    "src/log/",
    "src/mutant.rs",
    "src/node/",
    "src/raft/",
    "src/server/",
    "src/wire/",
];

pub(crate) fn all(tree: &Tree, sources: &[Source], findings: &mut Vec<Finding>) {
    for (path, text) in tree.files.iter().filter(|(path, _)| path.ends_with(".md")) {
        for (at, line) in text.lines().enumerate() {
            report(path, at + 1, line, findings);
        }
    }
    let left = |path: &str| LEFT.iter().any(|start| path.starts_with(start));
    for source in sources.iter().filter(|source| !left(&source.path)) {
        comments(source, findings);
    }
}

/// Entries of the list that are gone or in order.
pub(crate) fn done(sources: &[Source]) -> Vec<&'static str> {
    let in_order = |start: &&str| {
        let mut findings = Vec::new();
        for source in sources.iter().filter(|source| source.path.starts_with(*start)) {
            comments(source, &mut findings);
        }
        findings.is_empty()
    };
    LEFT.iter().copied().filter(in_order).collect()
}

fn comments(source: &Source, findings: &mut Vec<Finding>) {
    for (line, comment) in source.comments() {
        report(&source.path, line, comment, findings);
    }
}

fn report(path: &str, line: usize, text: &str, findings: &mut Vec<Finding>) {
    for phrase in BANNED.iter().filter(|phrase| says(text, phrase)) {
        findings.push(Finding::new(path, line, format!("say \"{phrase}\" in plainer words")));
    }
}

/// True if the phrase stands in the text as whole words.
fn says(text: &str, phrase: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    text.match_indices(phrase).any(|(at, _)| {
        ends(text[..at].chars().next_back()) && ends(text[at + phrase.len()..].chars().next())
    })
}
