//! Tests of the simulated network.

use std::io;
use std::time::Duration;

use quorumlog::seam::Duplex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::super::{World, WorldConfig, simulate};
use super::frames::tests::frame;
use super::{BusFaults, Death, Latency, Mode};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn in_a_world<T: Send>(mode: Mode, run: impl FnOnce(&mut World) -> T + Send) -> T {
    let mut config = WorldConfig::new(3);
    config.network.mode = mode;
    config.network.latency = Latency::millis(2, 2);
    config.network.split = 0.0;
    simulate(3, || run(&mut World::new(config)))
}

/// What a host reports.
#[derive(Debug, PartialEq)]
enum Seen {
    Connected,
    Failed(io::ErrorKind),
    Read(Vec<u8>),
    End,
}

/// Bytes to be sent; an empty piece ends the stream.
type Wishes = UnboundedSender<Vec<u8>>;

async fn run_stream(
    stream: Box<dyn Duplex>,
    mut wishes: UnboundedReceiver<Vec<u8>>,
    seen: UnboundedSender<Seen>,
) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let read = async {
        let mut buf = vec![0; 64 << 10];
        loop {
            let report = match reader.read(&mut buf).await {
                Ok(0) => Seen::End,
                Ok(count) => Seen::Read(buf[..count].to_vec()),
                Err(error) => Seen::Failed(error.kind()),
            };
            let over = !matches!(report, Seen::Read(_));
            let _ = seen.send(report);
            if over {
                return;
            }
        }
    };
    let write = async {
        while let Some(bytes) = wishes.recv().await {
            let done = if bytes.is_empty() {
                writer.shutdown().await
            } else {
                writer.write_all(&bytes).await
            };
            if done.is_err() {
                return;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        () = read => {}
        () = write => {}
    }
}

/// A host that accepts one connection after the other, and reports what comes on each.
fn start_server(world: &mut World) -> (Wishes, UnboundedReceiver<Seen>) {
    let (seen, reports) = unbounded_channel();
    let (wishes, mut wanted) = unbounded_channel::<Vec<u8>>();
    let network = world.network();
    world.start("server", || async move {
        let mut acceptor = network.transport("server").bind("server:1").await?;
        let current: std::sync::Arc<std::sync::Mutex<Option<Wishes>>> = Default::default();
        let newest = current.clone();
        tokio::spawn(async move {
            while let Some(bytes) = wanted.recv().await {
                if let Some(wishes) = &*newest.lock().expect("no panic") {
                    let _ = wishes.send(bytes);
                }
            }
        });
        loop {
            let (stream, _) = acceptor.accept().await?;
            let (wishes, wanted) = unbounded_channel();
            *current.lock().expect("no panic") = Some(wishes);
            tokio::spawn(run_stream(stream, wanted, seen.clone()));
        }
    });
    (wishes, reports)
}

/// A host that dials the server once.
fn start_client(world: &mut World, host: &str) -> (Wishes, UnboundedReceiver<Seen>) {
    let (seen, reports) = unbounded_channel();
    let (wishes, wanted) = unbounded_channel();
    let transport = {
        let network = world.network();
        let host = host.to_owned();
        move || network.transport(&host)
    };
    world.start(host, || async move {
        match transport().dial("server:1").await {
            Ok(stream) => {
                let _ = seen.send(Seen::Connected);
                run_stream(stream, wanted, seen).await;
            }
            Err(error) => drop(seen.send(Seen::Failed(error.kind()))),
        }
        std::future::pending().await
    });
    (wishes, reports)
}

fn seen(reports: &mut UnboundedReceiver<Seen>) -> Vec<Seen> {
    std::iter::from_fn(|| reports.try_recv().ok()).collect()
}

/// What was read, joined.
fn read(reports: &mut UnboundedReceiver<Seen>) -> Vec<u8> {
    let pieces = seen(reports).into_iter().filter_map(|seen| match seen {
        Seen::Read(bytes) => Some(bytes),
        _ => None,
    });
    pieces.collect::<Vec<_>>().concat()
}

#[test]
fn bytes_arrive_after_the_latency_in_both_directions() {
    in_a_world(Mode::Streams, |world| {
        let (answer, mut at_server) = start_server(world);
        let (send, mut at_client) = start_client(world, "client");
        world.run_for(ms(4));
        assert_eq!(seen(&mut at_client), [], "a round trip is 4 ms");
        world.run_for(ms(1));
        assert_eq!(seen(&mut at_client), [Seen::Connected]);
        send.send(b"ask".to_vec()).expect("it listens");
        world.run_for(ms(2));
        assert_eq!(seen(&mut at_server), []);
        world.run_for(ms(1));
        assert_eq!(seen(&mut at_server), [Seen::Read(b"ask".to_vec())]);
        answer.send(b"tell".to_vec()).expect("it listens");
        answer.send(Vec::new()).expect("it listens");
        world.run_for(ms(3));
        assert_eq!(seen(&mut at_client), [Seen::Read(b"tell".to_vec()), Seen::End]);
        world.run_for(ms(5));
        assert_eq!(seen(&mut at_server), [Seen::End], "the client let go of its end");
        assert_eq!(world.network().connections(), 0);
    });
}

#[test]
fn nobody_listening_is_a_refusal() {
    in_a_world(Mode::Streams, |world| {
        world.start("server", std::future::pending);
        let (_send, mut at_client) = start_client(world, "client");
        world.run_for(ms(10));
        assert_eq!(seen(&mut at_client), [Seen::Failed(io::ErrorKind::ConnectionRefused)]);
        assert_eq!(world.network().counters().refused, 1);
    });
}

#[test]
fn a_writer_waits_while_nobody_reads() {
    in_a_world(Mode::Streams, |world| {
        let (_answer, mut at_server) = start_server(world);
        let (send, mut at_client) = start_client(world, "client");
        world.run_for(ms(5));
        assert_eq!(seen(&mut at_client), [Seen::Connected]);
        world.pause("server");
        send.send(vec![7; 1 << 20]).expect("it listens");
        world.run_for(ms(100));
        assert_eq!(world.network().counters().bytes, 256 << 10, "one window");
        world.resume("server");
        world.run_for(ms(100));
        assert_eq!(read(&mut at_server).len(), 1 << 20);
    });
}

#[test]
fn a_cut_holds_bytes_back_in_its_direction_and_lets_them_go_when_healed() {
    in_a_world(Mode::Streams, |world| {
        let (answer, mut at_server) = start_server(world);
        let (send, mut at_client) = start_client(world, "client");
        world.run_for(ms(5));
        let network = world.network();
        network.cut("client", "server");
        assert!(network.is_cut("client", "server") && !network.is_cut("server", "client"));
        for piece in ["one ", "two ", "three"] {
            send.send(piece.as_bytes().to_vec()).expect("it listens");
        }
        answer.send(b"back".to_vec()).expect("it listens");
        world.run_for(ms(1_000));
        assert_eq!(seen(&mut at_server), []);
        assert_eq!(seen(&mut at_client), [Seen::Connected, Seen::Read(b"back".to_vec())]);
        network.heal("client", "server");
        world.run_for(ms(210));
        assert_eq!(read(&mut at_server), b"one two three");
        assert!(network.counters().held > 0);
    });
}

#[test]
fn acknowledgements_that_are_cut_off_stop_a_sender_after_a_window() {
    in_a_world(Mode::Streams, |world| {
        let (_answer, mut at_server) = start_server(world);
        let (send, _at_client) = start_client(world, "client");
        world.run_for(ms(5));
        world.network().cut("server", "client");
        send.send(vec![7; 1 << 20]).expect("it listens");
        world.run_for(ms(1_000));
        assert_eq!(read(&mut at_server).len(), 256 << 10);
        world.network().heal("server", "client");
        world.run_for(ms(100));
        assert_eq!(read(&mut at_server).len(), 768 << 10);
    });
}

#[test]
fn a_cut_that_lasts_breaks_the_connection() {
    in_a_world(Mode::Streams, |world| {
        let (_answer, mut at_server) = start_server(world);
        let (send, mut at_client) = start_client(world, "client");
        world.run_for(ms(5));
        world.network().cut("client", "server");
        send.send(b"lost".to_vec()).expect("it listens");
        world.run_for(ms(11_000));
        let given_up = Seen::Failed(io::ErrorKind::TimedOut);
        assert_eq!(seen(&mut at_client), [Seen::Connected, given_up]);
        assert_eq!(seen(&mut at_server), [], "nothing gets there");
        world.network().heal("client", "server");
        world.run_for(ms(300));
        assert_eq!(seen(&mut at_server), [Seen::Failed(io::ErrorKind::ConnectionReset)]);
        assert_eq!(world.network().connections(), 0);
    });
}

#[test]
fn a_dial_to_a_host_that_is_cut_off_hangs_until_it_is_healed() {
    for (from, to) in [("client", "server"), ("server", "client")] {
        in_a_world(Mode::Streams, |world| {
            let (_answer, _at_server) = start_server(world);
            world.start("client", || async { Ok(()) });
            world.run_for(ms(5));
            world.network().cut(from, to);
            let (_send, mut at_client) = start_client(world, "client");
            world.run_for(ms(2_000));
            assert_eq!(seen(&mut at_client), []);
            world.network().heal(from, to);
            world.run_for(ms(2_100));
            assert_eq!(seen(&mut at_client), [Seen::Connected]);
            assert_eq!(world.network().counters().hung, 1);
        });
    }
}

#[test]
fn a_slow_link_lets_so_many_bytes_through_in_a_second() {
    in_a_world(Mode::Streams, |world| {
        let (_answer, mut at_server) = start_server(world);
        let (send, _at_client) = start_client(world, "client");
        world.run_for(ms(5));
        world.network().set_rate("client", "server", Some(10_000));
        for _ in 0..100 {
            send.send(vec![1; 1_000]).expect("it listens");
        }
        world.run_for(ms(1_000));
        let arrived = read(&mut at_server).len();
        assert!((9_000..=10_000).contains(&arrived), "{arrived}");
        assert!(world.network().counters().slowed > 0);
    });
}

#[test]
fn a_dead_process_breaks_its_connections_and_a_dead_machine_is_silent() {
    for death in [Death::Process, Death::Power] {
        in_a_world(Mode::Streams, |world| {
            let (_answer, _at_server) = start_server(world);
            let (send, mut at_client) = start_client(world, "client");
            world.run_for(ms(5));
            world.kill("server", death);
            world.run_for(ms(100));
            let reset = Seen::Failed(io::ErrorKind::ConnectionReset);
            if death == Death::Process {
                assert_eq!(seen(&mut at_client), [Seen::Connected, reset]);
                return;
            }
            assert_eq!(seen(&mut at_client), [Seen::Connected]);
            send.send(b"anybody?".to_vec()).expect("it listens");
            world.run_for(ms(1_000));
            assert_eq!(seen(&mut at_client), []);
            let (_answer, mut at_server) = start_server(world);
            world.run_for(ms(500));
            assert_eq!(seen(&mut at_client), [reset], "the new process knows no such connection");
            assert_eq!(seen(&mut at_server), []);
        });
    }
}

#[test]
fn all_connections_of_two_hosts_can_be_reset() {
    in_a_world(Mode::Streams, |world| {
        let (_answer, mut at_server) = start_server(world);
        let (_send, mut at_client) = start_client(world, "client");
        world.run_for(ms(5));
        world.network().reset_connections("client", "server");
        world.run_for(ms(1));
        let reset = || Seen::Failed(io::ErrorKind::ConnectionReset);
        assert_eq!(seen(&mut at_client), [Seen::Connected, reset()]);
        assert_eq!(seen(&mut at_server), [reset()]);
        assert_eq!(world.network().connections(), 0);
    });
}

#[test]
fn corruption_changes_one_bit_of_a_piece() {
    in_a_world(Mode::Streams, |world| {
        let (_answer, mut at_server) = start_server(world);
        let (send, _at_client) = start_client(world, "client");
        world.run_for(ms(5));
        world.network().set_corruption("client", "server", 1.0);
        send.send(vec![0; 100]).expect("it listens");
        world.run_for(ms(5));
        let ones: u32 = read(&mut at_server).iter().map(|byte| byte.count_ones()).sum();
        assert_eq!((ones, world.network().counters().corrupted), (1, 1));
    });
}

/// A request of Raft with this number.
fn request(number: u64) -> Vec<u8> {
    frame(b"QLFP", 1, number, b"entries").to_vec()
}

fn response(number: u64) -> Vec<u8> {
    frame(b"QLFP", 0x81, number, b"").to_vec()
}

fn hello() -> Vec<u8> {
    frame(b"QLFP", 0xf0, 0, b"").to_vec()
}

/// Server and client on a bus, with their hellos exchanged.
fn on_a_bus(
    world: &mut World,
) -> ((Wishes, UnboundedReceiver<Seen>), (Wishes, UnboundedReceiver<Seen>)) {
    let (mut server, mut client) = (start_server(world), start_client(world, "client"));
    greet(world, &mut server, &mut client);
    (server, client)
}

fn greet(
    world: &mut World,
    server: &mut (Wishes, UnboundedReceiver<Seen>),
    client: &mut (Wishes, UnboundedReceiver<Seen>),
) {
    world.run_for(ms(6));
    client.0.send(hello()).expect("it listens");
    server.0.send(hello()).expect("it listens");
    world.run_for(ms(6));
    assert_eq!(seen(&mut client.1), [Seen::Connected, Seen::Read(hello())]);
    let greeted = seen(&mut server.1);
    assert_eq!(greeted.last(), Some(&Seen::Read(hello())), "{greeted:?}");
}

#[test]
fn a_bus_drops_doubles_and_reorders_requests_and_leaves_clients_alone() {
    for client_speaks in [false, true] {
        in_a_world(Mode::Bus, |world| {
            let (mut server, client) = on_a_bus(world);
            world.network().set_bus_faults_everywhere(BusFaults {
                drop: 0.1,
                duplicate: 0.1,
                reorder: 0.2,
                ..BusFaults::NONE
            });
            let magic = if client_speaks { b"QLFC" } else { b"QLFP" };
            let frames: Vec<_> =
                (0..200).map(|number| frame(magic, 1, number, b"body").to_vec()).collect();
            for frame in &frames {
                client.0.send(frame.clone()).expect("it listens");
                world.run_for(ms(1));
            }
            world.run_for(ms(4_000));
            let got = read(&mut server.1);
            let got: Vec<_> = got.chunks(frames[0].len()).map(<[u8]>::to_vec).collect();
            let counters = world.network().counters();
            if client_speaks {
                assert_eq!(got, frames);
                return;
            }
            let (dropped, doubled) = (counters.dropped as usize, counters.duplicated as usize);
            assert!(dropped > 5 && doubled > 5 && counters.reordered > 10, "{counters:?}");
            assert_eq!(got.len(), frames.len() - dropped + doubled);
            assert!(got.iter().all(|frame| frames.contains(frame)));
            let numbers: Vec<_> = got.iter().map(|frame| frame[16]).collect();
            assert!(!numbers.is_sorted(), "nothing was overtaken");
        });
    }
}

#[test]
fn a_late_request_comes_on_a_later_connection_and_its_answer_reaches_nobody() {
    in_a_world(Mode::Bus, |world| {
        let (mut server, client) = on_a_bus(world);
        let network = world.network();
        let lateness = Latency::millis(500, 500);
        let late = BusFaults { late: 1.0, lateness, ..BusFaults::NONE };
        network.set_bus_faults("client", "server", late);
        client.0.send(request(5)).expect("it listens");
        world.run_for(ms(10));
        network.set_bus_faults("client", "server", BusFaults::NONE);
        world.kill("client", Death::Process);
        world.run_for(ms(20));
        let mut client = start_client(world, "client");
        greet(world, &mut server, &mut client);
        world.run_for(ms(600));
        let zombie = read(&mut server.1);
        assert_eq!(zombie.len(), request(5).len());
        assert_ne!(zombie, request(5), "its correlation could be that of a new request");
        assert_eq!(network.counters().zombies, 1);
        let mut answer = response(0);
        answer[16..24].copy_from_slice(&zombie[16..24]);
        server.0.send(answer).expect("it listens");
        server.0.send(response(5)).expect("it listens");
        world.run_for(ms(10));
        assert_eq!(read(&mut client.1), response(5));
    });
}

#[test]
fn a_late_frame_of_a_connection_that_lives_comes_on_it() {
    in_a_world(Mode::Bus, |world| {
        let (mut server, client) = on_a_bus(world);
        let lateness = Latency::millis(500, 500);
        let late = BusFaults { late: 1.0, lateness, ..BusFaults::NONE };
        world.network().set_bus_faults("client", "server", late);
        client.0.send(request(5)).expect("it listens");
        world.run_for(ms(490));
        assert_eq!(seen(&mut server.1), []);
        world.run_for(ms(20));
        assert_eq!(read(&mut server.1), request(5));
        assert_eq!(world.network().counters().late, 1);
    });
}

#[test]
fn frames_larger_than_the_window_pass_a_bus() {
    in_a_world(Mode::Bus, |world| {
        let (mut server, client) = on_a_bus(world);
        let large = frame(b"QLFP", 1, 1, &vec![3; 3 << 20]).to_vec();
        for _ in 0..3 {
            client.0.send(large.clone()).expect("it listens");
        }
        world.run_for(ms(100));
        assert!(read(&mut server.1) == large.repeat(3));
    });
}

#[test]
fn a_cut_swallows_what_a_bus_carries_between_nodes() {
    in_a_world(Mode::Bus, |world| {
        let (mut server, client) = on_a_bus(world);
        world.network().cut("client", "server");
        client.0.send(request(1)).expect("it listens");
        client.0.send(frame(b"QLFP", 0xf2, 0, b"").to_vec()).expect("it listens");
        world.run_for(ms(100));
        world.network().heal_all();
        world.run_for(ms(300));
        assert_eq!(read(&mut server.1), frame(b"QLFP", 0xf2, 0, b""));
        assert_eq!(world.network().counters().cut_off, 1);
    });
}
