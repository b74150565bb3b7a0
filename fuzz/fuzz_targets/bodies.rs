//! JSON bodies with objects for keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorumlog_broker::fuzz::bodies(bytes));
