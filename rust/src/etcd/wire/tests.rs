//! Messages against bytes that etcd's own encoder would write.

use bytes::Bytes;
use prost::Message;

use super::*;

#[test]
fn a_key_value_has_etcds_field_numbers() {
    let kv = KeyValue {
        key: Bytes::from_static(b"k"),
        create_revision: 2,
        mod_revision: 3,
        version: 2,
        value: Bytes::from_static(b"v"),
        lease: 7,
    };
    let wire = b"\x0a\x01k\x10\x02\x18\x03\x20\x02\x2a\x01v\x30\x07";
    assert_eq!(kv.encode_to_vec(), wire);
    assert_eq!(KeyValue::decode(&wire[..]).unwrap(), kv);
}

#[test]
fn a_creating_transaction_reads_as_kubernetes_sends_it() {
    // If(MOD("k") == 0) Then(Put("k", "v")): an equal comparison and its zero are left out on the wire, the member of the union is not.
    let wire = b"\x0a\x07\x10\x02\x1a\x01k\x30\x00\x12\x08\x12\x06\x0a\x01k\x12\x01v";
    let txn = TxnRequest::decode(&wire[..]).unwrap();
    let compare = &txn.compare[0];
    assert_eq!(compare.result(), CompareResult::Equal);
    assert_eq!(compare.target(), CompareTarget::Mod);
    assert_eq!(
        compare.target_union,
        Some(compare::TargetUnion::ModRevision(0))
    );
    assert!(matches!(
        txn.success[0].request,
        Some(request_op::Request::Put(_))
    ));
    assert_eq!(txn.encode_to_vec(), wire);
}

#[test]
fn decoding_a_request_copies_no_value() {
    let put = PutRequest {
        key: Bytes::from_static(b"key"),
        value: Bytes::from(vec![b'x'; 4096]),
        ..PutRequest::default()
    };
    let wire = Bytes::from(put.encode_to_vec());
    let decoded = PutRequest::decode(wire.clone()).unwrap();
    let start = wire.as_ptr() as usize;
    assert!((start..start + wire.len()).contains(&(decoded.value.as_ptr() as usize)));
}

#[test]
fn unknown_fields_are_skipped() {
    // Field 200 of a newer client.
    let wire = b"\xc2\x0c\x03abc\x0a\x01k";
    assert_eq!(RangeRequest::decode(&wire[..]).unwrap().key, "k");
}
