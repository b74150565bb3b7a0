//! The mutants as data: what each breaks, where, whose rule it is, and what is to find it.

mod broker;
mod connections;
mod http;
mod limits;
mod lost_pages;
mod members;
mod page;
mod raft;
mod storage;
mod study;
mod time;
mod topics;

pub(super) use page::page;

/// What is to find a mutant, or why nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// The exhaustive tests of the storage.
    Storage,
    /// Simulated clusters.
    Sim,
    /// Simulated clusters whose leaders lose touch, again and again.
    Leaders,
    /// Simulated clusters that acknowledge before they flush, and lose power.
    Async,
    /// Simulated clusters with brokers, whose clients speak RocketMQ's protocol.
    Broker,
    /// A test of the library: its target (`lib`, or a file of `tests`) and its full name. For what shows neither
    /// on a disk nor in a history.
    Test(&'static str, &'static str),
    /// There is no such mutant: the code has nothing of the kind.
    NotApplicable(&'static str),
    /// There is no such mutant: it would break no promise, so that no test of them can tell.
    Equivalent(&'static str),
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// M1 to M25 are the reliability study's; R are rules of the consensus library, S of the storage, V of the
    /// invariants, A of the API, D of disks, C of checkpoints, P of the broker's topics, N of its connections, T of time, W of
    /// power cuts, H of the binary's HTTP, B of what a broker's clients are promised.
    pub(super) id: &'static str,
    /// The library's name for it; empty if there is no such mutant.
    pub(super) name: &'static str,
    pub(super) breaks: &'static str,
    /// The file that holds the bug.
    pub(super) place: &'static str,
    /// Where the broken rule is written.
    pub(super) rule: &'static str,
    pub(super) expected: Expected,
}

impl Row {
    /// True if there is such a mutant.
    pub(super) fn exists(&self) -> bool {
        !self.name.is_empty()
    }

    /// True if `wanted` is its id or its name, in any case.
    pub(super) fn is_called(&self, wanted: &str) -> bool {
        self.id.eq_ignore_ascii_case(wanted)
            || self.exists() && self.name.eq_ignore_ascii_case(wanted)
    }
}

/// All lines, in their order.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    let tables = [
        study::ROWS,
        raft::ROWS,
        members::ROWS,
        storage::ROWS,
        limits::ROWS,
        lost_pages::ROWS,
        topics::ROWS,
        connections::ROWS,
        time::ROWS,
        http::ROWS,
        broker::ROWS,
    ];
    tables.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn ids_and_names_are_unique_and_places_exist() {
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for row in rows() {
            assert!(ids.insert(row.id), "{} twice", row.id);
            let none = matches!(row.expected, Expected::NotApplicable(_) | Expected::Equivalent(_));
            assert_eq!(row.exists(), !none, "{}", row.id);
            if row.exists() {
                assert!(names.insert(row.name), "{} twice", row.name);
                let path = Path::new("..").join(row.place);
                let text = std::fs::read_to_string(&path).expect(row.place);
                let check = format!("Mutant::{}.is_active()", row.name);
                assert!(text.contains(&check), "{}: not in {}", row.id, row.place);
            }
        }
        assert!((1..=25).all(|number| ids.contains(format!("M{number}").as_str())));
    }

    #[test]
    fn a_row_is_found_by_its_id_and_its_name() {
        let found = |wanted: &str| rows().filter(|row| row.is_called(wanted)).count();
        assert_eq!((found("m1"), found("AckBeforeFlush"), found("m999"), found("")), (1, 1, 0, 0));
    }

    /// Those of the binary, which is no library that could tell.
    fn of_binary() -> BTreeSet<&'static str> {
        rows().filter(|row| row.place.starts_with("cli/")).map(|row| row.name).collect()
    }

    #[test]
    fn the_table_lists_the_mutants_of_the_binary() {
        let text = std::fs::read_to_string("../cli/src/mutant.rs").expect("its mutants");
        let (_, declared) = text.split_once("mutants! {").expect("the list of them");
        let lines = declared.lines().map(str::trim).filter(|line| !line.starts_with("///"));
        let named = lines.filter_map(|line| line.strip_suffix(','));
        assert_eq!(named.collect::<BTreeSet<_>>(), of_binary());
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn the_table_lists_the_mutants_of_all_crates_and_no_others() {
        let listed: BTreeSet<_> = rows().filter(|row| row.exists()).map(|row| row.name).collect();
        let held: BTreeSet<_> = super::super::names().chain(of_binary()).collect();
        assert_eq!(listed, held);
    }
}
