//! Properties of a message.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorumlog_broker::fuzz::properties(bytes));
