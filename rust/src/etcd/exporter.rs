//! `/metrics` for Prometheus and `/health` for probes, over plain HTTP on an address of their own, as etcd has them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::metrics::MEDIA_TYPE;
use super::server::Server;

const HEAD_FOR: Duration = Duration::from_secs(30);

/// Answer the requests of one connection.
pub(super) async fn serve(stream: TcpStream, server: Arc<Server>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, &server);
        async move { Ok::<_, Infallible>(answer) }
    });
    // How a scrape ended is the scraper's business.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_FOR)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(request: &Request<Incoming>, server: &Server) -> Response<Full<Bytes>> {
    let (status, media, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            let text = server.metrics().render(server.store());
            (StatusCode::OK, MEDIA_TYPE, text)
        }
        (&Method::GET, "/health") => health(server),
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "text/plain", "not found\n".into()),
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "method not allowed\n".into(),
        ),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let media = http::HeaderValue::from_static(media);
    answer.headers_mut().insert(CONTENT_TYPE, media);
    answer
}

fn health(server: &Server) -> (StatusCode, &'static str, String) {
    let reason = match server.failure() {
        Some(_) => "STORE FAILED",
        None if server.is_full() => "ALARM NOSPACE",
        None => {
            let well = r#"{"health":"true","reason":""}"#;
            return (StatusCode::OK, "application/json", well.into());
        }
    };
    let ill = format!(r#"{{"health":"false","reason":"{reason}"}}"#);
    (StatusCode::SERVICE_UNAVAILABLE, "application/json", ill)
}
