//! Three nodes in this process, and what the records are checked for.

use std::net::TcpListener;

use bytes::Bytes;

use crate::records::{HEADER, Inbox, PAYLOAD_MAX, encode, verify};
use crate::{Client, Config, Counts, counts, node};

/// Shorter than what the tests write, so that they come round.
const JOURNAL: u64 = 3 << 20;

/// Starts three nodes; their threads end with the process. Gives their addresses, the leader's first.
fn start(sync: bool) -> (tempfile::TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addrs: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
    for (node, listener) in listeners.into_iter().enumerate() {
        let data = dir.path().join(node.to_string());
        std::fs::create_dir(&data).unwrap();
        let followers = if node == 0 { addrs[1..].to_vec() } else { Vec::new() };
        let config =
            Config { listen: addrs[node].clone(), followers, data, sync, journal: JOURNAL };
        std::thread::spawn(move || node::serve(&listener, &config));
    }
    (dir, addrs)
}

async fn holds(addr: &str, bytes: u64) -> Counts {
    loop {
        let found = counts(addr).await.unwrap();
        if found.bytes >= bytes {
            return found;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn appends_are_acknowledged_in_order_and_written_by_all_three() {
    for sync in [true, false] {
        let (_dir, addrs) = start(sync);
        let client = Client::connect(&addrs[0]).await.unwrap();
        for position in 0..10 {
            assert_eq!(client.append(&[Bytes::from_static(b"record")]).await.unwrap(), position);
        }
        let batch = vec![Bytes::from(vec![7; 1 << 20]); 5];
        assert_eq!(client.append(&batch).await.unwrap(), 14);
        let two = tokio::join!(client.append(&batch[..1]), client.append(&batch[..2]));
        assert_eq!((two.0.unwrap(), two.1.unwrap()), (15, 17));
        let bytes = 10 * (HEADER as u64 + 6) + 8 * (HEADER as u64 + (1 << 20));
        for addr in &addrs {
            let found = holds(addr, bytes).await;
            assert_eq!(found.bytes, bytes);
            assert_eq!(found.flushes > 0, sync);
        }
    }
}

#[tokio::test]
async fn two_connections_each_get_their_own_acknowledgements() {
    let (_dir, addrs) = start(false);
    let one = Client::connect(&addrs[0]).await.unwrap();
    let two = Client::connect(&addrs[0]).await.unwrap();
    let payload = [Bytes::from_static(b"x")];
    let mut positions = Vec::new();
    for _ in 0..100 {
        positions.push(one.append(&payload).await.unwrap());
        positions.push(two.append(&payload).await.unwrap());
    }
    assert_eq!(positions, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_no_leader_takes_no_appends() {
    let (_dir, addrs) = start(false);
    let client = Client::connect(&addrs[1]).await.unwrap();
    client.append(&[Bytes::from_static(b"x")]).await.unwrap_err();
    client.append(&[]).await.unwrap_err();
}

#[test]
fn records_are_found_whole_and_checked() {
    let mut bytes = Vec::new();
    for number in 5..8 {
        encode(number, &vec![number as u8; number as usize], &mut bytes).unwrap();
    }
    let whole = verify(&bytes).unwrap();
    assert_eq!((whole.bytes, whole.count, whole.first), (bytes.len(), 3, 5));
    let two = bytes.len() - HEADER - 7;
    for cut in two..bytes.len() {
        let run = verify(&bytes[..cut]).unwrap();
        assert_eq!((run.bytes, run.count), (two, 2), "cut at {cut}");
    }
    for at in 4..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(!verify(&flipped).is_ok_and(|run| run.count == 3), "flipped at {at}");
    }
    let too_long = u32::try_from(PAYLOAD_MAX + 1).unwrap().to_le_bytes();
    bytes[..4].copy_from_slice(&too_long);
    verify(&bytes).unwrap_err();
    encode(0, &vec![0; PAYLOAD_MAX + 1], &mut bytes).unwrap_err();
}

#[test]
fn a_record_longer_than_the_buffer_arrives() {
    let mut bytes = Vec::new();
    encode(1, &vec![3; PAYLOAD_MAX], &mut bytes).unwrap();
    encode(2, b"next", &mut bytes).unwrap();
    let mut inbox = Inbox::new();
    let mut stream = bytes.as_slice();
    let mut seen = Vec::new();
    while inbox.receive(&mut stream).unwrap() {
        let run = verify(inbox.bytes()).unwrap();
        if run.count > 0 {
            seen.extend((0..run.count).map(|n| run.first + n));
            inbox.consume(run.bytes);
        }
    }
    assert_eq!(seen, [1, 2]);
}
