//! docs/mutants.md: the table as a page.

use std::fmt::Write as _;

use super::{Expected, Row, rows};

const HEAD: &str = "\
# Mutants

A mutant is a deliberate bug in the library. [testing.md](testing.md) 15 says how they are used. This page is
generated from `jepsen/src/mutants/table`, and a test compares the two. After you change the table, run

    cargo run -p jepsen -- mutants --table > docs/mutants.md

\"Rule\" names the rule that the mutant breaks: a section of [DESIGN.md](../DESIGN.md)'s list (\"4.6 rule 8\"), an
invariant (I1 to I11), a promise (P1 to P17), a setting, or a rule from elsewhere.

| | mutant | breaks | where | rule | expected to be found by |
|---|---|---|---|---|---|
";

/// The page, as docs/mutants.md must have it.
pub(in crate::mutants) fn page() -> String {
    let mut page = HEAD.to_owned();
    for Row { id, name, breaks, place, rule, expected } in rows() {
        let (name, place) = match name.is_empty() {
            true => Default::default(),
            false => (format!("`{name}`"), format!("`{place}`")),
        };
        let killer = match expected {
            Expected::Storage => "storage".to_owned(),
            Expected::Sim => "sim".to_owned(),
            Expected::Leaders => "sim --profile leaders".to_owned(),
            Expected::Async => "sim --profile async".to_owned(),
            Expected::Broker => "sim --profile broker".to_owned(),
            Expected::Test(target, test) => format!("test `{target}::{test}`"),
            Expected::NotApplicable(why) => format!("not here: {why}"),
            Expected::Equivalent(why) => format!("no bug: {why}"),
        };
        writeln!(page, "| {id} | {name} | {breaks} | {place} | {rule} | {killer} |")
            .expect("a String takes all");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn the_page_is_the_one_in_docs() {
        let held = std::fs::read_to_string("../docs/mutants.md").expect("docs/mutants.md");
        let page = page();
        let missing: Vec<_> = page.lines().filter(|line| !held.contains(line)).collect();
        assert!(
            held == page,
            "run `cargo run -p jepsen -- mutants --table > docs/mutants.md`; it lacks:\n{}",
            missing.join("\n")
        );
    }
}
