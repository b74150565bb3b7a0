//! Old messages are found when the index files are sound, damaged or gone.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Buf as _, BufMut as _};

use crate::client::{Client, SEND_BATCH, messages, send_fields};
use crate::nodes::Brokers;

const BATCH: usize = 200;
const MESSAGES: usize = 15 * BATCH;

async fn fill(client: &mut Client) {
    for batch in 0..MESSAGES / BATCH {
        let mut body = Vec::new();
        for n in 0..BATCH {
            let number = batch * BATCH + n;
            let (text, properties) = (number.to_string(), format!("KEYS\u{1}k{number}\u{2}"));
            body.put_u32((22 + text.len() + properties.len()) as u32);
            body.put_slice(&[0; 12]);
            body.put_u32(text.len() as u32);
            body.put_slice(text.as_bytes());
            body.put_u16(properties.len() as u16);
            body.put_slice(properties.as_bytes());
        }
        client.call(SEND_BATCH, &send_fields("T", "0", ""), &body).await.done();
    }
}

/// Every message is where it was, and is found by place, key and time.
async fn check(client: &mut Client) {
    let mut offset = 0;
    while offset < MESSAGES as u64 {
        let answer = client.pull("T", 0, offset as i64).await.done();
        for message in messages(&answer.body) {
            assert_eq!((message.offset, message.body), (offset, offset.to_string()));
            offset += 1;
        }
    }
    for number in (0..MESSAGES).step_by(499) {
        let key = format!("k{number}");
        let fields = [
            ("topic", "T"),
            ("key", &key),
            ("maxNum", "8"),
            ("beginTimestamp", "0"),
            ("endTimestamp", "9223372036854775807"),
        ];
        let answer = client.call(12, &fields, b"").await.done();
        let offsets: Vec<_> = messages(&answer.body).iter().map(|m| m.offset).collect();
        assert_eq!(offsets, [number as u64], "{key}");
        // By its own time something at or before it is found, and not a batch before.
        let stored = (&answer.body[56..64]).get_i64();
        let fields = [("topic", "T"), ("queueId", "0"), ("timestamp", &stored.to_string())];
        let found = client.call(29, &fields, b"").await.done().number("offset") as usize;
        assert!(found <= number, "{found} for {number}");
    }
    for (time, offset) in [("0", 0), ("9000000000000", MESSAGES as i64)] {
        let fields = [("topic", "T"), ("queueId", "0"), ("timestamp", time)];
        assert_eq!(client.call(29, &fields, b"").await.done().number("offset"), offset);
    }
}

fn index_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("it is a directory").map(|entry| entry.expect("an entry"))
    {
        if entry.path().is_dir() {
            found.extend(index_files(&entry.path()));
        } else if entry.path().extension().is_some_and(|end| end == "idx") {
            found.push(entry.path());
        }
    }
    found
}

#[tokio::test]
async fn messages_are_found_whatever_becomes_of_the_index_files() {
    let brokers = Brokers::start().await;
    let mut client = brokers.client(brokers.leader().await).await;
    client.send("other", 0, "x").await.done();
    fill(&mut client).await;
    check(&mut client).await;
    // While it runs, and before the next start.
    for what in ["damaged", "gone", "cut"] {
        let files = index_files(brokers.directory());
        assert!(files.len() >= 3, "one for each node: {files:?}");
        for path in files {
            let bytes = fs::read(&path).expect("it is there");
            let file = fs::OpenOptions::new().write(true).open(&path).expect("it is there");
            match what {
                "damaged" => fs::write(&path, vec![0x5a; bytes.len()]).expect("it is written"),
                "gone" => fs::remove_file(&path).expect("it is there"),
                _ => file.set_len(bytes.len() as u64 / 2).expect("it is cut"),
            }
        }
        check(&mut client).await;
        brokers.ids().into_iter().for_each(|id| brokers.kill(id));
        for id in 1..=3 {
            brokers.open(id).await;
        }
        client = brokers.client(brokers.leader().await).await;
        check(&mut client).await;
    }
}
