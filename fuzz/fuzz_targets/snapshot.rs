//! The reader of snapshots, and opening a directory with one.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| korch_native::store::fuzz::snapshot(input));
