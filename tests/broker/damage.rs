//! A leader whose copy of a message has rotted on disk, while two others hold it whole.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client::bodies;
use crate::cluster::{eventually, meanwhile};
use crate::nodes::{Brokers, Setup};

/// All files below a directory.
fn files(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Flips a bit where a text is stored; returns the file.
fn rot(of: &Path, text: &str) -> PathBuf {
    for path in files(of) {
        let bytes = std::fs::read(&path).expect("it can be read");
        let found = bytes.windows(text.len()).position(|part| part == text.as_bytes());
        if let Some(at) = found {
            let file = OpenOptions::new().write(true).open(&path).expect("it can be written");
            file.write_all_at(&[bytes[at] ^ 1], at as u64).expect("it can be written");
            return path;
        }
    }
    panic!("{text} is in no file of {}", of.display());
}

#[tokio::test]
async fn consumers_go_on_at_once_where_the_leaders_copy_of_a_message_is_damaged() {
    let setup = Setup { tail_cache: Some(64 << 10), ..Setup::default() };
    let brokers = Brokers::start_with(setup).await;
    // The broker wants this node to lead, so that it has to be kept from it.
    let leader = eventually("the first node to lead", async || {
        let leader = brokers.leader().await;
        (leader == 1).then_some(leader)
    })
    .await;
    let filler = "x".repeat(3000);
    let body = |n: usize| format!("message-{n:03}-{filler}");
    let mut client = brokers.client(leader).await;
    let count = 200;
    for n in 0..count {
        client.send("T", 0, &body(n)).await.done();
    }
    let file = rot(&brokers.directory().join(leader.to_string()), "message-005-");
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
    let status = brokers.node(leader).log("broker-0").expect("it is open").status();
    let reason = status.failure.expect("it says what is wrong");
    let name = file.file_name().expect("a file").to_string_lossy();
    assert!(reason.contains(&*name), "{reason}");
    eventually("the damage to be noted", async || {
        let log = file.parent().expect("a directory");
        log.join("DAMAGE").exists().then_some(())
    })
    .await;
    // Not even where the broker spreads leaders, or an administrator asks for it.
    meanwhile(Duration::from_secs(3)).await;
    let now = brokers.leader().await;
    assert_ne!(now, leader);
    let admin = brokers.node(now).log("broker-0").expect("it is open").admin();
    let refused = admin.transfer_leadership(leader).await.expect_err("its copy is damaged");
    assert!(refused.to_string().contains("damaged"), "{refused}");
    // It follows, and counts for a majority.
    let other = brokers.others(leader).into_iter().find(|id| *id != now).expect("three nodes");
    brokers.kill(other);
    let sent = brokers.client(leader).await.send("T", 0, "after").await.done();
    assert_eq!(sent.number("queueOffset"), count as i64);
}
