//! Answers of the front door itself, as Kubernetes `Status` objects, so that clients understand them.

use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::body::Reply;

/// 503. `retriable`: nothing reached the application, so a client may send the request again.
pub(super) fn unavailable(why: &str, retriable: bool) -> Response<Reply> {
    let message = format!("the API server is not available: {why}");
    let mut response = status(
        StatusCode::SERVICE_UNAVAILABLE,
        "ServiceUnavailable",
        &message,
    );
    if retriable {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

pub(super) fn bad_request(message: &str) -> Response<Reply> {
    status(StatusCode::BAD_REQUEST, "BadRequest", message)
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response<Reply> {
    let body = serde_json::json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code.as_u16(),
    });
    let mut response = Response::new(Reply::Own(Full::from(body.to_string())));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
