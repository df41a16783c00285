//! Arbitrary bytes as bodies of requests. What `fuzz/` feeds them, and tests replay.

use super::protobuf;

/// `input` behind the four bytes that every protobuf body begins with: it is refused, or becomes an object in JSON.
pub fn protobuf(input: &[u8]) {
    let body = [b"k8s\0", input].concat();
    if let Ok(decoded) = protobuf::to_json(&body) {
        let is_json_inside = serde_json::from_slice::<serde_json::Value>(&decoded.json).is_ok();
        // A body may say that it is JSON, and then it is not looked at here.
        assert!(is_json_inside || input.windows(4).any(|window| window == b"json"));
    }
}
