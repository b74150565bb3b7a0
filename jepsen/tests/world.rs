//! The simulated world: hosts, clocks, randomness, and that a seed decides all of it.
#![cfg(feature = "simulation")]

mod two_processes;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use jepsen::world::{Death, EventTrace, Outcome, Trace, World, WorldConfig, simulate};
use rand::RngExt;
use tokio::sync::mpsc;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn in_a_world<T: Send>(seed: u64, run: impl FnOnce(&mut World) -> T + Send) -> T {
    simulate(seed, || run(&mut World::new(WorldConfig::new(seed))))
}

/// Everything random that simulated code may come upon, in words.
async fn draw() -> String {
    let map: HashMap<u32, u32> = (0..8).map(|i| (i, i)).collect();
    let set: HashSet<u32> = (0..8).collect();
    let (mut first, mut second) = (0, 0);
    for _ in 0..64 {
        tokio::select! {
            () = std::future::ready(()) => first += 1,
            () = std::future::ready(()) => second += 1,
        }
    }
    let mut order: Vec<_> = map.into_keys().collect();
    order.extend(set);
    let number: u64 = rand::rng().random();
    format!("{number:016x} {order:?} {first}:{second}")
}

/// A run with a bit of everything, as its trace.
fn a_run(seed: u64) -> Trace {
    in_a_world(seed, |world| {
        for host in ["a", "b"] {
            let trace = world.trace();
            world.start(host, || async move {
                for _ in 0..20 {
                    let pause = rand::rng().random_range(1..20);
                    // paced: time that passes in the simulation.
                    tokio::time::sleep(ms(pause)).await;
                    let (now, wall) = (Instant::now(), SystemTime::now());
                    trace.line(host, format_args!("{} {now:?} {wall:?}", draw().await));
                }
                Ok(())
            });
        }
        world.drift("a", 1.01);
        world.run_for(ms(30));
        world.pause("b");
        world.run_for(ms(30));
        world.resume("b");
        world.run_for(ms(1_000));
        world.trace()
    })
}

#[test]
#[ignore = "run by the test below, in processes of its own"]
fn prints_a_run() {
    let path = std::env::var("TRACE_TO").expect("a path for the trace");
    std::fs::write(path, a_run(11).text()).expect("the trace is written");
}

#[test]
fn two_processes_have_the_same_trace_for_a_seed() {
    let traces = two_processes::traces();
    assert!(traces[0].lines().count() > 40, "{}", traces[0]);
    assert_eq!(traces[0], traces[1]);
}

#[test]
fn another_seed_draws_other_numbers() {
    assert_ne!(a_run(1).hash(), a_run(2).hash());
}

#[test]
fn threads_outside_of_a_simulation_keep_true_randomness_and_time() {
    let number = || -> u64 { rand::rng().random() };
    assert_ne!(number(), number());
    let drawn = simulate(1, number);
    assert_eq!(drawn, simulate(1, number), "the same first number on each simulated thread");
    let year_2000 = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800);
    assert!(SystemTime::now() > year_2000);
    let begun = Instant::now();
    while begun.elapsed().is_zero() {}
}

#[test]
fn random_bytes_come_from_the_seed_whoever_asks() {
    simulate(1, || {
        let drawn_by = |ask: &dyn Fn()| {
            let before = jepsen::world::random_bytes_drawn();
            ask();
            jepsen::world::random_bytes_drawn() - before
        };
        assert!(drawn_by(&|| drop(std::hash::RandomState::new())) > 0, "keys of hash maps");
        assert!(
            drawn_by(&|| assert_ne!(rand::rng().random::<u64>(), 0)) > 0,
            "rand, and getrandom below it"
        );
    });
}

#[test]
fn nothing_asks_the_system_for_random_bytes_behind_our_back() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let lock = std::fs::read_to_string(path).expect("the workspace has a lock file");
    let packages: Vec<_> = lock.split("[[package]]").collect();
    let is_old = |package: &&&str| {
        package.contains("name = \"getrandom\"") && package.contains("version = \"0.2.")
    };
    assert!(packages.len() > 50);
    assert_eq!(packages.iter().find(is_old), None, "it makes the system call itself");
}

#[test]
fn time_passes_for_a_host_tick_by_tick_and_its_clocks_agree() {
    in_a_world(1, |world| {
        let (sender, mut times) = mpsc::unbounded_channel();
        world.start("a", || async move {
            let (began, std_began, wall) =
                (tokio::time::Instant::now(), Instant::now(), SystemTime::now());
            for pause in [1, 10, 0, 100, 7] {
                // paced: time that passes in the simulation.
                tokio::time::sleep(ms(pause)).await;
                let wall = wall.elapsed().expect("forth");
                let _ = sender.send((began.elapsed(), std_began.elapsed(), wall));
            }
            Ok(())
        });
        assert!(world.run_until(ms(1_000), |world| !world.is_running("a")));
        let mut last = Duration::ZERO;
        while let Ok((tokio, std, wall)) = times.try_recv() {
            assert_eq!((tokio, std), (tokio, wall), "the clocks of the library's and std's differ");
            last = tokio;
        }
        assert_eq!(last, ms(118));
        assert_eq!(world.outcome("a"), Some(Outcome::Finished));
        assert!((ms(118)..=ms(120)).contains(&world.now()), "{:?}", world.now());
    });
}

/// Starts a host that sends what its clock shows every 10 ms.
fn start_a_ticker(world: &mut World, host: &str) -> mpsc::UnboundedReceiver<Duration> {
    let (sender, times) = mpsc::unbounded_channel();
    world.start(host, || async move {
        let began = tokio::time::Instant::now();
        loop {
            // paced: time that passes in the simulation.
            tokio::time::sleep(ms(10)).await;
            let _ = sender.send(began.elapsed());
        }
    });
    times
}

fn received(times: &mut mpsc::UnboundedReceiver<Duration>) -> Vec<Duration> {
    std::iter::from_fn(|| times.try_recv().ok()).collect()
}

#[test]
fn a_paused_host_does_not_run_and_finds_its_clock_ahead() {
    in_a_world(1, |world| {
        let mut times = start_a_ticker(world, "a");
        world.run_for(ms(25));
        assert_eq!(received(&mut times), [ms(10), ms(20)]);
        world.pause("a");
        world.run_for(ms(500));
        assert!(world.is_paused("a") && world.is_running("a"));
        assert_eq!(received(&mut times), []);
        world.resume("a");
        world.run_for(ms(20));
        // The timer that was due at 30 fires at once, late.
        assert_eq!(received(&mut times), [ms(525), ms(535)]);
        assert_eq!(world.clock("a"), world.now());
    });
}

#[test]
fn a_clock_that_drifts_runs_faster_or_slower_than_time() {
    in_a_world(1, |world| {
        let mut fast = start_a_ticker(world, "fast");
        let mut slow = start_a_ticker(world, "slow");
        world.drift("fast", 1.1);
        world.drift("slow", 0.5);
        world.run_for(ms(1_000));
        assert_eq!(world.clock("fast"), ms(1_100));
        assert_eq!(world.clock("slow"), ms(500));
        assert!((109..=110).contains(&received(&mut fast).len()));
        assert!((49..=50).contains(&received(&mut slow).len()));
    });
}

#[test]
fn a_killed_host_is_gone_with_all_its_tasks_and_can_start_again() {
    in_a_world(1, |world| {
        let (sender, mut times) = mpsc::unbounded_channel();
        let start = |world: &mut World, sender: mpsc::UnboundedSender<u32>| {
            world.start("a", || async move {
                let task = tokio::spawn(async move {
                    loop {
                        // paced: time that passes in the simulation.
                        tokio::time::sleep(ms(1)).await;
                        let _ = sender.send(1);
                    }
                });
                task.await.map_err(Into::into)
            });
        };
        start(world, sender.clone());
        world.run_for(ms(10));
        assert!(times.try_recv().is_ok());
        world.kill("a", Death::Process);
        while times.try_recv().is_ok() {}
        world.run_for(ms(10));
        assert!(times.try_recv().is_err() && !world.is_running("a"));
        assert_eq!(world.outcome("a"), Some(Outcome::Killed));
        start(world, sender);
        world.run_for(ms(10));
        assert!(times.try_recv().is_ok());
    });
}

#[test]
fn a_host_that_is_killed_while_it_is_paused_starts_again_with_the_right_time() {
    in_a_world(1, |world| {
        drop(start_a_ticker(world, "a"));
        world.run_for(ms(25));
        world.pause("a");
        world.run_for(ms(500));
        world.kill("a", Death::Power);
        assert!(!world.is_paused("a"));
        world.run_for(ms(100));
        let mut times = start_a_ticker(world, "a");
        world.run_for(ms(21));
        assert_eq!(received(&mut times), [ms(10), ms(20)]);
        assert_eq!(world.clock("a"), world.now());
    });
}

#[test]
fn the_wall_clock_can_be_set_and_others_do_not_notice() {
    in_a_world(1, |world| {
        let (sender, mut walls) = mpsc::unbounded_channel();
        world.start("a", || async move {
            let (wall, monotonic) = (SystemTime::now(), Instant::now());
            // paced: time that passes in the simulation.
            tokio::time::sleep(ms(10)).await;
            let back = wall.duration_since(SystemTime::now()).expect("back");
            let _ = sender.send((back, monotonic.elapsed()));
            Ok(())
        });
        world.run_for(ms(5));
        world.step_wall_clock("a", -60_000);
        world.run_for(ms(10));
        assert_eq!(walls.try_recv(), Ok((ms(60_000 - 10), ms(10))));
    });
}

#[test]
fn events_of_the_software_are_traced_with_their_host_and_time() {
    in_a_world(1, |world| {
        let trace = Trace::new(1 << 10);
        let events = EventTrace::new(trace.clone(), tracing::Level::INFO, ["world"]);
        tracing::subscriber::with_default(events, || {
            world.start("a", || async {
                // paced: time that passes in the simulation.
                tokio::time::sleep(ms(3)).await;
                tracing::info!(answer = 42, "hello");
                tracing::debug!("too fine");
                tracing::info!(target: "other", "not asked for");
                Ok(())
            });
            world.run_for(ms(5));
        });
        assert_eq!(trace.text(), "  0.003 a        INFO world: hello answer=42\n");
    });
}

#[test]
fn errors_and_panics_are_kept_those_of_tasks_too() {
    in_a_world(1, |world| {
        world.start("fails", || async { Err("no luck".into()) });
        world.start("panics", || async { panic!("in {}", "main") });
        world.start("spawns", || async {
            let _ = tokio::spawn(async { panic!("in a task") }).await;
            Ok(())
        });
        world.run_for(ms(5));
        assert_eq!(world.outcome("fails"), Some(Outcome::Failed("no luck".to_owned())));
        assert_eq!(world.outcome("panics"), Some(Outcome::Panicked("in main".to_owned())));
        assert_eq!(world.outcome("spawns"), Some(Outcome::Finished));
        let panics = world.panics().iter().map(|panic| (&*panic.host, &*panic.message));
        assert_eq!(panics.collect::<Vec<_>>(), [("panics", "in main"), ("spawns", "in a task")]);
    });
}

#[test]
#[should_panic(expected = "a host started a thread")]
fn a_host_that_blocks_is_found() {
    in_a_world(1, |world| {
        world.start("a", || async { Ok(tokio::task::spawn_blocking(|| ()).await?) });
        world.run_for(ms(5));
    });
}

#[test]
fn a_value_is_computed_on_a_host_within_its_limit() {
    in_a_world(1, |world| {
        let after = |millis| async move {
            // paced: time that passes in the simulation.
            tokio::time::sleep(ms(millis)).await;
            millis
        };
        assert_eq!(world.run_on("a", ms(20), after(10)), Some(10));
        assert_eq!(world.run_on("a", ms(20), after(30)), None);
        assert!(!world.is_running("a"));
    });
}
