//! Replays what fuzzers were given and found; see `fuzz/README.md`.

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut count = 0;
    for kind in ["corpus", "regressions"] {
        let Ok(files) = std::fs::read_dir(root.join(kind).join(target)) else {
            continue;
        };
        for file in files {
            let path = file.unwrap().path();
            // The name of a test's thread is what a failure shows.
            let input = std::fs::read(&path).unwrap();
            let named = std::thread::Builder::new().name(path.display().to_string());
            let done = named.spawn(move || run(&input)).unwrap().join();
            assert!(done.is_ok(), "{}", path.display());
            count += 1;
        }
    }
    assert!(count > 0, "no inputs for {target}");
}

#[test]
fn logs() {
    replay("log", crate::store::fuzz::log);
}

#[test]
fn snapshots() {
    replay("snapshot", crate::store::fuzz::snapshot);
}

#[test]
fn calls_of_etcd() {
    replay("call", crate::etcd::fuzz::call);
}

#[test]
fn protobuf_bodies() {
    replay("protobuf", crate::api::fuzz::protobuf);
}
