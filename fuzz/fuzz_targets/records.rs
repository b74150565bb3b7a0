//! Stored messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorumlog_broker::fuzz::records(bytes));
