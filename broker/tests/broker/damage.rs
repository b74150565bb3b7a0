//! A leader whose copy of a message has rotted on disk, or is gone, while two others hold it whole.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client::bodies;
use crate::cluster::{eventually, meanwhile, name};
use crate::nodes::{Brokers, Setup};

/// All files below a directory.
fn files(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The file that a text is stored in, and where.
fn file_with(of: &Path, text: &str) -> (PathBuf, usize) {
    for path in files(of) {
        let bytes = std::fs::read(&path).expect("it can be read");
        if let Some(at) = bytes.windows(text.len()).position(|part| part == text.as_bytes()) {
            return (path, at);
        }
    }
    panic!("{text} is in no file of {}", of.display());
}

/// Flips the bit there.
fn rot(file: &Path, at: usize) {
    let bytes = std::fs::read(file).expect("it can be read");
    let file = OpenOptions::new().write(true).open(file).expect("it can be written");
    file.write_all_at(&[bytes[at] ^ 1], at as u64).expect("it can be written");
}

fn cut(file: &Path, at: usize) {
    let file = OpenOptions::new().write(true).open(file).expect("it can be written");
    file.set_len(at as u64).expect("it can be cut");
}

fn remove(file: &Path, _at: usize) {
    std::fs::remove_file(file).expect("it is there");
}

struct Damaged {
    brokers: Brokers,
    leader: u64,
    file: PathBuf,
}

fn body(n: usize) -> String {
    format!("message-{n:03}-{}", "x".repeat(3000))
}

const COUNT: usize = 200;

/// Has consumers pull a message whose copy on the leader was damaged, after they had pulled it before or not. They get it
/// at once, and the leader leads no more.
async fn consumers_go_on(damage: fn(&Path, usize), pulled_before: bool) -> Damaged {
    let setup = Setup { tail_cache: Some(64 << 10), ..Setup::default() };
    let brokers = Brokers::start_with(setup).await;
    // The broker wants this node to lead, so that it has to be kept from it.
    let leader = eventually("the first node to lead", async || {
        let leader = brokers.leader().await;
        (leader == 1).then_some(leader)
    })
    .await;
    let mut client = brokers.client(leader).await;
    for n in 0..COUNT {
        client.send("T", 0, &body(n)).await.done();
    }
    if pulled_before {
        assert!(!bodies(&client.pull("T", 0, 0).await.done()).is_empty());
    }
    let (file, at) = file_with(&brokers.directory().join(leader.to_string()), "message-005-");
    damage(&file, at);
    // Three pulls took nine seconds, and each got SYSTEM_ERROR.
    let asked = Instant::now();
    let mut next = 0;
    for _ in 0..3 {
        let answer = client.pull("T", 0, next).await.done();
        let expected: Vec<_> = (next as usize..).take(bodies(&answer).len()).map(body).collect();
        assert_eq!(bodies(&answer), expected);
        next = answer.number("nextBeginOffset");
    }
    assert!(next > 5, "the damaged message was among them: {next}");
    assert!(asked.elapsed() < Duration::from_secs(2), "it took {:?}", asked.elapsed());
    assert_ne!(brokers.leader().await, leader);
    let status = brokers.node(leader).log(&name("broker-0")).expect("it is open").status();
    let reason = status.failure.expect("it says what is wrong");
    let name = file.file_name().expect("a file").to_string_lossy();
    assert!(reason.contains(&*name), "{reason}");
    eventually("the damage to be noted", async || {
        let log = file.parent().expect("a directory");
        log.join("DAMAGE").exists().then_some(())
    })
    .await;
    Damaged { brokers, leader, file }
}

#[tokio::test]
async fn consumers_go_on_at_once_where_the_leaders_segment_file_is_gone() {
    let damaged = consumers_go_on(remove, false).await;
    assert!(!damaged.file.exists());
}

/// The process of a leader that had mapped the file ended with SIGBUS.
#[tokio::test]
async fn consumers_go_on_at_once_where_the_leaders_segment_file_was_cut() {
    for pulled_before in [false, true] {
        let damaged = consumers_go_on(cut, pulled_before).await;
        assert!(damaged.file.exists());
    }
}

#[tokio::test]
async fn consumers_go_on_at_once_where_the_leaders_copy_of_a_message_is_damaged() {
    let Damaged { brokers, leader, .. } = consumers_go_on(rot, false).await;
    // Not even where the broker spreads leaders, or an administrator asks for it.
    meanwhile(Duration::from_secs(3)).await;
    let now = brokers.leader().await;
    assert_ne!(now, leader);
    let admin = brokers.node(now).log(&name("broker-0")).expect("it is open").admin();
    let refused = admin.transfer_leadership(leader).await.expect_err("its copy is damaged");
    assert!(refused.to_string().contains("damaged"), "{refused}");
    // It follows, and counts for a majority.
    let other = brokers.others(leader).into_iter().find(|id| *id != now).expect("three nodes");
    brokers.kill(other);
    let sent = brokers.client(leader).await.send("T", 0, "after").await.done();
    assert_eq!(sent.number("queueOffset"), COUNT as i64);
}
