use axum::Router;
use axum::body::Body;
use axum::middleware::from_fn_with_state;
use axum::routing::any;
use tower::ServiceExt;

use super::*;

fn app(config: &str) -> Router {
    let config: WebConfig = serde_saphyr::from_str(config).unwrap();
    let gate = Arc::new(Gate::new(Access::build(&config).unwrap()));
    Router::new().fallback(any(|| async { "in" })).layer(from_fn_with_state(gate, guard))
}

async fn status(app: &Router, method: &str, path: &str, host: &str, auth: Option<&str>, from: &str) -> u16 {
    let mut request = Request::builder().method(method).uri(path).header("host", host);
    if let Some(auth) = auth {
        request = request.header("authorization", auth);
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo::<SocketAddr>(format!("{from}:1").parse().unwrap()));
    app.clone().oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn each_route_for_each_role() {
    let app = app("bearer_tokens: [{token: r, role: read}, {token: w, role: write}, {token: o, role: operate}]");
    let table = [
        ("GET", "/-/healthy", [200, 200, 200, 200]),
        ("GET", "/-/ready", [200, 200, 200, 200]),
        ("GET", "/", [401, 200, 200, 200]),
        ("GET", "/metrics", [401, 200, 200, 200]),
        ("POST", "/api/v1/sql", [401, 200, 200, 200]),
        ("POST", "/api/v1/write", [401, 403, 200, 200]),
        ("POST", "/v1/metrics", [401, 403, 200, 200]),
        ("POST", "/-/reload", [401, 403, 403, 200]),
        ("POST", "/api/v2/silences", [401, 403, 403, 200]),
        ("DELETE", "/api/v2/silence/1", [401, 403, 403, 200]),
    ];
    for (method, path, expected) in table {
        for (token, expected) in [None, Some("Bearer r"), Some("bearer w"), Some("Bearer o")].into_iter().zip(expected)
        {
            let got = status(&app, method, path, "localhost:9797", token, "127.0.0.1").await;
            assert_eq!(got, expected, "{method} {path} {token:?}");
        }
    }
}

#[tokio::test]
async fn users_by_bcrypt_and_a_limit_on_guessing() {
    let hash = bcrypt::hash("right", 4).unwrap();
    let app = app(&format!("basic_auth_users: {{ann: \"{hash}\"}}"));
    let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    for _ in 0..2 {
        assert_eq!(status(&app, "GET", "/", "localhost", Some(&basic("ann:right")), "10.0.0.1").await, 200);
    }
    for wrong in ["ann:wrong", "bob:right", "ann", "", "ann:right "] {
        assert_eq!(status(&app, "GET", "/", "localhost", Some(&basic(wrong)), "10.0.0.2").await, 401, "{wrong}");
    }
    assert_eq!(status(&app, "GET", "/", "localhost", Some(&basic("ann:else")), "10.0.0.2").await, 429);
    assert_eq!(status(&app, "GET", "/", "localhost", Some(&basic("ann:right")), "10.0.0.1").await, 200);
    assert_eq!(status(&app, "GET", "/-/healthy", "localhost", None, "10.0.0.2").await, 200);
}

#[tokio::test]
async fn only_names_that_are_ours() {
    let app = app("hosts: [mon.example]\nexternal_url: https://page.example/x");
    for (host, expected) in [
        ("localhost:9797", 200),
        ("127.0.0.1:9797", 200),
        ("[::1]:9797", 200),
        ("192.168.1.5", 200),
        ("MON.example:80", 200),
        ("page.example", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:9797", 421),
        ("localhost.evil.example", 421),
        ("", 421),
    ] {
        assert_eq!(status(&app, "GET", "/", host, None, "127.0.0.1").await, expected, "{host}");
    }
}

#[tokio::test]
async fn pages_of_other_sites_may_not_post() {
    let app = app("{}");
    let post = |name: &'static str, value: &'static str| {
        let app = app.clone();
        async move {
            let request = Request::builder().method("POST").uri("/api/v1/sql").header("host", "localhost:9797");
            let mut request = request.header(name, value).body(Body::empty()).unwrap();
            request.extensions_mut().insert(ConnectInfo::<SocketAddr>("127.0.0.1:1".parse().unwrap()));
            app.oneshot(request).await.unwrap().status().as_u16()
        }
    };
    for (name, value, expected) in [
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "same-origin", 200),
        ("sec-fetch-site", "none", 200),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "http://localhost:9797", 200),
        ("user-agent", "a program", 200),
    ] {
        assert_eq!(post(name, value).await, expected, "{name}: {value}");
    }
}

#[tokio::test]
async fn guesses_of_others_behind_the_same_address_do_not_lock_out_who_is_known() {
    let hash = bcrypt::hash("right", 4).unwrap();
    let app = app(&format!("{{basic_auth_users: {{ann: \"{hash}\"}}, bearer_tokens: [{{token: t, role: read}}]}}"));
    let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let get = |auth: String| {
        let app = app.clone();
        async move { status(&app, "GET", "/", "localhost", Some(&auth), "10.0.0.1").await }
    };
    assert_eq!(get(basic("ann:right")).await, 200);
    for _ in 0..6 {
        get(basic("ann:wrong")).await;
    }
    assert_eq!(get(basic("ann:wrong")).await, 429);
    assert_eq!(get(basic("ann:right")).await, 200);
    assert_eq!(get("Bearer t".into()).await, 200);
}
