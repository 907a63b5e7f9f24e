//! Answers in Prometheus' envelope: `{status, data}` or `{status, errorType, error}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

/// Wraps `data` as a success.
pub fn success(data: &impl Serialize) -> Response {
    match serde_json::to_value(data) {
        Ok(data) => Json(json!({"status": "success", "data": data})).into_response(),
        Err(e) => error(StatusCode::INTERNAL_SERVER_ERROR, "internal", &e.to_string()),
    }
}

/// Answers an error; `kind` is one of Prometheus' error types.
pub fn error(status: StatusCode, kind: &str, message: &str) -> Response {
    (status, Json(json!({"status": "error", "errorType": kind, "error": message}))).into_response()
}
