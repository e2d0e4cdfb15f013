//! An API server of a few lines, for tests: a function from request to answer, and a record of what was asked.

use std::sync::{Arc, Mutex};

use axum::http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::rbac;

/// What was asked, as `METHOD path`, oldest first.
pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

/// A client of a server that allows what the chart's roles allow, and answers each `(METHOD path, body)` by `answer`. Needs a runtime.
pub(crate) fn api<F>(mut answer: F) -> (Client, Asked)
where
    F: FnMut(&str, Value) -> (StatusCode, Value) + Send + 'static,
{
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let asked = Asked::default();
    let record = asked.clone();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let question = format!("{} {}", request.method(), request.uri().path());
            assert!(rbac::allows(&question), "the chart's roles do not allow {question}");
            let body = request.into_body().collect_bytes().await.unwrap();
            let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
            record.lock().unwrap().push(question.clone());
            let (status, body) = answer(&question, body);
            let response = Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).unwrap();
            send.send_response(response);
        }
    });
    (Client::new(service, "default"), asked)
}

/// The Status that a real server answers an error with.
pub(crate) fn refusal(status: StatusCode) -> (StatusCode, Value) {
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": status.as_u16(),
        "reason": status.canonical_reason().unwrap_or_default().replace(' ', ""), "message": "scripted",
    });
    (status, body)
}
