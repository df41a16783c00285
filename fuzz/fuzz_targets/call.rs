//! The messages of a call to the etcd front, and carrying them out.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| korch_native::etcd::fuzz::call(input));
