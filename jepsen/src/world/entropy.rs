//! Randomness and clocks of simulated threads.
//!
//! The standard library, `rand` and tokio ask the C library for random bytes and for the time. This
//! file defines both functions for the whole program. On a thread that [`enter`] has made simulated,
//! bytes come from the seed and clocks show simulated time; on any other the system answers.
//!
//! What it reaches: `std` calls `getrandom` through a weak symbol (keys of hash maps, and from them
//! the seeds of tokio's `select!`) and `clock_gettime` directly; the crate `getrandom` from 0.3 on
//! looks the symbol up by its name (`rand::rng`, openraft's election timeouts). What it does not reach:
//! `getrandom` 0.2, which makes the system call itself. Nothing that runs in a simulation uses it,
//! and a test says so.

#![allow(unsafe_code, reason = "functions of the C library can be replaced in no safe way")]

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    // Constants without destructors: they can be used at any time of a thread's life.
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
    static STATE: Cell<u64> = const { Cell::new(0) };
    static DRAWN: Cell<u64> = const { Cell::new(0) };
    static MONOTONIC: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static WALL: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Makes this thread a simulated one, for the rest of its life.
///
/// # Panics
/// The program was linked so that nobody finds the functions of this file.
pub(super) fn enter(seed: u64) {
    assert!(overrides::are_found(), "getrandom is not this program's own: nothing is repeatable");
    STATE.set(seed);
    SIMULATED.set(true);
}

/// True on a simulated thread.
pub(super) fn is_simulated() -> bool {
    SIMULATED.get()
}

/// Sets what the clocks of this thread show: since boot, and since 1970.
pub(super) fn set_clocks(monotonic: Duration, wall: Duration) {
    MONOTONIC.set(monotonic);
    WALL.set(wall);
}

/// Bytes that were asked for on this thread so far.
pub(super) fn drawn() -> u64 {
    DRAWN.get()
}

/// The next 8 bytes (splitmix64).
fn next() -> [u8; 8] {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

mod overrides {
    use libc::{c_int, c_long, c_uint, c_void, clockid_t, size_t, ssize_t, timespec};

    use super::{DRAWN, MONOTONIC, SIMULATED, WALL, next};

    /// True if who looks `getrandom` up by its name finds the one below.
    pub(super) fn are_found() -> bool {
        // SAFETY: the name ends with a zero.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"getrandom".as_ptr()) };
        std::ptr::eq(found, getrandom as *const c_void)
    }

    /// getrandom(2).
    // SAFETY: the name and the signature are those of the C library, whose contract it keeps.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn getrandom(buf: *mut c_void, len: size_t, flags: c_uint) -> ssize_t {
        if !SIMULATED.get() {
            // SAFETY: the caller's arguments are handed on as they are.
            let result = unsafe { libc::syscall(libc::SYS_getrandom, buf, len, flags) };
            return result as ssize_t;
        }
        if len == 0 {
            return 0;
        }
        // SAFETY: the caller owns `len` bytes at `buf`, as getrandom(2) asks; zeros make them
        // initialised before there is a slice of them.
        let bytes = unsafe {
            std::ptr::write_bytes(buf.cast::<u8>(), 0, len);
            std::slice::from_raw_parts_mut(buf.cast::<u8>(), len)
        };
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&next()[..chunk.len()]);
        }
        DRAWN.set(DRAWN.get() + len as u64);
        ssize_t::try_from(len).unwrap_or(ssize_t::MAX)
    }

    /// clock_gettime(2). Clocks of CPU time stay the system's.
    // SAFETY: the name and the signature are those of the C library, whose contract it keeps.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
        let shown = match clock {
            _ if !SIMULATED.get() => None,
            libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_TAI => {
                Some(WALL.get())
            }
            libc::CLOCK_MONOTONIC
            | libc::CLOCK_MONOTONIC_RAW
            | libc::CLOCK_MONOTONIC_COARSE
            | libc::CLOCK_BOOTTIME => Some(MONOTONIC.get()),
            _ => None,
        };
        let Some(shown) = shown else {
            // SAFETY: the caller's arguments are handed on as they are.
            let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
            return result as c_int;
        };
        let tv_sec = shown.as_secs() as libc::time_t;
        let tv_nsec = c_long::from(shown.subsec_nanos() as i32);
        // SAFETY: the caller owns a timespec at `time`, as clock_gettime(2) asks.
        unsafe { time.write(timespec { tv_sec, tv_nsec }) };
        0
    }
}
