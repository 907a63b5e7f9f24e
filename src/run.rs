//! `forewarn run`: start in order, say what is watched, serve, reload, stop in order.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum_server::tls_rustls::RustlsConfig;
use forewarn_ingest::clock::SystemClock;
use forewarn_ingest::edge::{Edge, SubmitError};
use forewarn_ingest::status::Board;
use forewarn_ingest::{beam, host};
use forewarn_schemas::{Clock, Timestamp};
use forewarn_store::{SqlLimits, Store};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use prometheus::{IntGauge, Registry};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::api::{self, App};
use crate::banner;
use crate::config::Config;
use crate::config::yaml::Problem;
use crate::data_dir::DataDir;
use crate::pipeline::{Pipeline, guarded};
use crate::web::{Access, Gate};

/// A request to read the configuration again; the answer is what was applied, or what is wrong.
pub type Reload = oneshot::Sender<Result<String, String>>;

/// How long the collectors and open connections may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// SQL queries that may run at once; each may take `query.memory_max`.
const QUERIES_MAX: usize = 4;
/// How long a peer may take to send the headers of a request.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT. `source` is the configuration file, read again on SIGHUP and `/-/reload`; `with_flags`
/// applies the command line to a configuration.
///
/// # Errors
/// What could not be started, and what to do about it.
pub fn run(
    config: Config,
    source: Option<PathBuf>,
    with_flags: impl Fn(Config) -> Result<Config, Vec<Problem>>,
) -> anyhow::Result<()> {
    // The commonest errors, a port or a directory in use, come first and change nothing.
    let listener = bind(config.listen)?;
    let data = DataDir::open(&config.data)?;
    let access = Access::build(&config.web).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("forewarn")
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let result = runtime.block_on(serve(config, data, listener, access, source, with_flags));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(listen).map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "{listen} is in use: stop what listens there (another forewarn?) or choose another with --listen"
            )
        }
        std::io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!("{listen} is not an address of this machine: choose another with --listen")
        }
        _ => anyhow::anyhow!("cannot listen on {listen}: {e}"),
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(
    config: Config,
    data: DataDir,
    listener: TcpListener,
    access: Access,
    source: Option<PathBuf>,
    with_flags: impl Fn(Config) -> Result<Config, Vec<Problem>>,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let tls = match &config.web.tls_server_config {
        Some(tls) => {
            // The process has one crypto provider; a second installation attempt would change nothing.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let loaded = RustlsConfig::from_pem_file(&tls.cert_file, &tls.key_file).await;
            Some(loaded.with_context(|| format!("TLS: {} with {}", tls.cert_file.display(), tls.key_file.display()))?)
        }
        None => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = config.web.external_url.clone().unwrap_or_else(|| format!("{scheme}://{}", banner::reachable(address)));
    let url = url.trim_end_matches('/').to_owned();

    let registry = Registry::new();
    let system_clock = Arc::new(SystemClock::new());
    let clock: Arc<dyn Clock> = system_clock.clone();
    let health = Health::register(&registry, clock.now())?;
    let (collect, fatal) = (CancellationToken::new(), CancellationToken::new());
    let board = Arc::new(Board::default());
    let pipeline = Pipeline::open(&config, data, system_clock.clone(), &registry, &url, &board, fatal.clone()).await?;
    banner::recovered(&pipeline.recovery, &board);

    let ready = Arc::new(AtomicBool::new(false));
    let (reload, mut reloads) = mpsc::channel::<Reload>(1);
    let app = Arc::new(App {
        store: pipeline.store.clone(),
        views: pipeline.views.clone(),
        board: board.clone(),
        alerts: pipeline.alerts.clone(),
        registry: registry.clone(),
        max_resources: config.exporter.max_resources,
        sql_limits: SqlLimits {
            memory: config.query.memory_max,
            time: config.query.timeout,
            rows: config.query.rows_max,
        },
        queries: Arc::new(Semaphore::new(QUERIES_MAX)),
        clock: clock.clone(),
        ready: ready.clone(),
        reload,
    });
    let handle = axum_server::Handle::new();
    let gate = Arc::new(Gate::new(access));
    let routes = api::router(app, gate.clone());
    let stop_listener = CancellationToken::new();
    let server = spawn_server(listener, tls.clone(), routes, handle.clone(), (stop_listener.clone(), fatal.clone()))?;

    let tasks = TaskTracker::new();
    let intake = pipeline.edge.clone();
    let spawn = |part: BoxFuture<'static, ()>| tasks.spawn(guarded(part, collect.clone(), fatal.clone()));
    if config.collectors.host.enabled {
        let settings = config.collectors.host.clone();
        spawn(host::run(settings, intake.clone(), clock.clone(), board.clone(), collect.clone()).boxed());
    }
    if config.collectors.beam.enabled {
        let settings = config.collectors.beam.clone();
        spawn(beam::run(settings, intake.clone(), clock.clone(), board.clone(), collect.clone()).boxed());
    }
    spawn(tick(intake, config.forecast.step, board.clone(), collect.clone()).boxed());
    spawn(keep_house(pipeline.store.clone(), system_clock, health, board.clone(), collect.clone()).boxed());
    spawn(banner::greet(config.clone(), url.clone(), board.clone(), collect.clone()).boxed());
    let reloader = Reloader { source, tls, gate, running: config };

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let caught_up = pipeline.caught_up();
    tokio::pin!(caught_up);
    let mut is_ready = false;
    let outcome = loop {
        tokio::select! {
            () = &mut caught_up, if !is_ready => {
                is_ready = true;
                ready.store(true, Ordering::Release);
            }
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            () = fatal.cancelled() => break Err(anyhow::anyhow!("a stage failed; the lines above say why")),
            _ = hangup.recv() => match reloader.reload(&with_flags, &pipeline).await {
                Ok(applied) => info!("{applied}"),
                Err(problems) => error!(%problems, "configuration not reloaded; the old one stays in force"),
            },
            Some(done) = reloads.recv() => {
                // The client may have left meanwhile.
                let _ = done.send(reloader.reload(&with_flags, &pipeline).await);
            }
        }
    };
    info!("stopping; a second signal ends it at once");
    ready.store(false, Ordering::Release);
    let stop = async {
        collect.cancel();
        tasks.close();
        if tokio::time::timeout(STOP_DEADLINE, tasks.wait()).await.is_err() {
            warn!(tasks = tasks.len(), "collectors did not stop in time");
        }
        pipeline.close().await;
        stop_listener.cancel();
        handle.graceful_shutdown(Some(Duration::from_secs(1)));
        if tokio::time::timeout(STOP_DEADLINE, server).await.is_err() {
            warn!("listener did not stop in time");
        }
    };
    tokio::select! {
        () = stop => info!("stopped"),
        _ = terminate.recv() => bail!("ended by a second signal; the log has what was left undone"),
        _ = interrupt.recv() => bail!("ended by a second signal; the log has what was left undone"),
    }
    outcome
}

fn spawn_server(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    routes: axum::Router,
    handle: axum_server::Handle<SocketAddr>,
    (stop, fatal): (CancellationToken, CancellationToken),
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    // A peer that is slow to say what it wants must not hold a connection for ever.
    let serving: BoxFuture<'static, std::io::Result<()>> = match tls {
        Some(tls) => {
            let mut server = axum_server::from_tcp_rustls(listener, tls)?;
            server.http_builder().http1().header_read_timeout(HEADER_DEADLINE);
            server.first_request_timeout(HEADER_DEADLINE).handle(handle).serve(service).boxed()
        }
        None => {
            let mut server = axum_server::from_tcp(listener)?;
            server.http_builder().http1().header_read_timeout(HEADER_DEADLINE);
            server.first_request_timeout(HEADER_DEADLINE).handle(handle).serve(service).boxed()
        }
    };
    let serving = async move {
        if let Err(e) = serving.await {
            error!(error = %e, "listener failed");
        }
    };
    Ok(tokio::spawn(guarded(serving, stop, fatal)))
}

/// What a new reading of the configuration file can change while running.
struct Reloader {
    source: Option<PathBuf>,
    tls: Option<RustlsConfig>,
    gate: Arc<Gate>,
    running: Config,
}

impl Reloader {
    /// Reads the file again and applies routes, receivers, users, tokens, host names and certificates; says what else
    /// differs and needs a restart. Everything that can fail comes before anything is changed.
    async fn reload(
        &self,
        with_flags: &impl Fn(Config) -> Result<Config, Vec<Problem>>,
        pipeline: &Pipeline,
    ) -> Result<String, String> {
        let Some(path) = &self.source else { return Err("forewarn was started without a configuration file".into()) };
        let lines = |problems: Vec<Problem>| {
            problems.iter().map(|p| format!("{}:{p}", path.display())).collect::<Vec<_>>().join("\n")
        };
        let config = Config::read(path).and_then(with_flags).map_err(lines)?;
        let access = Access::build(&config.web)?;
        if let (Some(running), Some(files)) = (&self.tls, &config.web.tls_server_config) {
            running.reload_from_pem_file(&files.cert_file, &files.key_file).await.map_err(|e| format!("TLS: {e}"))?;
        }
        pipeline.reroute(&config.alerting()).await.map_err(|e| format!("{e:#}"))?;
        self.gate.replace(access);
        let differs = config.differs_from(&self.running);
        Ok(match differs.as_slice() {
            [] => "configuration reloaded".into(),
            some => format!("configuration reloaded; a restart is needed for: {}", some.join(", ")),
        })
    }
}

/// Appends a tick where nothing was collected, so that time goes on behind the log. Ends when the log is closed, which is
/// the end of the process.
async fn tick(edge: Arc<Edge>, step: Duration, board: Arc<Board>, stop: CancellationToken) {
    const STANDS_STILL: &str = "samples cannot be written, so the forecasts stand still";
    let mut interval = tokio::time::interval(step);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => {}
        }
        match edge.tick().await {
            Ok(()) => board.mended("log", STANDS_STILL),
            Err(SubmitError::Closed(why)) => {
                error!(why, "the log is closed; only a new start can find out what is on disk");
                return;
            }
            Err(e) => {
                board.notice("log", STANDS_STILL, "free disk space in the data directory; it goes on by itself");
                warn!(error = %e, "time does not move on behind the log");
            }
        }
    }
}

/// Retention, and what only shows over time: steps of the wall clock, damage in the store.
async fn keep_house(
    store: Arc<Store>,
    clock: Arc<SystemClock>,
    health: Health,
    board: Arc<Board>,
    stop: CancellationToken,
) {
    let mut interval = tokio::time::interval(Duration::from_secs(60));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => {}
        }
        for step in clock.take_steps() {
            warn!(
                seconds = step.seconds,
                "the wall clock stepped; forewarn keeps its own steady time and approaches it"
            );
            board.notice(
                "clock",
                "the wall clock stepped",
                "check time synchronisation (chronyc tracking); samples keep steady times",
            );
        }
        health.clock_offset.set(clock.offset() as i64);
        let (store_now, now) = (store.clone(), clock.now());
        match tokio::task::spawn_blocking(move || store_now.retain(now)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => warn!(error = %e, "retention failed; it is tried again in a minute"),
            Err(e) => warn!(error = %e, "retention ended badly"),
        }
        for problem in store.problems() {
            let message = format!("part of the history is damaged: {}: {}", problem.object, problem.what);
            if board.notice("store", &message, "the rest of the history answers; restore it from a copy if it matters")
            {
                error!("{message}");
            }
        }
    }
}

struct Health {
    clock_offset: IntGauge,
}

impl Health {
    fn register(registry: &Registry, now: Timestamp) -> anyhow::Result<Self> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        gauge("forewarn_start_time_seconds", "When this process started, in seconds since the epoch.")?
            .set(now.as_millis() / 1000);
        let clock_offset = gauge("forewarn_clock_offset_seconds", "The wall clock minus forewarn's steady clock.")?;
        Ok(Self { clock_offset })
    }
}
