//! Requests that wait: what they hold meanwhile, however large they were.

use crate::costs::{Costs, KIB, MEMORY, MIB};
use crate::requests::{frame, name, send};

/// Pulls of one connection that may wait.
const WAITING_MIN: usize = 2500;
const WAITING_MAX: usize = 4000;
/// What one of them may hold, beside its names.
const EACH_MAX: usize = 2 * KIB;

pub(crate) async fn waiting(costs: &mut Costs) {
    costs.client.all([frame(10, &send("W", "0", ""), b"x")]).await;
    let group = name(3);
    let tags = (0..1024).map(|n| format!("{n}||")).collect::<String>();
    for (what, padding, tags, count, each) in [
        ("waiting pulls of honest clients", 0, "*", 4200, EACH_MAX),
        ("waiting pulls of 64 KiB", 64_000, "*", 4200, EACH_MAX),
        ("waiting pulls with 1,024 tags", 0, tags.as_str(), 2000, EACH_MAX + 4 * KIB),
    ] {
        let padding = "x".repeat(padding);
        let pull = [
            ("consumerGroup", group.as_str()),
            ("topic", "W"),
            ("queueId", "0"),
            ("queueOffset", "1"),
            ("maxMsgNums", "1024"),
            ("sysFlag", "6"),
            ("subscription", tags),
            ("suspendTimeoutMillis", "60000"),
            ("padding", &padding),
        ];
        let mut client = costs.connect().await;
        let before = MEMORY.current_usage();
        let refused = client.refused_of(&frame(11, &pull, b""), count).await;
        let held = MEMORY.current_usage().saturating_sub(before);
        let waiting = count - refused;
        let of_one = held / waiting.max(1);
        eprintln!("{waiting} of {count} {what}: {} KiB, {of_one} bytes each", held / KIB);
        assert!(held <= 8 * MIB, "{what}: {held} bytes");
        assert!(of_one <= each, "{what}: {of_one} bytes each");
        assert!(waiting <= WAITING_MAX, "{what}: no other request would be read");
        if each == EACH_MAX {
            assert!(waiting >= WAITING_MIN, "{what}: only {waiting} wait");
        }
    }
}
