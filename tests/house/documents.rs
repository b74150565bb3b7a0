//! The documents exist, and say the same as the code.

use std::collections::{BTreeMap, BTreeSet};

use super::layers::{LAYERS, ROOMS};
use super::source::Source;
use super::{Finding, Tree};

const DOCUMENTS: [&str; 4] = ["CHANGELOG.md", "DESIGN.md", "README.md", METRICS];

/// Lists the metrics.
const METRICS: &str = "docs/operations.md";

/// What a newcomer reads first, and how long it may be in bytes: what does not fit belongs in `docs`.
const SIZES: [(&str, usize); 2] = [("DESIGN.md", 14 << 10), ("README.md", 12 << 10)];

pub(crate) fn all(tree: &Tree, sources: &[Source], findings: &mut Vec<Finding>) {
    for document in DOCUMENTS {
        if tree.text(document).trim().is_empty() {
            findings.push(Finding::new(document, 0, "the document is missing or empty"));
        }
    }
    for (document, most) in SIZES {
        let length = tree.text(document).len();
        if length > most {
            let rule =
                format!("{length} bytes, and at most {most} are allowed: move parts to docs");
            findings.push(Finding::new(document, 0, rule));
        }
    }
    invariants(tree, sources, findings);
    metrics(tree, sources, findings);
    layer_table(tree, findings);
    room_table(tree, findings);
    for (page, text) in pages(tree) {
        paths(tree, page, text, findings);
        links(tree, page, text, findings);
    }
    map(tree, findings);
    citations(tree, sources, findings);
}

/// What describes the code as it is now: not CHANGELOG.md.
fn pages(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    let top =
        |path: &str| ["CONTRIBUTING.md", "DESIGN.md", "README.md", "SECURITY.md"].contains(&path);
    let page = move |path: &str| top(path) || path.starts_with("docs/") && path.ends_with(".md");
    let files = tree.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
    files.filter(move |(path, _)| page(path))
}

/// The lines of DESIGN.md's section `number`, with their line numbers.
fn section(tree: &Tree, number: u32) -> impl Iterator<Item = (usize, &str)> {
    let heading = format!("## {number}.");
    let lines = tree.text("DESIGN.md").lines().enumerate().map(|(at, line)| (at + 1, line));
    let from = lines.skip_while(move |(_, line)| !line.starts_with(&heading));
    from.enumerate()
        .take_while(|(at, (_, line))| *at == 0 || !line.starts_with("## "))
        .map(|(_, line)| line)
}

/// `I7` and the like in a text, with their lines.
fn numbers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(at, line)| {
        let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let is_number = |word: &&str| {
            let digits = word.strip_prefix('I').unwrap_or_default();
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        };
        words.filter(is_number).map(move |word| (at + 1, word))
    })
}

/// Every invariant that the code names is in DESIGN.md section 5, and each one there is asserted in the code.
fn invariants(tree: &Tree, sources: &[Source], findings: &mut Vec<Finding>) {
    let rows = section(tree, 5).filter_map(|(line, text)| {
        let number = text.strip_prefix("| ")?.split(' ').next()?;
        numbers(number).next().map(|_| (number, line))
    });
    let listed: BTreeMap<_, _> = rows.collect();
    let mut asserted: BTreeSet<&str> = BTreeSet::new();
    for source in sources.iter().filter(|source| source.is_shipped()) {
        for (line, number) in numbers(&source.text) {
            if !listed.contains_key(number) {
                let rule = format!("{number} is no invariant of DESIGN.md section 5");
                findings.push(Finding::new(&source.path, line, rule));
            }
        }
        for (at, text) in source.uncommented.lines().enumerate() {
            let says = |number: &&&str| text.contains(&format!("{number}: "));
            if !source.is_test(at + 1) {
                asserted.extend(listed.keys().filter(says).copied());
            }
        }
    }
    for (number, line) in listed.iter().filter(|(number, _)| !asserted.contains(*number)) {
        let rule = format!("{number} is asserted nowhere in src: no message says \"{number}: ..\"");
        findings.push(Finding::new("DESIGN.md", *line, rule));
    }
}

/// The table of metrics has those that the library records.
fn metrics(tree: &Tree, sources: &[Source], findings: &mut Vec<Finding>) {
    let mut recorded = BTreeMap::new();
    for source in sources.iter().filter(|source| source.is_shipped()) {
        for (at, line) in source.uncommented.lines().enumerate() {
            for name in line.split('"').skip(1).step_by(2) {
                if name.starts_with("quorumlog_") && !source.is_test(at + 1) {
                    recorded.entry(name).or_insert((source.path.as_str(), at + 1));
                }
            }
        }
    }
    let mut listed = BTreeMap::new();
    for (at, line) in tree.text(METRICS).lines().enumerate() {
        listed.extend(quoted(line).filter(|n| n.starts_with("quorumlog_")).map(|n| (n, at + 1)));
    }
    for (name, (path, line)) in recorded.iter().filter(|(name, _)| !listed.contains_key(*name)) {
        findings.push(Finding::new(
            path,
            *line,
            format!("{METRICS} does not list the metric {name}"),
        ));
    }
    for (name, line) in listed.iter().filter(|(name, _)| !recorded.contains_key(*name)) {
        findings.push(Finding::new(METRICS, *line, format!("nothing records the metric {name}")));
    }
}

/// What stands between backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The folders of `src` are those of DESIGN.md's table of layers, in its order.
fn layer_table(tree: &Tree, findings: &mut Vec<Finding>) {
    let rows = section(tree, 3).filter_map(|(line, text)| {
        let mut cells = text.split('|').skip(1);
        let name = cells.next()?.trim();
        let is_layer = name.strip_prefix('L').is_some_and(|level| level.parse::<u32>().is_ok());
        is_layer.then_some((line, cells.next()?))
    });
    let mut listed = Vec::new();
    for (line, cell) in rows {
        for folder in quoted(cell).filter(|folder| !folder.contains('/')) {
            listed.push(folder);
            if !tree.has(&format!("src/{folder}/mod.rs")) {
                let rule = format!("the layer `{folder}` has no src/{folder}/mod.rs");
                findings.push(Finding::new("DESIGN.md", line, rule));
            }
        }
    }
    // `client, server` are siblings, and so are `log, wire`; the table gives the order.
    let mut known: Vec<_> = LAYERS.iter().map(|(layer, _)| *layer).collect();
    known.sort_unstable();
    listed.sort_unstable();
    if listed != known {
        let rule =
            format!("the layers {listed:?} of section 3 are not those of the test: {known:?}");
        findings.push(Finding::new("DESIGN.md", 0, rule));
    }
}

/// The folders of `broker/src` are those of the table of rooms, in its order.
fn room_table(tree: &Tree, findings: &mut Vec<Finding>) {
    let page = "docs/broker.md";
    let lines = tree.text(page).lines().skip_while(|line| *line != "## Rooms");
    let rows = lines.skip(1).take_while(|line| !line.starts_with("## "));
    let listed: Vec<_> = rows
        .filter_map(|row| row.strip_prefix("| `")?.split_once('`'))
        .map(|(folder, _)| folder)
        .collect();
    let known = ROOMS.map(|(room, _)| room);
    if tree.has("broker/src/lib.rs") && listed != known {
        let rule = format!("the rooms {listed:?} are not those of the test: {known:?}");
        findings.push(Finding::new(page, 0, rule));
    }
    for room in listed.iter().filter(|room| !tree.has(&format!("broker/src/{room}/mod.rs"))) {
        let rule = format!("the room `{room}` has no broker/src/{room}/mod.rs");
        findings.push(Finding::new(page, 0, rule));
    }
}

/// Files that a page names exist.
fn paths(tree: &Tree, page: &str, text: &str, findings: &mut Vec<Finding>) {
    for (at, line) in text.lines().enumerate() {
        for path in quoted(line) {
            let ours = [
                "src/",
                "tests/",
                "broker/",
                "cli/",
                "jepsen/",
                "examples/",
                "benches/",
                "fuzz/",
                ".ci/",
            ];
            let whole = !path.contains(['*', '<', ' ', '{']);
            let missing = match ours.iter().any(|start| path.starts_with(start)) {
                true => !tree.has(path),
                // Such as `raft/space.rs`.
                false => path.ends_with(".rs") && !tree.ends_with(path),
            };
            if whole && missing {
                let rule = format!("`{path}` does not exist");
                findings.push(Finding::new(page, at + 1, rule));
            }
        }
    }
}

/// Links to files of the repository lead somewhere.
fn links(tree: &Tree, page: &str, text: &str, findings: &mut Vec<Finding>) {
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    for (at, line) in text.lines().enumerate() {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
            let path = match target.strip_prefix("../") {
                Some(up) => up.to_owned(),
                None if folder.is_empty() => target.to_owned(),
                None => format!("{folder}/{target}"),
            };
            if !tree.has(&path) {
                let rule = format!("the link to {target} is broken");
                findings.push(Finding::new(page, at + 1, rule));
            }
        }
    }
}

/// DESIGN.md leads to every page.
fn map(tree: &Tree, findings: &mut Vec<Finding>) {
    for (page, _) in pages(tree).filter(|(page, _)| page.starts_with("docs/")) {
        if !tree.text("DESIGN.md").contains(&format!("({page})")) {
            findings.push(Finding::new(page, 0, "DESIGN.md does not link to this page"));
        }
    }
}

/// A page and a section that a comment cites, as in "docs/storage.md 4.7", exist.
fn citations(tree: &Tree, sources: &[Source], findings: &mut Vec<Finding>) {
    for source in sources {
        for (line, comment) in source.comments() {
            cited(tree, comment, &mut |rule| {
                findings.push(Finding::new(&source.path, line, rule));
            });
        }
    }
    for (path, text) in tree.files.iter().filter(|(path, _)| path.ends_with(".toml")) {
        for (at, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with('#')) {
            cited(tree, line, &mut |rule| findings.push(Finding::new(path, at + 1, rule)));
        }
    }
}

/// Reports what a comment cites and is not there.
fn cited(tree: &Tree, comment: &str, report: &mut dyn FnMut(String)) {
    let mut words = comment.split([' ', '(', ')', '`', '"']).peekable();
    while let Some(word) = words.next() {
        let page = word.trim_start_matches("../").trim_end_matches(['.', ',', ':', ';']);
        if page != "DESIGN.md" && !(page.starts_with("docs/") && page.ends_with(".md")) {
            continue;
        }
        if !tree.has(page) {
            report(format!("there is no {page}"));
        } else if let Some(number) = words.peek().and_then(|next| section_number(next)) {
            let headings = tree.text(page).lines().filter(|line| line.starts_with('#'));
            let mut numbers = headings.filter_map(|line| line.split(' ').nth(1));
            if !numbers.any(|heading| heading.trim_end_matches('.') == number) {
                report(format!("{page} has no section {number}"));
            }
        }
    }
}

/// `4.7` from "4.7,".
fn section_number(word: &str) -> Option<&str> {
    let number = word.trim_end_matches(['.', ',', ':', ';']);
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    number.split('.').all(digits).then_some(number)
}
