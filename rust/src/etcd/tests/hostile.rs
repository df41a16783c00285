//! What a client may send by mistake or on purpose: no bytes may stop the server, and other clients notice nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use proptest::prelude::*;
use prost::Message;

use super::super::calls;
use super::super::framing::Messages;
use super::super::method::Method;
use super::super::metrics::Metrics;
use super::super::server;
use super::*;

/// The front without a socket.
fn inside() -> Arc<server::Server> {
    let store = Arc::new(Store::in_memory());
    let (_, stopping) = crate::socket::Stopping::never();
    let options = Options {
        name: "test".into(),
        client_urls: Vec::new(),
        progress_every: Duration::from_secs(600),
    };
    let metrics = Arc::new(Metrics::default());
    Arc::new(server::Server::new(store, options, metrics, stopping))
}

/// One well-made message of every kind that is decoded.
fn samples() -> Vec<(Method, Vec<u8>)> {
    let nested = TxnRequest {
        compare: vec![Compare {
            key: bytes("k"),
            target_union: Some(compare::TargetUnion::Value(bytes("v"))),
            range_end: bytes("l"),
            ..Compare::default()
        }],
        success: vec![
            op(Request::Put(put("k", "v"))),
            op(Request::Range(range("k", "l"))),
        ],
        failure: vec![op(Request::DeleteRange(delete("k", "\0")))],
    };
    let txn = TxnRequest {
        success: vec![op(Request::Txn(nested.clone()))],
        ..nested
    };
    vec![
        (
            Method::Range,
            RangeRequest {
                limit: 3,
                revision: 1,
                ..range("k", "l")
            }
            .encode_to_vec(),
        ),
        (
            Method::Put,
            PutRequest {
                prev_kv: true,
                ..put("k", "v")
            }
            .encode_to_vec(),
        ),
        (Method::DeleteRange, delete("k", "l").encode_to_vec()),
        (Method::Txn, txn.encode_to_vec()),
        (
            Method::LeaseTimeToLive,
            LeaseTimeToLiveRequest { id: 7, keys: true }.encode_to_vec(),
        ),
        (
            Method::Alarm,
            AlarmRequest {
                action: 1,
                member_id: 9,
                alarm: 1,
            }
            .encode_to_vec(),
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutilated_message_is_answered_or_refused(
        which in 0..6_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let server = inside();
        let (method, mut wire) = samples().swap_remove(which);
        for (at, byte) in changes {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        if is_cut {
            wire.truncate(cut.index(wire.len() + 1));
        }
        // Whatever it answers: it does not panic, and the store still works.
        let _ = calls::unary(method, wire.into(), &server);
        let works = server.store().transact(|txn| txn.put(b"after", b"1", 0));
        prop_assert!(works.is_ok());
    }

    #[test]
    fn arbitrary_bytes_are_no_messages_or_some(wire in prop::collection::vec(any::<u8>(), 0..200), size in 1..50_usize) {
        let mut messages = Messages::default();
        let mut length = 0;
        'chunks: for chunk in wire.chunks(size) {
            messages.push(Bytes::copy_from_slice(chunk));
            loop {
                match messages.next() {
                    Ok(Some(message)) => length += message.len() + 5,
                    Ok(None) => break,
                    Err(_) => break 'chunks,
                }
            }
        }
        prop_assert!(length <= wire.len());
    }
}

#[test]
fn a_client_that_speaks_nonsense_harms_nobody() {
    let server = korch(Duration::from_secs(600));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let nonsense: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        preface,
        &[preface.as_slice(), &[0xff; 64]].concat(),
        // A frame of headers that refer to nothing, for stream 1.
        &[
            preface.as_slice(),
            &[0, 0, 3, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff],
        ]
        .concat(),
        &[0; 1000],
    ];
    for bytes in nonsense {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // The server answers something or nothing, and hangs up.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    runtime().block_on(async {
        let mut client = server.client().await;
        client.set("a", "1").await;
        let found = client.range(range("a", "")).await.unwrap();
        assert_eq!(found.count, 1);
    });
}

#[test]
fn a_body_without_a_message_is_refused() {
    let server = korch(Duration::from_secs(600));
    runtime().block_on(async {
        let mut client = server.client().await;
        let none = futures_util::stream::empty::<RangeRequest>();
        let refused = client
            .streaming::<_, RangeResponse>(path::RANGE, none)
            .await
            .unwrap_err();
        assert_eq!(refused.code() as i32, 13);
        client.set("a", "1").await;
    });
}
