//! One request: rewrite its head, hand it to the application, pass the answer back as it comes. A read that the store could answer only
//! asks the application whether it may, and goes there with all its work when that did not help. What the application takes in memory
//! goes through the inbox; upgrades, and bodies that are long or slow, go over its socket.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;

use super::body::{Reply, Streamed};
use super::gather::Outgoing;
use super::headers;
use super::listen::Server;
use super::pool::{Lease, Pool};
use super::reads::{ASK, GRANT};
use super::stats::{Gauge, Stats, add};
use super::status;

/// What is known about a connection's client, worked out once per connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// What a client with a certificate is known as.
    pub(super) identity: Option<Arc<[u8]>>,
    /// Base64 of the verified leaf certificate.
    pub(super) certificate: Option<HeaderValue>,
}

/// Answer one request. Never fails: what goes wrong becomes a Status. When the client leaves, the future is dropped, and with it
/// the lease, which cuts the connection to the application.
pub(super) async fn forward(
    mut request: Request<Incoming>,
    peer: Arc<Peer>,
    server: Arc<Server>,
) -> Response<Reply> {
    let stats = &server.stats;
    add(&stats.requests_total);
    let upgrade = if request.version() == Version::HTTP_11 {
        headers::upgrade(request.headers())
    } else {
        None
    };
    let read = server
        .reads
        .as_deref()
        .filter(|_| upgrade.is_none() && request.body().is_end_stream())
        .and_then(|reads| Some((reads, reads.pending(&request, &peer)?)));
    if let Some((reads, pending)) = &read
        && let Some(response) = reads.answer(pending, &peer, request.headers())
    {
        return response;
    }
    let active = Gauge::up(stats, |stats| &stats.requests_active);
    let Some(target) = request
        .uri()
        .path_and_query()
        .cloned()
        .filter(|_| request.method() != Method::CONNECT)
    else {
        return status::bad_request("the request names no path");
    };
    let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    let authority = head
        .uri
        .authority()
        .map(|authority| authority.as_str().to_owned());
    headers::to_upstream(
        &mut head.headers,
        authority.as_deref(),
        peer.address,
        peer.certificate.as_ref(),
        upgrade,
    );
    head.uri = Uri::from(target);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    if let Some((reads, pending)) = read
        && !reads.is_granted(&pending)
    {
        let mut asking = head.clone();
        asking.headers.insert(ASK, HeaderValue::from_static("1"));
        let gauge = Gauge::up(stats, |stats| &stats.requests_active);
        let response = pass(asking, Outgoing::default(), None, gauge, &server).await;
        let Some(grant) = response.headers().get(GRANT) else {
            return own_removed(response);
        };
        reads.learn(&pending, grant);
        if let Some(response) = reads.answer(&pending, &peer, &head.headers) {
            return response;
        }
    }
    own_removed(pass(head, Outgoing::new(body), client_side, active, &server).await)
}

/// Hand a request over, in memory if that is possible, and return the answer as it came.
async fn pass(
    head: Parts,
    mut body: Outgoing,
    client_side: Option<OnUpgrade>,
    active: Gauge,
    server: &Server,
) -> Response<Reply> {
    let (pool, stats) = (&server.pool, &server.stats);
    if client_side.is_none() && server.inbox.is_attached() && body.gather().await {
        add(&stats.handed_over);
        let answered = server.inbox.ask(head, body.into_bytes(), active).await;
        return answered.unwrap_or_else(|| {
            add(&stats.upstream_failures);
            status::unavailable("it gave no answer", false)
        });
    }
    let request = Request::from_parts(head, body);
    match send(request, client_side.is_some(), pool, stats).await {
        Ok((response, lease)) => answer(response, lease, client_side, active, stats),
        Err(failure) => {
            add(&stats.upstream_failures);
            status::unavailable(&failure.why, failure.retriable)
        }
    }
}

fn own_removed(mut response: Response<Reply>) -> Response<Reply> {
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    headers::to_client(response.headers_mut(), switching);
    response
}

struct Failure {
    why: String,
    /// Nothing reached the application.
    retriable: bool,
}

/// Send on a kept connection, or on a new one. A kept connection may turn out to be closed; then the request goes out once more,
/// if none of it was sent, or if it is idempotent and has no body.
async fn send(
    request: Request<Outgoing>,
    fresh: bool,
    pool: &Arc<Pool>,
    stats: &Stats,
) -> Result<(Response<Incoming>, Lease), Failure> {
    let mut request = request;
    if !fresh
        && let Some(mut lease) = pool.reuse()
        && let Some(sender) = lease.sender()
    {
        let again = repeated(&request);
        match sender.try_send_request(request).await {
            Ok(response) => return Ok((response, lease)),
            Err(mut error) => match error.take_message().or(again) {
                Some(unsent) => request = unsent,
                None => {
                    return Err(Failure {
                        why: error.into_error().to_string(),
                        retriable: false,
                    });
                }
            },
        }
        add(&stats.upstream_retries);
    }
    let mut lease = pool.connect().await.map_err(|error| Failure {
        why: error.to_string(),
        retriable: true,
    })?;
    let Some(sender) = lease.sender() else {
        return Err(Failure {
            why: "no connection".to_owned(),
            retriable: true,
        });
    };
    match sender.try_send_request(request).await {
        Ok(response) => Ok((response, lease)),
        Err(mut error) => {
            let retriable = error.take_message().is_some();
            Err(Failure {
                why: error.into_error().to_string(),
                retriable,
            })
        }
    }
}

/// A second copy of a request that may be sent twice.
fn repeated(request: &Request<Outgoing>) -> Option<Request<Outgoing>> {
    if !request.body().is_end_stream() || !request.method().is_idempotent() {
        return None;
    }
    let mut copy = Request::new(Outgoing::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

fn answer(
    mut response: Response<Incoming>,
    lease: Lease,
    client_side: Option<OnUpgrade>,
    active: Gauge,
    stats: &Arc<Stats>,
) -> Response<Reply> {
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let server_side = switching.then(|| hyper::upgrade::on(&mut response));
    let (mut head, body) = response.into_parts();
    head.version = Version::HTTP_11;
    match (client_side, server_side) {
        (Some(client_side), Some(server_side)) => {
            let gauge = Gauge::up(stats, |stats| &stats.upgrades_active);
            tokio::spawn(pipe(client_side, server_side, lease, gauge));
            Response::from_parts(head, Reply::Own(http_body_util::Full::default()))
        }
        _ => Response::from_parts(head, Reply::Upstream(Streamed::new(body, lease, active))),
    }
}

/// Carry bytes both ways until both sides have ended, or one has failed.
async fn pipe(client_side: OnUpgrade, server_side: OnUpgrade, lease: Lease, _gauge: Gauge) {
    let Ok((client, server)) = tokio::try_join!(client_side, server_side) else {
        return;
    };
    lease.detach();
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    // An end by error is an end: both sockets close when they are dropped here.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
