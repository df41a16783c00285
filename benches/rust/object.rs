//! Values that compress as objects do: the same names of fields again and again, and names, addresses and digests that are nowhere
//! else, about a third of all bytes. A run of one byte would flatter a store that compresses.

use std::fmt::Write;

/// A number that looks like chance, from `state`, which goes on (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Object `number`, in JSON, of `length` bytes; at least 400, so that it is whole.
pub fn object(number: u64, length: usize) -> Vec<u8> {
    let mut state = number;
    let mut digits = || next(&mut state);
    let mut text = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{\"name\":\"web-{:010x}-{:05x}\",\"namespace\":\"default\",\"uid\":\"{:016x}{:016x}\",\
\"labels\":{{\"app\":\"web\",\"pod-template-hash\":\"{:010x}\"}}}},\"spec\":{{\"nodeName\":\"node-{}\",\"containers\":[{{\"name\":\"web\",\
\"image\":\"web@sha256:{:016x}{:016x}\",\"env\":[",
        digits() >> 24,
        digits() >> 44,
        digits(),
        digits(),
        digits() >> 24,
        digits() % 1000,
        digits(),
        digits(),
    );
    while text.len() + 60 < length {
        let _ = write!(
            text,
            "{{\"name\":\"SETTING_{:04}\",\"value\":\"{:016x}\"}},",
            digits() % 10_000,
            digits()
        );
    }
    text.push_str("{\"name\":\"LAST\",\"value\":\"");
    while text.len() + 7 < length {
        text.push('x');
    }
    text.push_str("\"}]}]}}");
    text.into_bytes()
}
