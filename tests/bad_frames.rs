//! Bytes that no node and no client would send, on both listeners of a node. They cost the connection
//! that they came on, and nothing else.

#[path = "cluster/clients.rs"]
mod clients;
mod cluster;

use std::time::{Duration, Instant};

use clients::{CLIENTS, client_address};
use cluster::faulty_transport::Network;
use cluster::{Cluster, Setup, within};
use futures_util::future::join_all;
use quorumlog::seam::Duplex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PEERS: [u8; 4] = *b"QLFP";
const CLIENT: [u8; 4] = *b"QLFC";
const HELLO: u8 = 0xF0;
const REFUSE: u8 = 0xF1;

/// A frame with these lengths in its header, whatever its head and body are.
fn frame_of(magic: [u8; 4], kind: u8, lengths: (u32, u32), head: &[u8]) -> Vec<u8> {
    let mut header = [0; 36];
    header[..4].copy_from_slice(&magic);
    let version = if magic == PEERS { 4 } else { 2 };
    (header[4], header[5]) = (version, kind);
    header[24..28].copy_from_slice(&lengths.0.to_le_bytes());
    header[28..32].copy_from_slice(&lengths.1.to_le_bytes());
    let mut bytes = header.to_vec();
    let crc = crc32fast::hash(&[&header, head].concat());
    bytes.extend(crc.to_le_bytes());
    bytes.extend(head);
    bytes
}

fn frame(magic: [u8; 4], kind: u8, head: &[u8]) -> Vec<u8> {
    frame_of(magic, kind, (u32::try_from(head.len()).expect("small"), 0), head)
}

/// A hello from a node of this cluster, or from a client if both are 0.
fn hello(magic: [u8; 4], cluster: u128, node: u64) -> Vec<u8> {
    let mut head = Vec::new();
    head.extend(cluster.to_le_bytes());
    head.extend(node.to_le_bytes());
    head.extend(99_u128.to_le_bytes());
    head.extend(0_u64.to_le_bytes());
    head.extend((1_u32 << 20).to_le_bytes());
    frame(magic, HELLO, &head)
}

/// Bytes that a listener of this protocol must not stand, and a word of the reason that it gives, if it
/// can give one.
fn intrusions(ours: [u8; 4], other: [u8; 4]) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let noise: Vec<u8> =
        (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut damaged = hello(ours, 0, 0);
    damaged[50] ^= 1;
    let mut early = frame(ours, 77, b"x");
    early.extend(&noise);
    vec![
        ("noise", noise, "do not begin a frame"),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "do not begin a frame"),
        ("a huge head", frame_of(ours, HELLO, (u32::MAX, 0), b""), "limit"),
        ("a huge body", frame_of(ours, HELLO, (0, u32::MAX), b""), "limit"),
        ("a damaged hello", damaged, "CRC"),
        ("a hello that is cut off", frame(ours, HELLO, &[0; 51]), ""),
        ("no hello", early, "before hello"),
        ("the other protocol", hello(other, 0, 0), "address"),
    ]
}

/// The same for who has said hello as a client.
fn client_intrusions() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let after = |bytes: Vec<u8>| [hello(CLIENT, 0, 0), bytes].concat();
    vec![
        ("noise after hello", after(vec![0xaa; 4096]), "do not begin a frame"),
        ("an unknown kind", after(frame(CLIENT, 250, b"")), ""),
        ("a request that is no request", after(frame(CLIENT, 32, &[0xff; 64])), ""),
        ("a huge frame", after(frame_of(CLIENT, 32, (16, u32::MAX), &[0; 16])), "limit"),
        ("a peer's frame", after(frame(PEERS, 32, b"x")), "other protocol"),
        ("a second hello", after(hello(CLIENT, 0, 0)), ""),
    ]
}

async fn dial(cluster: &Cluster, address: &str) -> Box<dyn Duplex> {
    let transport = cluster.network.transport(CLIENTS);
    within("a dial", transport.dial(address)).await.expect("the node listens")
}

/// Sends bytes, and gives what comes back until the node closes the connection.
async fn until_closed(cluster: &Cluster, address: &str, what: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = dial(cluster, address).await;
    // A node that has seen enough may close before everything is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = within(&format!("the end after {what}"), stream.read_to_end(&mut answer)).await;
    // A reset is an end as well; what came before it counts.
    let _ = read;
    answer
}

/// Appends, on the leader and over the connections between the nodes.
async fn goes_on(cluster: &Cluster) {
    cluster.append("the node goes on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_frames_cost_only_the_connection_that_they_came_on() {
    let cluster = Setup::new(3).steady().start_serving().await;
    let client = cluster.client_log().await;
    let leader = cluster.leader().await;
    let term = cluster.log(leader).status().term;
    let (for_peers, for_clients) = (Network::address(leader), client_address(leader));
    let cases = intrusions(PEERS, CLIENT).into_iter().map(|case| (&for_peers, case));
    let cases = cases.chain(intrusions(CLIENT, PEERS).into_iter().map(|case| (&for_clients, case)));
    let cases = cases.chain(client_intrusions().into_iter().map(|case| (&for_clients, case)));
    for (address, (what, bytes, reason)) in cases {
        let answer = until_closed(&cluster, address, what, &bytes).await;
        // The farewell is a frame of kind REFUSE, whose head is the reason; it comes last.
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains(reason), "{what} on {address}: {text:?} lacks {reason:?}");
        let refused = answer.windows(6).any(|w| w.starts_with(b"QLF") && w[5] == REFUSE);
        assert!(refused, "{what} on {address}: closed without a reason: {answer:02x?}");
        client.append(what).await.expect("the client's own connection is another one");
    }
    goes_on(&cluster).await;
    assert_eq!(cluster.log(leader).status().term, term, "nobody had to stand for election");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_and_one_with_a_known_number_are_refused() {
    let cluster = Setup::new(3).steady().start_serving().await;
    let leader = cluster.leader().await;
    let address = Network::address(leader);
    for (what, bytes) in [
        ("another cluster", hello(PEERS, 0xdead_beef, 4)),
        ("a number that is taken", hello(PEERS, 0xdead_beef, cluster.others(leader)[0])),
        ("the node's own number", hello(PEERS, 0, leader)),
    ] {
        let answer = until_closed(&cluster, &address, what, &bytes).await;
        let refused = answer.windows(6).any(|w| w.starts_with(b"QLF") && w[5] == REFUSE);
        assert!(refused, "{what}: {:?}", String::from_utf8_lossy(&answer));
    }
    goes_on(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dawdles_over_the_hello_is_cut_off_while_others_are_served() {
    let cluster = Setup::new(3).steady().start_serving().await;
    let client = cluster.client_log().await;
    let leader = cluster.leader().await;
    let began = Instant::now();
    let dawdle = async |address: String, magic: [u8; 4]| {
        let mut stream = dial(&cluster, &address).await;
        let hello = hello(magic, 0, 0);
        let mut answer = [0; 1];
        for byte in hello {
            if stream.write_all(&[byte]).await.is_err() {
                return began.elapsed();
            }
            let pause = Duration::from_millis(200);
            if let Ok(ended) = tokio::time::timeout(pause, stream.read(&mut answer)).await {
                assert!(matches!(ended, Ok(0) | Err(_)), "an answer to no question");
                return began.elapsed();
            }
        }
        panic!("all of the hello was taken");
    };
    let slow = async {
        let listeners = [(Network::address(leader), PEERS), (client_address(leader), CLIENT)];
        join_all(listeners.map(|(address, magic)| dawdle(address, magic))).await
    };
    let busy = async {
        while began.elapsed() < Duration::from_secs(2) {
            client.append("x").await.expect("others are served");
        }
    };
    let (ended, ()) =
        within("the end of the slow ones", futures_util::future::join(slow, busy)).await;
    for took in ended {
        assert!(took > Duration::from_secs(4) && took < Duration::from_secs(15), "{took:?}");
    }
    goes_on(&cluster).await;
}
