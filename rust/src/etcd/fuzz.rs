//! Arbitrary bytes as what a client of the etcd front sends. What `fuzz/` feeds them, and tests replay: whatever arrives, a call has an
//! answer or an error, and the store below still takes a write.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::calls::{self, Reply};
use super::framing::{self, Messages};
use super::method::Method;
use super::server::{Options, Server};
use super::wire::{LeaseKeepAliveRequest, WatchRequest};
use crate::socket::Stopping;
use crate::store::Store;

/// The first byte names a method, the second how long the chunks are in which the rest arrives: the body of the call.
pub fn call(input: &[u8]) {
    let [name, size, body @ ..] = input else {
        return;
    };
    let Some((method, _)) = Method::ALL.get(usize::from(*name) % Method::ALL.len()) else {
        return;
    };
    let server = server();
    let mut messages = Messages::default();
    for chunk in body.chunks(usize::from(*size) + 1) {
        messages.push(Bytes::copy_from_slice(chunk));
        loop {
            match messages.next() {
                Ok(Some(message)) => answer(*method, message, &server),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let written = server.store().transact(|txn| txn.put(b"after", b"", 0));
    assert!(written.is_ok(), "{written:?}");
}

fn answer(method: Method, message: Bytes, server: &Arc<Server>) {
    match method {
        Method::Watch => drop(framing::decode::<WatchRequest>(message)),
        Method::LeaseKeepAlive => drop(framing::decode::<LeaseKeepAliveRequest>(message)),
        method => {
            if let Ok(Reply::Now(answer) | Reply::After(_, answer)) =
                calls::unary(method, message, server)
            {
                let mut messages = Messages::default();
                messages.push(answer);
                assert!(matches!(messages.next(), Ok(Some(_))), "an unframed answer");
            }
        }
    }
}

fn server() -> Arc<Server> {
    let store = Arc::new(Store::in_memory());
    for (key, value) in [(&b"a"[..], &b"1"[..]), (b"b", b"2"), (b"a", b"3")] {
        let put = store.transact(|txn| txn.put(key, value, 0));
        assert!(put.is_ok(), "{put:?}");
    }
    store.publish(u64::MAX);
    let options = Options {
        name: "fuzz".into(),
        client_urls: Vec::new(),
        progress_every: Duration::from_secs(600),
    };
    let (_, stopping) = Stopping::never();
    Arc::new(Server::new(store, options, Arc::default(), stopping))
}
