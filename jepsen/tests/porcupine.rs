//! Our checker against porcupine, the linearizability checker that etcd is tested with. It is a Go program, so this
//! test is run by hand and by CI where Go is installed: `cargo test -p jepsen --test porcupine -- --ignored`.
//!
//! Porcupine remembers the states that it has seen, so its histories can be longer than those in
//! `linearizability.rs`.

mod generator;
mod small;

use std::path::{Path, PathBuf};
use std::process::Command;

use jepsen::{Verdict, check};
use small::{Size, history};

const SEEDS: u64 = 4_000;
const SMALL: Size = Size { operations: 12, overlap: 7 };
const LARGER: Size = Size { operations: 24, overlap: 7 };

#[test]
#[ignore = "needs Go"]
fn the_checker_agrees_with_porcupine() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("porcupine");
    // Left by a run before this one.
    std::fs::remove_dir_all(&directory).ok();
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    let mut ours = Vec::new();
    let mut illegal = 0;
    for seed in 0..SEEDS {
        let history = history(seed, if seed.is_multiple_of(4) { &LARGER } else { &SMALL });
        let legal = match check(&history).verdict {
            Verdict::Valid | Verdict::Vacuous => true,
            Verdict::Invalid => false,
            Verdict::Unknown => panic!("seed {seed}: {}", check(&history)),
        };
        illegal += u64::from(!legal);
        let name = format!("{seed:06}.jsonl");
        std::fs::write(directory.join(&name), history.to_json_lines()).expect("it can be written");
        ours.push(format!("{name} {}", if legal { "legal" } else { "illegal" }));
    }
    assert!(illegal >= SEEDS / 4, "only {illegal} are illegal");
    let go = Command::new("go")
        .args(["run", "."])
        .arg(&directory)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("porcupine"))
        .output()
        .expect("go can be run");
    assert!(go.status.success(), "{}", String::from_utf8_lossy(&go.stderr));
    let theirs = String::from_utf8(go.stdout).expect("it writes text");
    assert_eq!(theirs.lines().count(), ours.len());
    let mut unknown = 0;
    for (theirs, ours) in theirs.lines().zip(&ours) {
        if theirs.ends_with(" unknown") {
            unknown += 1;
        } else {
            assert_eq!(theirs, ours, "in {}", directory.display());
        }
    }
    assert!(unknown <= SEEDS / 500, "porcupine could not tell {unknown} times");
}
