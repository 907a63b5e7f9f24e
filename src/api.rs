//! The listener's routes. Each handler reads what other parts keep; none computes or waits for more than a query.

pub mod answer;
pub mod sql;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use forewarn_alert::{AlertView, Handle};
use forewarn_ingest::status::Board;
use forewarn_schemas::{AlertStatus, Clock, Forecast, ForecastState, Severity, TimeRange};
use forewarn_store::{SqlLimits, Store};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use crate::page::{self, AlertRow, Card, Data};
use crate::view::Views;
use crate::web::Gate;

/// Largest body of a query, in bytes.
const QUERY_BYTES_MAX: usize = 1 << 20;
/// How much history a card's picture shows at most.
const PICTURE: Duration = Duration::from_secs(24 * 3600);

/// What the handlers read.
#[derive(Debug)]
pub struct App {
    /// The history.
    pub store: Arc<Store>,
    /// The latest forecasts.
    pub views: Arc<Views>,
    /// What is watched.
    pub board: Arc<Board>,
    /// The alert router.
    pub alerts: Handle,
    /// Own health.
    pub registry: Registry,
    /// Most resources exported.
    pub max_resources: usize,
    /// Limits of each query.
    pub sql_limits: SqlLimits,
    /// A permit for each query that may run at once.
    pub queries: Arc<Semaphore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether recovery is over and every stage works.
    pub ready: Arc<AtomicBool>,
    /// Asks for the configuration to be read again.
    pub reload: mpsc::Sender<crate::run::Reload>,
}

/// Builds the routes, guarded by `gate`.
pub fn router(app: Arc<App>, gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/page.css", get(|| async { ([(header::CONTENT_TYPE, "text/css")], page::CSS) }))
        .route("/page.js", get(|| async { ([(header::CONTENT_TYPE, "text/javascript")], page::JS) }))
        .route("/metrics", get(metrics))
        .route("/federate", get(metrics))
        .route("/-/healthy", get(|| async { "forewarn is healthy.\n" }))
        .route("/-/ready", get(ready))
        .route("/-/reload", post(reload))
        .route("/api/v1/sql", post(query))
        .route("/api/v1/forecasts", get(forecasts))
        .route("/api/v1/resources", get(resources))
        .route("/api/v1/nodes", get(nodes))
        .fallback(|| async { answer::error(StatusCode::NOT_FOUND, "not_found", "no such path") })
        .layer(DefaultBodyLimit::max(QUERY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(gate, crate::web::access::guard))
        .with_state(app)
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.ready.load(Ordering::Acquire) {
        "forewarn is ready.\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "forewarn is reading its log.\n").into_response()
    }
}

async fn reload(State(app): State<Arc<App>>) -> Response {
    let (done, answer) = tokio::sync::oneshot::channel();
    let outcome = match app.reload.send(done).await {
        Ok(()) => answer.await.unwrap_or_else(|_| Err("forewarn is stopping".into())),
        Err(_) => Err("forewarn is stopping".into()),
    };
    match outcome {
        Ok(applied) => format!("{applied}\n").into_response(),
        Err(problems) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{problems}\nthe old configuration stays in force\n"))
                .into_response()
        }
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    match crate::exporter::render(&app.registry, &app.views, app.max_resources) {
        Ok(text) => ([(header::CONTENT_TYPE, crate::exporter::CONTENT_TYPE)], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

async fn query(State(app): State<Arc<App>>, headers: HeaderMap, text: String) -> Response {
    let Ok(permit) = app.queries.clone().try_acquire_owned() else {
        let mut answer = answer::error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "too many queries at once");
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return answer;
    };
    sql::answer(&app.store, &text, sql::Format::of(&headers), app.sql_limits, permit).await
}

/// Applies the filters `node`, `family`, `resource`, `object` (equal) and `state` (a list separated by commas).
fn filtered(app: &App, wanted: &HashMap<String, String>) -> Result<Vec<Arc<Forecast>>, String> {
    for key in wanted.keys() {
        if !["node", "family", "resource", "object", "state", "limit"].contains(&key.as_str()) {
            return Err(format!("unknown parameter {key:?}; known are node, family, resource, object, state, limit"));
        }
    }
    let limit = match wanted.get("limit") {
        Some(n) => n.parse().map_err(|_| format!("limit {n:?} is not a number"))?,
        None => usize::MAX,
    };
    let equal = |key: &str, value: &str| wanted.get(key).is_none_or(|w| w == value);
    let in_state = |s: ForecastState| wanted.get("state").is_none_or(|w| w.split(',').any(|w| w == s.as_str()));
    let mut all = app.views.forecasts();
    all.retain(|f| {
        equal("node", &f.key.node)
            && equal("family", &f.family)
            && equal("resource", &f.key.resource)
            && equal("object", &f.key.object)
            && in_state(f.state)
    });
    all.sort_by(|a, b| page::by_urgency(a, b));
    all.truncate(limit);
    Ok(all)
}

async fn forecasts(State(app): State<Arc<App>>, Query(wanted): Query<HashMap<String, String>>) -> Response {
    match filtered(&app, &wanted) {
        Ok(all) => answer::success(&all.iter().map(|f| with_time(f)).collect::<Vec<_>>()),
        Err(e) => answer::error(StatusCode::BAD_REQUEST, "bad_data", &e),
    }
}

/// A forecast as JSON, with its time as RFC 3339 beside the milliseconds and the moment of the median crossing.
fn with_time(f: &Forecast) -> Value {
    let mut v = serde_json::to_value(f).unwrap_or_default();
    v["time"] = f.at.rfc3339().into();
    v["predicted_at"] = f.time_to_exhaustion.p50.map(|s| f.at.plus_secs_f64(s).rfc3339()).into();
    v
}

async fn resources(State(app): State<Arc<App>>, Query(wanted): Query<HashMap<String, String>>) -> Response {
    let short = |f: &Arc<Forecast>| {
        json!({
            "node": f.key.node, "family": f.family, "resource": f.key.resource, "object": f.key.object,
            "kind": f.kind, "unit": f.unit, "used": f.used, "limit": f.limit, "used_ratio": f.used_ratio, "state": f.state,
        })
    };
    match filtered(&app, &wanted) {
        Ok(all) => answer::success(&all.iter().map(short).collect::<Vec<_>>()),
        Err(e) => answer::error(StatusCode::BAD_REQUEST, "bad_data", &e),
    }
}

async fn nodes(State(app): State<Arc<App>>) -> Response {
    let nodes: Vec<Value> = app
        .board
        .targets()
        .iter()
        .map(|t| {
            let mut v = serde_json::to_value(t).unwrap_or_default();
            v["since"] = t.since.rfc3339().into();
            v["last_poll"] = t.last_poll.map(|p| p.rfc3339()).into();
            v
        })
        .collect();
    answer::success(&nodes)
}

/// The page; the parameters are those of `/api/v1/forecasts`, as the links in notifications have them.
async fn index(State(app): State<Arc<App>>, Query(wanted): Query<HashMap<String, String>>) -> Response {
    let forecasts = match filtered(&app, &wanted) {
        Ok(forecasts) => forecasts,
        Err(e) => return (StatusCode::BAD_REQUEST, e).into_response(),
    };
    // While it stops the page goes without alerts.
    let alerts = app.alerts.alerts().await.unwrap_or_default();
    let data = tokio::task::spawn_blocking(move || collect(&app, forecasts, alerts)).await;
    match data {
        Ok(data) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CONTENT_SECURITY_POLICY, page::CSP),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (headers, page::document(&data).into_string()).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// `forecasts` are by urgency.
fn collect(app: &App, forecasts: Vec<Arc<Forecast>>, alerts: Vec<AlertView>) -> Data {
    let (mut urgent, mut quiet): (Vec<_>, Vec<_>) = forecasts.into_iter().partition(|f| page::is_urgent(f));
    quiet.sort_by(|a, b| {
        let full = |f: &Forecast| f.used_ratio.unwrap_or(-1.0);
        full(b).total_cmp(&full(a)).then_with(|| a.key.cmp(&b.key))
    });
    let cards_left_out = urgent.len().saturating_sub(page::CARDS_MAX);
    urgent.truncate(page::CARDS_MAX);
    let cards = urgent.into_iter().map(|forecast| Card { picture: picture(app, &forecast), forecast }).collect();
    let mut alerts: Vec<AlertRow> = alerts
        .into_iter()
        .filter(|a| a.alert.severity() > Severity::Info && a.status == AlertStatus::Firing)
        .map(|a| AlertRow {
            severity: a.alert.severity(),
            summary: a.alert.annotations.get("summary").cloned().unwrap_or_else(|| a.alert.labels.to_string()),
            since: a.alert.starts_at,
            sent: match a.last_notified {
                Some(at) => format!("{} to {}", at.rfc3339().get(11..19).unwrap_or_default(), a.receivers.join(", ")),
                None => "not yet".into(),
            },
        })
        .collect();
    alerts.sort_by(|a, b| b.severity.cmp(&a.severity).then(b.since.cmp(&a.since)));
    let (targets, notices) = (app.board.targets(), app.board.notices());
    let evaluated = app.views.at();
    Data { now: app.clock.now(), evaluated, cards, cards_left_out, quiet, alerts, targets, notices }
}

/// The picture shows the present segment and a fifth before it, a day at most.
fn picture(app: &App, f: &Forecast) -> Option<String> {
    let (partition, series) = app.views.source(&f.key)?;
    let earliest = f.at - PICTURE;
    let age = f.at.since(f.saw.since).max(Duration::from_secs(300));
    let start = (f.at - age - age / 5).max(earliest);
    let end = f.at + Duration::from_millis(1);
    let history = app.store.history(partition, series, TimeRange::new(start, end)).ok()?;
    page::chart::draw(f, &history)
}
