//! Everything behind the edge, wired: log, pumps, store, analyzers, alert router. No listener and no collector, so the
//! kill campaign and the benchmarks drive it as the binary does.
//!
//! Start: log, store, router state, then a pump per partition, each from its checkpoint. Stop, the other way round:
//! nothing is taken in any more, the pumps take what is durable and flush, the router finishes what it is sending, the
//! log closes. What is late is named.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use forewarn_alert::{AlertConfig, EmbeddedStateLog, Handle, Input, Metrics, Receivers, Router, RouterConfig};
use forewarn_analyze::{AnalyzeConfig, Catalogue};
use forewarn_ingest::clock::SystemClock;
use forewarn_ingest::edge::Edge;
use forewarn_ingest::log::{EmbeddedLog, EmbeddedLogConfig, Log, Recovery};
use forewarn_ingest::status::Board;
use forewarn_schemas::{Clock, PartitionId};
use forewarn_store::{LocalBlocks, Store};
use forewarn_vfs::{StdVfs, Vfs};
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::metrics::PumpFamilies;
use crate::pump::{Parts, Pump};
use crate::view::Views;

/// How long each stage may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// The running pipeline.
#[derive(Debug)]
pub struct Pipeline {
    /// Where batches go in.
    pub edge: Arc<Edge>,
    /// The history.
    pub store: Arc<Store>,
    /// The latest forecasts.
    pub views: Arc<Views>,
    /// The alert router.
    pub alerts: Handle,
    /// What the log found when it was opened.
    pub recovery: Recovery,
    log: Arc<dyn Log>,
    pumps: Vec<(PartitionId, JoinHandle<()>)>,
    caught_up: Vec<watch::Receiver<bool>>,
    router: JoinHandle<Router>,
    alert_metrics: Metrics,
    clock: Arc<dyn Clock>,
    external_url: String,
    stop_pumps: CancellationToken,
    stop_router: CancellationToken,
    _data: DataDir,
}

impl Pipeline {
    /// Opens every stage and starts it. `fatal` is cancelled when a stage can no longer work.
    ///
    /// # Errors
    /// What could not be opened, and what to do about it.
    pub async fn open(
        config: &Config,
        data: DataDir,
        system_clock: Arc<SystemClock>,
        registry: &Registry,
        external_url: &str,
        board: &Arc<Board>,
        fatal: CancellationToken,
    ) -> anyhow::Result<Self> {
        let vfs: Arc<dyn Vfs> = Arc::new(StdVfs);
        let clock: Arc<dyn Clock> = system_clock.clone();
        let partitions = data.partitions();
        let (log, recovery) =
            EmbeddedLog::open(vfs.clone(), data.log(), partitions, EmbeddedLogConfig::default(), registry)
                .with_context(|| format!("the log in {} cannot be opened", data.log().display()))?;
        let blocks = Arc::new(LocalBlocks::new(vfs, data.blocks()));
        let store = Store::open(blocks, partitions, config.store.clone(), registry)
            .with_context(|| format!("the history in {} cannot be opened", data.blocks().display()))?;
        let store = Arc::new(store);
        for p in (0..partitions).map(PartitionId) {
            // Only a log that was deleted by hand is behind the manifest: offsets must not be given again.
            log.advance(p, store.checkpoint(p)).await?;
        }
        let log: Arc<dyn Log> = Arc::new(log);
        let state = EmbeddedStateLog::open(&data.state())
            .with_context(|| format!("the router's state in {} cannot be opened", data.state().display()))?;
        let alert_metrics = Metrics::new(registry)?;
        let (rules, receivers) = routing(&config.alerting(), external_url, &clock, &alert_metrics)?;
        let router = Router::open(rules, Arc::new(state), alert_metrics.clone(), clock.now())
            .context("the alert router cannot be opened")?;
        let edge = Arc::new(Edge::new(log.clone(), clock.clone(), config.edge.clone(), registry)?);
        if let Some(last) = edge.resume().await.context("the log cannot be read")? {
            system_clock.not_before(last);
        }
        let catalogue = catalogue(config)?;
        let views = Arc::new(Views::default());
        let families = PumpFamilies::register(registry)?;

        let stop_router = CancellationToken::new();
        let (alerts, inputs) = Handle::new();
        let router = forewarn_alert::run(router, receivers, inputs, clock.clone(), stop_router.clone());
        let router = tokio::spawn(guarded(router, stop_router.clone(), fatal.clone()));
        let stop_pumps = CancellationToken::new();
        let (mut pumps, mut caught_up) = (Vec::new(), Vec::new());
        for p in (0..partitions).map(PartitionId) {
            let pump = Pump::open(Parts {
                partition: p,
                log: log.clone(),
                edge: edge.clone(),
                store: store.clone(),
                catalogue: catalogue.clone(),
                flush_bytes: config.store.flush_bytes.bytes(),
                board: board.clone(),
                config: AnalyzeConfig { step: config.forecast.step, ..AnalyzeConfig::default() },
                views: views.clone(),
                alerts: alerts.clone(),
                alert_metrics: alert_metrics.clone(),
                external_url: external_url.to_owned(),
                metrics: families.of(p),
            });
            let (done, watch) = watch::channel(false);
            caught_up.push(watch);
            pumps.push((p, spawn_pump(pump, stop_pumps.clone(), done, fatal.clone())));
        }
        Ok(Self {
            edge,
            store,
            views,
            alerts,
            recovery,
            log,
            pumps,
            caught_up,
            router,
            alert_metrics,
            clock,
            external_url: external_url.to_owned(),
            stop_pumps,
            stop_router,
            _data: data,
        })
    }

    /// Resolves once every partition has taken what was in the log at the start.
    pub fn caught_up(&self) -> impl Future<Output = ()> + Send + 'static {
        let watches = self.caught_up.clone();
        async move {
            for mut watch in watches {
                // An error means that the pump is gone, which `fatal` has told already.
                let _ = watch.wait_for(|done| *done).await;
            }
        }
    }

    /// Gives the running router other routes and receivers.
    ///
    /// # Errors
    /// What is wrong with them; the old ones stay in force.
    pub async fn reroute(&self, config: &AlertConfig) -> anyhow::Result<()> {
        let (rules, receivers) = routing(config, &self.external_url, &self.clock, &self.alert_metrics)?;
        Ok(self.alerts.send(Input::Reconfigure(Box::new(rules), receivers)).await?)
    }

    /// Stops in order; the collectors must have stopped before.
    pub async fn close(self) {
        let late = |what: &str| error!(stage = what, "did not stop in time; the log has what it left undone");
        if tokio::time::timeout(STOP_DEADLINE, self.edge.close()).await.is_err() {
            late("edge");
        }
        self.stop_pumps.cancel();
        for (p, pump) in self.pumps {
            if tokio::time::timeout(STOP_DEADLINE, pump).await.is_err() {
                late(&format!("pump {p}"));
            }
        }
        self.stop_router.cancel();
        if tokio::time::timeout(STOP_DEADLINE, self.router).await.is_err() {
            late("router");
        }
        match tokio::time::timeout(STOP_DEADLINE, self.log.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!(error = %e, "log not closed cleanly; it is checked at the next start"),
            Err(_) => late("log"),
        }
    }
}

/// Runs a part without which the process must not go on: when it ends before `stop`, by a panic too, `fatal` is cancelled.
pub(crate) async fn guarded<T>(part: impl Future<Output = T>, stop: CancellationToken, fatal: CancellationToken) -> T {
    let guard = fatal.drop_guard();
    let out = part.await;
    if stop.is_cancelled() {
        drop(guard.disarm());
    }
    out
}

/// A pump's file work blocks, so it gets a thread of its own instead of one of the runtime's.
fn spawn_pump(
    pump: Pump,
    stop: CancellationToken,
    caught_up: watch::Sender<bool>,
    fatal: CancellationToken,
) -> JoinHandle<()> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        // Also when it panics: a process without a pump takes samples in and forecasts nothing.
        let guard = fatal.drop_guard();
        match runtime.block_on(pump.run(stop.clone(), caught_up)) {
            Ok(()) if stop.is_cancelled() => drop(guard.disarm()),
            Ok(()) => error!("pump ended before it was told to"),
            Err(e) => error!(error = %e, "pump cannot go on"),
        }
    })
}

fn routing(
    config: &AlertConfig,
    external_url: &str,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<(RouterConfig, Receivers)> {
    let (_, receivers) = config.resolved();
    let rules = RouterConfig::new(config, external_url, rand::random())?;
    Ok((rules, Receivers::build(&receivers, clock, metrics)?))
}

fn catalogue(config: &Config) -> anyhow::Result<Catalogue> {
    let mut catalogue = Catalogue::builtin();
    for path in &config.forecast.catalogue_files {
        let text = std::fs::read_to_string(path).with_context(|| format!("catalogue {}", path.display()))?;
        catalogue = catalogue.extended(&text).map_err(|e| anyhow::anyhow!("catalogue {}: {e}", path.display()))?;
    }
    Ok(catalogue)
}
