//! The reader of log segments, and opening a directory with one.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| korch_native::store::fuzz::log(input));
