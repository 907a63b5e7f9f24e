//! Decides on each request: known host name, known user or token, role that suffices.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::config::{Secret, WebConfig};

/// What a token or user may do; each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything.
    Read,
    /// Also push samples.
    Write,
    /// Also reload, silence and acknowledge.
    Operate,
}

/// Failed attempts of one address within [`FAILURE_WINDOW`] after which it has to wait.
const FAILURES_MAX: u32 = 5;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// The hash of a password that nobody has, at the usual cost.
const NOBODY: &str = "$2b$10$7EqJtq98hPqEX7fNZaFWoOhi5WkV8R0pI5P4bV4oQ0n3GZkq0gk6y";
/// Addresses whose failures are remembered at once.
const FAILURE_ADDRESSES_MAX: usize = 10_000;

/// The access rules of a listener.
#[derive(Debug)]
pub struct Access {
    users: HashMap<String, Secret>,
    tokens: Vec<(Secret, Role)>,
    hosts: Vec<String>,
    /// The password that last passed bcrypt, by user: comparing with it is cheap, and only a right one gets in here.
    passed: Mutex<HashMap<String, Secret>>,
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
    checking: tokio::sync::Mutex<()>,
}

/// The rules in force; a reload replaces them.
#[derive(Debug)]
pub struct Gate(RwLock<Arc<Access>>);

impl Gate {
    /// Puts rules in force.
    pub fn new(access: Access) -> Self {
        Self(RwLock::new(Arc::new(access)))
    }

    /// Puts other rules in force; requests that are under way keep the old ones.
    pub fn replace(&self, access: Access) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
    }

    fn current(&self) -> Arc<Access> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

enum Verdict {
    Allowed(Role),
    Missing,
    Wrong,
}

impl Access {
    /// Builds the rules, reading token files.
    ///
    /// # Errors
    /// A sentence naming the token file that cannot be read.
    pub fn build(config: &WebConfig) -> Result<Self, String> {
        let tokens = config.bearer_tokens.iter().map(|t| t.secret().map(|s| (s, t.role))).collect::<Result<_, _>>()?;
        let mut hosts: Vec<String> = config.hosts.iter().map(|h| h.to_ascii_lowercase()).collect();
        hosts.push("localhost".into());
        if let Ok(own) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
            hosts.push(own.trim().to_ascii_lowercase());
        }
        if let Some(uri) = config.external_url.as_ref().and_then(|u| u.parse::<Uri>().ok()) {
            hosts.extend(uri.host().map(str::to_ascii_lowercase));
        }
        Ok(Self {
            users: config.basic_auth_users.clone().into_iter().collect(),
            tokens,
            hosts,
            passed: Mutex::default(),
            failures: Mutex::default(),
            checking: tokio::sync::Mutex::default(),
        })
    }

    fn is_protected(&self) -> bool {
        !self.users.is_empty() || !self.tokens.is_empty()
    }

    /// A name that anybody can point at this address must be in the list; an address cannot be rebound.
    fn knows_host(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok() || self.hosts.iter().any(|h| h.eq_ignore_ascii_case(name))
    }

    /// Says, without the cost of bcrypt, whether the request carries what was right before, so that guesses of others
    /// behind the same address do not lock it out.
    fn recognises(&self, headers: &HeaderMap) -> bool {
        let Some((scheme, rest)) = credentials(headers) else { return false };
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.role_of(rest).is_some();
        }
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        user_and_password(rest).is_some_and(|(user, password)| {
            passed.get(&user).is_some_and(|k| bool::from(k.0.as_bytes().ct_eq(password.as_bytes())))
        })
    }

    fn role_of(&self, token: &str) -> Option<Role> {
        let equal = |t: &Secret| bool::from(t.0.as_bytes().ct_eq(token.trim().as_bytes()));
        self.tokens.iter().find(|(t, _)| equal(t)).map(|(_, role)| *role)
    }

    async fn judge(&self, headers: &HeaderMap) -> Verdict {
        let Some((scheme, rest)) = credentials(headers) else { return Verdict::Missing };
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.role_of(rest).map_or(Verdict::Wrong, Verdict::Allowed);
        }
        match user_and_password(rest) {
            Some((user, password)) if scheme.eq_ignore_ascii_case("basic") => self.judge_user(&user, &password).await,
            _ => Verdict::Wrong,
        }
    }

    async fn judge_user(&self, user: &str, password: &str) -> Verdict {
        // An unknown user costs as much time as a wrong password, so that names cannot be found out.
        let (hash, is_user) = match self.users.get(user) {
            Some(hash) => (hash.clone(), true),
            None => (Secret(NOBODY.into()), false),
        };
        let known = self.passed.lock().unwrap_or_else(PoisonError::into_inner).get(user).cloned();
        if known.is_some_and(|k| bool::from(k.0.as_bytes().ct_eq(password.as_bytes()))) {
            return Verdict::Allowed(Role::Operate);
        }
        let given = Secret(password.to_owned());
        // One at a time: guesses wait for each other instead of taking the threads that others need.
        let _turn = self.checking.lock().await;
        // bcrypt is slow by design: not on the threads that serve everybody else.
        let checked = tokio::task::spawn_blocking(move || {
            bcrypt::verify(&given.0, &hash.0).is_ok_and(|right| right).then_some(given)
        });
        match checked.await {
            Ok(Some(right)) if is_user => {
                self.passed.lock().unwrap_or_else(PoisonError::into_inner).insert(user.to_owned(), right);
                Verdict::Allowed(Role::Operate)
            }
            _ => Verdict::Wrong,
        }
    }

    fn must_wait(&self, from: IpAddr) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(&from).is_some_and(|(n, since)| *n >= FAILURES_MAX && since.elapsed() < FAILURE_WINDOW)
    }

    fn failed(&self, from: IpAddr) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= FAILURE_ADDRESSES_MAX {
            failures.clear();
        }
        let entry = failures.entry(from).or_insert((0, Instant::now()));
        if entry.1.elapsed() >= FAILURE_WINDOW {
            *entry = (0, Instant::now());
        }
        entry.0 += 1;
    }
}

fn credentials(headers: &HeaderMap) -> Option<(&str, &str)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    Some(value.split_once(' ').unwrap_or((value, "")))
}

fn user_and_password(encoded: &str) -> Option<(String, String)> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// Returns the role that a request needs; `None` when anybody may make it.
fn needed(method: &Method, path: &str) -> Option<Role> {
    match (method, path) {
        (_, "/-/healthy" | "/-/ready") => None,
        (_, "/api/v1/write" | "/v1/metrics") => Some(Role::Write),
        (_, "/-/reload") => Some(Role::Operate),
        (&Method::GET | &Method::HEAD, _) | (&Method::POST, "/api/v1/sql") => Some(Role::Read),
        _ => Some(Role::Operate),
    }
}

/// Says whether a browser sent the request for a page of another site. Programs send neither header.
fn is_cross_site(headers: &HeaderMap, host: Option<&str>) -> bool {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let fetched = text("sec-fetch-site").is_some_and(|s| s != "same-origin" && s != "none");
    let origin = text("origin").is_some_and(|o| o.split_once("://").map(|(_, rest)| rest) != host);
    fetched || origin
}

/// Middleware that lets a request pass or answers 401, 403, 421 or 429.
pub async fn guard(
    State(gate): State<Arc<Gate>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let access = gate.current();
    let host = request
        .uri()
        .host()
        .map(str::to_owned)
        .or_else(|| request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned));
    if !host.as_deref().is_some_and(|h| access.knows_host(h)) {
        let text = "unknown host name: add it to web.hosts in the configuration\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) && is_cross_site(request.headers(), host.as_deref()) {
        return (StatusCode::FORBIDDEN, "a page of another site may not do that\n").into_response();
    }
    let need = needed(request.method(), request.uri().path());
    if let (Some(need), true) = (need, access.is_protected()) {
        let known = access.recognises(request.headers());
        if !known && access.must_wait(from.ip()) {
            let wait = [(header::RETRY_AFTER, HeaderValue::from_static("60"))];
            return (StatusCode::TOO_MANY_REQUESTS, wait, "too many failed attempts\n").into_response();
        }
        match access.judge(request.headers()).await {
            Verdict::Allowed(role) if role >= need => {}
            Verdict::Allowed(_) => {
                return (StatusCode::FORBIDDEN, "this token's role does not allow that\n").into_response();
            }
            verdict => {
                if matches!(verdict, Verdict::Wrong) {
                    access.failed(from.ip());
                }
                let ask = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"forewarn\", Bearer"))];
                return (StatusCode::UNAUTHORIZED, ask, "who are you?\n").into_response();
            }
        }
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

#[cfg(test)]
mod tests;
