//! Kubernetes objects as protocol buffers.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| korch_native::api::fuzz::protobuf(input));
