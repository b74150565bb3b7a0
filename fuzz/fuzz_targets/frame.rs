//! Frames of the remoting protocol, JSON and binary.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorumlog_broker::fuzz::frame(bytes));
