//! Directories that an older korch wrote, made out of new ones: format 2 packed nothing, format 1 had no leases either.

use super::crash::{FIRST, history, one_segment};
use super::*;
use crate::store::pack::unpack;
use crate::store::segment::{self, BATCH_HEADER_LEN, HEADER_LEN, batch_at};
use crate::store::snapshot;

/// What batches and blocks hold, unpacked.
fn plain(payload: &[u8], is_packed: bool) -> Vec<u8> {
    let mut out = payload.to_vec();
    if is_packed {
        unpack(payload, &mut out).unwrap();
    }
    out
}

/// The log in `bytes` as `version` would have written it, and how many of its batches were packed.
fn older_log(bytes: &[u8], version: u32) -> (Vec<u8>, usize) {
    let header = segment::Header::decode(FIRST, bytes).unwrap();
    let mut out = segment::Header {
        version,
        ..header.clone()
    }
    .encode();
    let (mut offset, mut chain, mut packed) = (HEADER_LEN, header.chain, 0);
    while let Some(batch) = batch_at(bytes, offset, &header.uuid) {
        let mut older = vec![0; BATCH_HEADER_LEN];
        older.extend(plain(batch.payload, batch.is_packed));
        chain = segment::seal(&mut older, false, &header.uuid, chain).unwrap();
        out.extend(older);
        offset += BATCH_HEADER_LEN + batch.payload.len();
        packed += usize::from(batch.is_packed);
    }
    (out, packed)
}

#[test]
fn a_log_of_an_older_format_is_read_and_continued_in_a_segment_of_the_new_one() {
    let (disk, store) = one_segment();
    history(&store);
    let bytes = disk.read(FIRST).unwrap();
    for version in [1, 2] {
        for torn in [&b""[..], b"\xb7krb torn"] {
            let (mut old, packed) = older_log(&bytes, version);
            assert!(packed > 3, "the new log was packed");
            old.extend_from_slice(torn);
            let after = MemDisk::default();
            after.put(FIRST, old);
            let migrated = on(&after).unwrap();
            assert_eq!(dump(&migrated), dump(&store));
            assert_eq!(migrated.stats()["torn_bytes"], torn.len() as u64);
            migrated
                .commit(vec![put("/after", Some(0), on_node(""))])
                .unwrap();
            publish(&migrated);
            let next = after.read("log-0000000000000002").unwrap();
            let header = segment::Header::decode("", &next).unwrap();
            assert_eq!(header.version, segment::FORMAT_VERSION);
            let again = on(&after.crashed(|_, durable, _| durable.to_vec())).unwrap();
            assert_eq!(dump(&again), dump(&migrated));
        }
    }
}

#[test]
fn a_log_of_a_newer_format_is_refused_by_name() {
    let (disk, store) = one_segment();
    history(&store);
    let bytes = disk.read(FIRST).unwrap();
    let (newer, _) = older_log(&bytes, 4);
    let after = MemDisk::default();
    after.put(FIRST, newer);
    let refused = on(&after).unwrap_err().to_string();
    let expected =
        "log-0000000000000001 has format 4, this korch reads formats 1 to 3: use a newer one";
    assert_eq!(refused, expected);
}

#[test]
fn a_snapshot_of_an_older_format_is_read() {
    let (disk, store) = one_segment();
    history(&store);
    store.core_grant(7).unwrap();
    store.snapshot().unwrap();
    let names = disk.list().unwrap();
    let name = names
        .iter()
        .find(|name| name.starts_with("snapshot-"))
        .unwrap();
    let (header, blocks) = snapshot::blocks(&disk.read(name).unwrap());
    assert!(blocks.iter().any(|block| block.is_packed));
    for version in [1, 2] {
        let count = u64::from_le_bytes(blocks.last().unwrap().bytes[..].try_into().unwrap());
        let older = snapshot::Header {
            version,
            count: if version == 1 { count } else { 0 },
            ..header.clone()
        };
        let bytes: Vec<_> = blocks
            .iter()
            .map(|block| (block.number, plain(&block.bytes, block.is_packed)))
            .filter(|(number, _)| version > 1 || *number == 0)
            .collect();
        let parts: Vec<_> = bytes
            .iter()
            .map(|(number, bytes)| (*number, &bytes[..]))
            .collect();
        let after = disk.crashed(|_, durable, _| durable.to_vec());
        after.put(name, snapshot::sealed(&older, &parts));
        let migrated = on(&after).unwrap();
        assert_eq!(dump(&migrated), dump(&store), "format {version}");
        assert_eq!(migrated.leases().len(), usize::from(version > 1));
    }
}

#[test]
fn a_block_that_no_longer_unpacks_is_refused_though_its_checksum_is_right() {
    let (disk, store) = one_segment();
    history(&store);
    store.snapshot().unwrap();
    let names = disk.list().unwrap();
    let name = names
        .iter()
        .find(|name| name.starts_with("snapshot-"))
        .unwrap();
    let (header, blocks) = snapshot::blocks(&disk.read(name).unwrap());
    let cut: Vec<_> = blocks
        .iter()
        .map(|block| {
            let end = block.bytes.len() - usize::from(block.is_packed);
            let number = if block.is_packed { 3 } else { block.number };
            (number, &block.bytes[..end])
        })
        .collect();
    let after = disk.crashed(|_, durable, _| durable.to_vec());
    after.put(name, snapshot::sealed(&header, &cut));
    let refused = on(&after).unwrap_err().to_string();
    assert!(refused.contains("a block does not unpack"), "{refused}");
}

#[test]
fn what_packing_saves_is_room_for_more() {
    let (disk, store) = one_segment();
    let mut value = br#"{"words":""#.to_vec();
    value.resize(1000, b'x');
    value.extend_from_slice(b"\"}");
    let mut written = 0;
    for number in 0..20 {
        let key = format!("/words/{number}");
        let op = Op {
            value: Some(&value),
            splice_at: None,
            ..put(&key, Some(0), on_node(""))
        };
        store.commit(vec![op]).unwrap();
        written += value.len();
        publish(&store);
    }
    let names = disk.list().unwrap();
    let segments = names.iter().filter(|name| name.starts_with("log-")).count();
    assert_eq!(segments, 1, "{names:?}");
    assert!(written > 4 * disk.read(FIRST).unwrap().len());
    let stats = store.stats();
    assert!(stats["log_plain_bytes"] as usize > written);
    let again = on(&disk.crashed(|_, durable, _| durable.to_vec())).unwrap();
    assert_eq!(dump(&again), dump(&store));
    assert_eq!(again.stats()["log_plain_bytes"], stats["log_plain_bytes"]);
}
