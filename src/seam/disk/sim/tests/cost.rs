//! What things cost: in memory, since time cannot be asserted.

use super::*;

#[test]
fn allocated_space_takes_no_memory_until_it_is_written() {
    let disk = SimDisk::new();
    let file = create(&disk, "/f");
    file.allocate(0, 1 << 39).expect("allocate");
    file.sync_data().expect("flush");
    write(&file, 1 << 38, b"x");
    file.sync_data().expect("flush");
    disk.sync_dir(Path::new("/")).expect("sync");
    let image = disk.durable_file(Path::new("/f")).expect("durable");
    let mut byte = [0];
    image.read_at(&mut byte, 1 << 38);
    assert_eq!((byte, image.len()), ([b'x'], 1 << 39));
}

/// Prints what calls cost. `cargo test --release --lib disk::sim::tests::cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "a measurement")]
fn measure() {
    const ROUNDS: u64 = 300_000;
    let timed = |what: &str, rounds: u64, work: &mut dyn FnMut(u64)| {
        let begun = std::time::Instant::now();
        (0..rounds).for_each(&mut *work);
        println!("{what}: {:?} each", begun.elapsed() / u32::try_from(rounds).expect("few"));
    };
    let disk = SimDisk::new();
    let file = create(&disk, "/f");
    file.allocate(0, 256 << 20).expect("allocate");
    disk.flush_all();
    let group = [7; 200];
    timed("write of 200 bytes and flush", ROUNDS, &mut |round| {
        write(&file, round * 200, &group);
        file.sync_data().expect("flush");
    });
    let mut buffer = [0; 200];
    timed("read of 200 bytes", ROUNDS, &mut |round| {
        file.read_exact_at(&mut buffer, round * 200).expect("read");
    });
    timed("allocation of 4 MiB and flush", 10_000, &mut |round| {
        let at = (256 + 4 * round) << 20;
        file.allocate(at, at + (4 << 20)).expect("allocate");
        file.sync_data().expect("flush");
    });
    for number in 0..20 {
        durable(&disk, &format!("/{number}"), &[1; 9000]);
    }
    timed("durable contents of 21 files", 10_000, &mut |_| drop(disk.durable_contents()));
    timed("one durable file", ROUNDS, &mut |_| drop(disk.durable_file(Path::new("/7"))));
    timed("power cut of 21 files", 10_000, &mut |_| {
        drop(disk.after_crash(&CrashPolicy::LoseAll));
    });
}
