//! The house rules that a compiler cannot hold, on this repository and on planted violations.

mod house;

use std::path::Path;

use house::{ROOMS, Tree, check, outgrown};

#[test]
fn the_repository_keeps_the_house_rules() {
    let findings = check(&Tree::read(Path::new(env!("CARGO_MANIFEST_DIR"))));
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn exceptions_that_are_no_longer_needed_are_taken_off_their_list() {
    let outgrown = outgrown(&Tree::read(Path::new(env!("CARGO_MANIFEST_DIR"))));
    assert!(outgrown.is_empty(), "take off the list in tests/house/words.rs: {outgrown:#?}");
}

/// A small tree that keeps all rules.
fn clean() -> Tree {
    let mut tree = Tree::default();
    for layer in [
        "seam",
        "format",
        "segment",
        "log",
        "wire",
        "raft",
        "node",
        "client",
        "server",
        "simulation",
    ] {
        tree.files.insert(format!("src/{layer}/mod.rs"), "//! A layer.\n".to_owned());
    }
    let mut add = |path: &str, text: &str| tree.files.insert(path.to_owned(), text.to_owned());
    add("README.md", "# Readme\n");
    add("CHANGELOG.md", "# Changelog\n");
    add("docs/operations.md", "# Operations\n\n## 10. Limits\n\n## 10.1 More\n");
    add(
        "DESIGN.md",
        "## 3. Layers\n[x](docs/operations.md)\n| L0 | `src/*.rs` | vocabulary |\n| L0 | `seam` | |\n| L1 | `format` | |\n| L2 | `segment` | |\n\
         | L3 | `log` | |\n| L3 | `wire` | |\n| L4 | `raft` | |\n| L5 | `node` | |\n\
         | L6 | `client`, `server`, `simulation` | |\n\n`src/format/mod.rs` is there.\n\n\
         ## 5. Invariants\n\n| I1 | it holds |\n\n## 6. More\n",
    );
    add("src/lib.rs", "//! The crate.\nmod format;\npub use node::{Node, Other};\n");
    add(
        "src/log/writer.rs",
        "//! Writes.\nuse crate::format::Entry;\nuse super::Log;\n\
         fn f(x: bool) { assert!(x, \"I1: it holds\"); }\n\
         // A comment may say bincode::x, crate::raft and .unwrap().\n\
         const TEXT: &str = \"and so may a string: unsafe .unwrap() crate::raft\";\n\
         #[cfg(test)]\nmod tests {\n    use super::*;\n    fn g() { None::<u8>.unwrap(); }\n}\n",
    );
    tree
}

/// Findings after `text` was added as `path`.
fn planted(path: &str, text: &str) -> Vec<String> {
    let mut tree = clean();
    tree.files.insert(path.to_owned(), text.to_owned());
    check(&tree).iter().map(ToString::to_string).collect()
}

/// `code` in a file at `path`, on its second line, breaks exactly one rule, and breaks it there.
#[track_caller]
fn breaks(path: &str, code: &str, rule: &str) {
    let findings = planted(path, &format!("//! Planted.\n{code}\n"));
    assert_eq!(findings.len(), 1, "{code}: {findings:#?}");
    assert!(findings[0].starts_with(&format!("{path}:2: ")), "{}", findings[0]);
    assert!(findings[0].contains(rule), "{}", findings[0]);
}

#[track_caller]
fn keeps(path: &str, code: &str) {
    let findings = planted(path, &format!("//! Planted.\n{code}\n"));
    assert!(findings.is_empty(), "{code}: {findings:#?}");
}

#[test]
fn a_clean_tree_has_no_findings() {
    assert_eq!(check(&clean()), []);
}

#[test]
fn a_layer_names_only_those_above_it() {
    breaks("src/format/entry.rs", "use crate::seam::Disk;", "format may not name seam");
    breaks("src/seam/disk/mod.rs", "fn f() { crate::log::open() }", "seam may not name log");
    breaks("src/log/tail.rs", "use crate::wire;", "log may not name wire");
    breaks("src/wire/link.rs", "use crate::{config::Config, log::Log};", "wire may not name log");
    breaks("src/client/log.rs", "use crate::server::run;", "client may not name server");
    breaks("src/server/http.rs", "use crate::raft::Raft;", "server may not name raft");
    breaks(
        "src/config.rs",
        "use crate::node::Node;",
        "the vocabulary (src/*.rs) may not name node",
    );
    keeps("src/raft/store.rs", "use crate::log::Log;\nuse crate::{wire::{Link, Frame}, error::X};");
    keeps("src/server/http.rs", "use crate::node::Node;\nuse crate::Node;");
}

#[test]
fn a_layer_is_found_behind_super_and_behind_a_re_export() {
    breaks(
        "src/format/entry.rs",
        "use super::super::segment::SealedSegment;",
        "format may not name segment",
    );
    breaks("src/config.rs", "use super::wire::Link;", "may not name wire");
    breaks("src/config.rs", "mod tests { use super::super::wire::Link; }", "may not name wire");
    breaks("src/format/entry.rs", "use crate::Other;", "may not name node (through Other)");
    keeps("src/format/entry.rs", "use super::segment;\nmod tests { use super::super::log; }");
}

#[test]
fn a_room_of_the_broker_names_only_those_above_it_in_the_table() {
    for (at, (room, allowed)) in ROOMS.iter().enumerate() {
        let above: Vec<_> = ROOMS[..at].iter().map(|(room, _)| *room).collect();
        assert!(allowed.iter().all(|named| above.contains(named)), "{room} names {allowed:?}");
    }
    let log = "broker/src/log/topics.rs";
    breaks(log, "use crate::handle::NameServer;", "log may not name handle");
    breaks(log, "use super::super::tasks::delay;", "log may not name tasks");
    breaks("broker/src/net/relay.rs", "use crate::{log::Replica, mutant::Mutant};", "not name log");
    breaks("broker/src/limits.rs", "use crate::state::State;", "(broker/src/*.rs) may not name");
    keeps(log, "use crate::net::Way;\nuse crate::limits::QUEUES_MAX;\nuse super::home::Home;");
    keeps(log, "#[cfg(test)]\nmod tests { use crate::tools::BrokerClient; }");
    let findings = planted("broker/src/serve/x.rs", "//! X.\n");
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].contains("broker/src/serve is no room of docs/broker.md"), "{findings:?}");
}

#[test]
fn a_folder_of_the_broker_can_be_read_at_a_glance() {
    let mut tree = clean();
    for number in 0..16 {
        tree.files.insert(format!("broker/src/log/f{number}.rs"), "//! F.\n".to_owned());
    }
    tree.files.insert("broker/src/log/mod.rs".to_owned(), "//! Log.\n".to_owned());
    assert_eq!(check(&tree), []);
    tree.files.insert("broker/src/log/more/mod.rs".to_owned(), "//! More.\n".to_owned());
    let findings: Vec<_> = check(&tree).iter().map(ToString::to_string).collect();
    assert_eq!(
        findings,
        [
            "broker/src/log:0: 17 files and folders in broker/src/log, and at most 16 are allowed: make a room"
        ]
    );
}

#[test]
fn the_tests_of_a_module_are_in_one_place() {
    let mut tree = clean();
    tree.files.insert("src/wire/tests/cases.rs".to_owned(), "//! Cases.\n".to_owned());
    assert_eq!(check(&tree), []);
    tree.files.insert("src/wire/tests.rs".to_owned(), "//! Tests.\n".to_owned());
    let findings: Vec<_> = check(&tree).iter().map(ToString::to_string).collect();
    assert_eq!(findings, ["src/wire/tests.rs:0: tests.rs stands beside a folder tests"]);
}

#[test]
fn openraft_bincode_and_unsafe_have_one_place_each() {
    breaks("src/node/mod.rs", "use openraft::Raft;", "openraft is named only in src/raft/");
    breaks("cli/src/main.rs", "use openraft::Raft;", "openraft is named only in src/raft/");
    breaks("src/raft/mod.rs", "use bincode::Options;", "bincode is named only in");
    breaks("src/format/frame.rs", "fn f() { bincode::serialize(); }", "bincode is named only in");
    keeps("src/format/codec.rs", "use bincode::Options;");
    breaks("broker/src/state.rs", "use bincode::Options;", "bincode is named only in");
    breaks("broker/src/state.rs", "use openraft::Raft;", "openraft is named only in src/raft/");
    keeps("tests/suite.rs", "use openraft::testing::Suite;");
    keeps("src/format/frame.rs", "// bincode and unsafe\nconst X: &str = \"unsafe openraft::\";");
}

#[test]
fn only_the_seams_touch_what_is_outside() {
    breaks("src/node/mod.rs", "fn f() { std::fs::read(x) }", "come from src/seam");
    breaks("broker/src/serve.rs", "use tokio::net;", "come from src/seam");
    breaks("broker/src/serve.rs", "use std::net::{SocketAddr, Shutdown};", "come from src/seam");
    breaks("broker/src/serve.rs", "use std::time::{Duration, SystemTime};", "SystemTime");
    breaks("broker/src/serve.rs", "fn f() { std::process::id() }", "process: files, sockets");
    breaks("src/node/mod.rs", "fn f() { static N: AtomicU64 = new(0); }", "a counter in a static");
    keeps("src/seam/disk/real.rs", "use std::fs::File;\nuse std::time::SystemTime;");
    keeps("broker/src/serve.rs", "use std::net::{IpAddr, SocketAddr};\nuse std::net::Ipv4Addr;");
    keeps("src/node/mod.rs", "#[cfg(test)]\nmod tests { use std::fs; }");
    keeps("cli/src/main.rs", "use std::fs::File;");
}

#[test]
fn unsafe_needs_its_place_and_a_reason() {
    let findings = planted("src/log/writer.rs", "//! W.\nfn f() { unsafe {} }\n// I1\n");
    assert_eq!(
        findings.len(),
        3,
        "not its place, no reason, and I1 is asserted no more: {findings:?}"
    );
    breaks("src/seam/disk/mmap.rs", "fn f() { unsafe {} }", "without a SAFETY comment");
    keeps(
        "src/seam/disk/mmap.rs",
        "// SAFETY: it holds\n// for two lines.\nunsafe impl X for Y {}",
    );
    keeps("jepsen/src/world/entropy.rs", "// SAFETY: it holds.\nunsafe impl X for Y {}");
}

#[test]
fn nothing_unwraps_or_is_unfinished_outside_tests() {
    breaks("src/log/x.rs", "fn f() { None::<u8>.unwrap(); }", "unwrap outside tests");
    breaks("examples/x.rs", "fn main() { None::<u8>.unwrap(); }", "unwrap outside tests");
    breaks("cli/src/x.rs", "fn f() { unimplemented!() }", "unfinished code");
    breaks("jepsen/src/x.rs", "fn f() { todo!(\"soon\") }", "unfinished code");
    keeps("tests/x.rs", "fn f() { None::<u8>.unwrap(); }");
    keeps("src/log/x.rs", "/// `x.unwrap()`\nfn f() { None::<u8>.unwrap_or(1); }");
    keeps("src/log/x.rs", "#[cfg(all(test, unix))]\nmod t { fn f() { x.unwrap() } }");
    breaks("src/log/x.rs", "fn f() { x.unwrap() }\n#[cfg(test)]\nmod t { fn f() {} }", "unwrap");
}

#[test]
fn a_module_that_is_declared_for_tests_only_is_a_test() {
    let mut tree = clean();
    let unwraps = "//! Tests.\nfn f() { x.unwrap() }\n".to_owned();
    for path in ["src/log/cases.rs", "src/log/cases/deep.rs"] {
        tree.files.insert(path.to_owned(), unwraps.clone());
    }
    assert_eq!(check(&tree).len(), 2);
    tree.files.insert("src/log/mod.rs".to_owned(), "//! L.\n#[cfg(test)]\nmod cases;\n".to_owned());
    assert_eq!(check(&tree), []);
}

#[test]
fn tests_do_not_sleep_without_a_reason() {
    breaks("tests/x.rs", "async fn f() { tokio::time::sleep(d).await; }", "sleeping in a test");
    breaks("jepsen/tests/x.rs", "fn f() { std::thread::sleep(d); }", "sleeping in a test");
    keeps(
        "tests/x.rs",
        "// paced: between two polls.\nasync fn f() {\n    // paced: a poll.\n    sleep(d).await;\n}",
    );
    keeps("src/log/x.rs", "async fn f() { tokio::time::sleep(backoff).await; }");
    let inline = "#[cfg(test)] mod t { async fn f() { sleep(d).await; } }";
    breaks("src/log/x.rs", inline, "sleeping in a test");
}

#[test]
fn every_module_says_what_it_is() {
    let findings = planted("src/log/x.rs", "use std::io;\n");
    assert_eq!(findings, ["src/log/x.rs:1: the module does not begin with `//!`"]);
    assert!(planted("src/lib.rs", "#![doc = include_str!(\"../README.md\")]\n").is_empty());
}

#[test]
fn no_file_names_a_directory_of_somebodys_machine() {
    for name in ["home", "root", "work"] {
        let path = format!("/{name}");
        let findings = planted("deploy.md", &format!("# Deploy\nIt lies in `{path}/x/data`.\n"));
        assert_eq!(findings, [format!("deploy.md:2: a path of somebody's machine: {path}")]);
    }
    let fine = "src/work/x ./root https://example.org/home /workers /var/lib/quorumlog";
    assert!(planted("deploy.md", fine).is_empty());
}

#[test]
fn invariants_are_listed_and_asserted() {
    breaks("src/log/x.rs", "fn f() { assert!(x, \"I2: no\"); }", "I2 is no invariant of DESIGN.md");
    breaks("src/log/x.rs", "// Keeps I12.", "I12 is no invariant of DESIGN.md");
    keeps("src/log/x.rs", "// Keeps I1, and is not about I/O or II3.");
    let mut tree = clean();
    let design = tree.text_mut("DESIGN.md").replace("| I1 | it holds |", "| I1 | a |\n| I2 | b |");
    *tree.text_mut("DESIGN.md") = design;
    tree.text_mut("src/log/writer.rs")
        .push_str("#[cfg(test)]\nconst X: &str = \"I2: in a test\";\n");
    let findings: Vec<_> = check(&tree).iter().map(ToString::to_string).collect();
    assert_eq!(
        findings,
        ["DESIGN.md:18: I2 is asserted nowhere in src: no message says \"I2: ..\""]
    );
}

#[test]
fn the_metrics_that_are_recorded_are_listed() {
    let gauge = "fn f() { metrics::gauge!(\"quorumlog_term\").set(1.0); }";
    let page = "docs/operations.md";
    let rule = "docs/operations.md does not list the metric quorumlog_term";
    breaks("src/node/metrics.rs", gauge, rule);
    let findings = planted(page, "# Operations\n| `quorumlog_gone` | |\n");
    assert_eq!(findings, ["docs/operations.md:2: nothing records the metric quorumlog_gone"]);
    let mut tree = clean();
    tree.text_mut(page).push_str("| `quorumlog_term` | |\n");
    tree.text_mut("src/node/mod.rs").push_str(gauge);
    assert_eq!(check(&tree), []);
}

#[test]
fn documents_exist_and_name_what_exists() {
    let mut tree = clean();
    tree.files.remove("README.md");
    tree.files.remove("src/wire/mod.rs");
    tree.text_mut("DESIGN.md").push_str("`src/format/gone.rs`, `log/writer.rs`, `log/gone.rs`\n");
    let findings: Vec<_> = check(&tree).iter().map(ToString::to_string).collect();
    assert_eq!(
        findings,
        [
            "DESIGN.md:8: the layer `wire` has no src/wire/mod.rs",
            "DESIGN.md:20: `log/gone.rs` does not exist",
            "DESIGN.md:20: `src/format/gone.rs` does not exist",
            "README.md:0: the document is missing or empty",
        ]
    );
    let findings = planted("src/extra/mod.rs", "//! Extra.\n");
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].contains("src/extra is no layer"), "{}", findings[0]);
}

#[test]
fn links_lead_somewhere_and_the_map_leads_to_all_pages() {
    let page = |text: &str| planted("docs/operations.md", text);
    assert_eq!(page("[a](../README.md) [b](operations.md#x) [c](https://x.org/y.md)"), [""; 0]);
    let broken = page("# O\n[a](README.md) [b](../docs/gone.md)\n");
    assert_eq!(
        broken,
        [
            "docs/operations.md:2: the link to ../docs/gone.md is broken",
            "docs/operations.md:2: the link to README.md is broken",
        ]
    );
    let lone = planted("docs/lone.md", "# Lone\n");
    assert_eq!(lone, ["docs/lone.md:0: DESIGN.md does not link to this page"]);
}

#[test]
fn code_cites_pages_and_sections_that_exist() {
    breaks("src/log/x.rs", "/// See `docs/gone.md`.", "there is no docs/gone.md");
    let rule = "docs/operations.md has no section 10.2";
    breaks("src/log/x.rs", "// See docs/operations.md 10.2.", rule);
    keeps(
        "src/log/x.rs",
        "// See docs/operations.md 10.1, DESIGN.md 3, and docs/operations.md 10.",
    );
}

#[test]
fn what_a_newcomer_reads_first_is_short() {
    let findings = planted("README.md", &"word ".repeat(3000));
    assert_eq!(
        findings,
        ["README.md:0: 15000 bytes, and at most 12288 are allowed: move parts to docs"]
    );
}

#[test]
fn documents_and_comments_use_plain_words() {
    let said = |word: &str| format!("say \"{word}\" in plainer words");
    for word in ["mended", "is to be"] {
        breaks("cli/src/x.rs", &format!("/// It {word} here."), &said(word));
        let findings = planted("docs/operations.md", &format!("# O\nIt {word}.\n"));
        assert_eq!(findings, [format!("docs/operations.md:2: {}", said(word))]);
    }
    assert!(planted("docs/operations.md", "# O\nRecommended; this being so.\n").is_empty());
    keeps("cli/src/x.rs", "const X: &str = \"is to be\"; // Recommended.");
}

#[test]
fn long_files_are_reported() {
    let text = format!("//! Long.\n{}", "const X: u8 = 0;\n".repeat(600));
    let findings = planted("src/log/long.rs", &text);
    assert_eq!(
        findings,
        ["src/log/long.rs:601: 601 lines, and at most 600 are allowed: split the file"]
    );
}

#[test]
fn comments_strings_and_lifetimes_do_not_confuse_the_reader() {
    let code = "/* a /* nested */ unsafe */ const A: &str = r#\"unsafe \" unsafe\"#; const B: char = '\"';\n\
                const C: &[u8] = b\"unsafe \\\" unsafe\"; fn f<'a>(x: &'a str) -> char { '\\'' }\n\
                const D: &str = \"\\\\\"; // unsafe\n";
    keeps("src/log/x.rs", code);
    breaks("src/seam/disk/mmap.rs", "const A: (char, char) = ('\"', '\\\\'); unsafe {}", "SAFETY");
}
