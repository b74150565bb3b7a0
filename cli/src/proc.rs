//! What a process costs, as Linux tells in `/proc`.

use std::fs;
use std::path::Path;

/// Counters and sizes of one process at one moment. Default: nothing is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProcessSample {
    /// CPU time in user and system mode.
    pub(crate) cpu_us: u64,
    /// All resident memory, mapped page cache included.
    pub(crate) rss_bytes: u64,
    /// Resident memory that is the process's own.
    pub(crate) rss_anon_bytes: u64,
    pub(crate) threads: u64,
    /// How often its threads went to sleep by themselves, and so were woken up.
    pub(crate) voluntary_switches: u64,
    /// Bytes that it made the file systems write to disks; 0 where the system does not tell.
    pub(crate) disk_bytes: u64,
}

/// What a process cost between two samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProcessCost {
    pub(crate) cpu_us: u64,
    pub(crate) voluntary_switches: u64,
    pub(crate) disk_bytes: u64,
}

impl ProcessSample {
    /// Looks at a process; none if it has gone, or there is no `/proc`.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let dir = Path::new("/proc").join(pid.to_string());
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        let status = fs::read_to_string(dir.join("status")).ok()?;
        let mut voluntary_switches = 0;
        for task in fs::read_dir(dir.join("task")).ok()? {
            // A thread may end while we look.
            let text = task.and_then(|task| fs::read_to_string(task.path().join("status")));
            let switches = text.ok().and_then(|text| field(&text, "voluntary_ctxt_switches"));
            voluntary_switches += switches.unwrap_or(0);
        }
        let kib = |name| field(&status, name).map_or(0, |kib| kib * 1024);
        Some(Self {
            cpu_us: cpu_us(&stat, rustix::param::clock_ticks_per_second())?,
            rss_bytes: kib("VmRSS"),
            rss_anon_bytes: kib("RssAnon"),
            threads: field(&status, "Threads").unwrap_or(0),
            voluntary_switches,
            disk_bytes: fs::read_to_string(dir.join("io"))
                .ok()
                .and_then(|io| field(&io, "write_bytes"))
                .unwrap_or(0),
        })
    }

    /// What it cost since an earlier sample.
    pub(crate) fn since(&self, earlier: &Self) -> ProcessCost {
        let more = |of: fn(&Self) -> u64| of(self).saturating_sub(of(earlier));
        ProcessCost {
            cpu_us: more(|sample| sample.cpu_us),
            voluntary_switches: more(|sample| sample.voluntary_switches),
            disk_bytes: more(|sample| sample.disk_bytes),
        }
    }
}

/// The first number behind `name:` in a `status` file.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// CPU time of a `stat` file. The command's name, in parentheses, may hold anything.
fn cpu_us(stat: &str, ticks_per_second: u64) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    // Fields 14 and 15 of the whole line; behind the name comes field 3.
    let mut times = behind_name.split_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some((user + system) * 1_000_000 / ticks_per_second.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 5 0 99 1 2 3";
        assert_eq!(cpu_us(stat, 100), Some(3_000_000));
        assert_eq!(cpu_us("12 (x) S 1", 100), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "VmRSS:\t  2048 kB\nRssAnon:\t 1024 kB\nThreads:\t5\n\
                      nonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(status, "VmRSS"), Some(2048));
        assert_eq!(field(status, "voluntary_ctxt_switches"), Some(7));
        assert_eq!(field(status, "VmSwap"), None);
    }

    #[test]
    fn this_process_can_be_sampled() {
        let before = ProcessSample::of(std::process::id()).expect("linux");
        assert!(before.rss_bytes >= before.rss_anon_bytes && before.rss_anon_bytes > 0);
        assert!(before.threads >= 1);
        let mut sum: u64 = 0;
        while ProcessSample::of(std::process::id()).expect("linux").cpu_us == before.cpu_us {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let after = ProcessSample::of(std::process::id()).expect("linux");
        assert!(after.since(&before).cpu_us > 0);
        assert_eq!(before.since(&after).cpu_us, 0, "never below zero");
    }
}
