//! Words that make a native reader stumble.

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

pub(crate) fn all(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.files.iter().filter(|(path, _)| path.ends_with(".md")) {
        for (at, line) in text.lines().enumerate() {
            report(path, at + 1, line, findings);
        }
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
