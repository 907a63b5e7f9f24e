//! `forewarn query`: SQL over a running forewarn, or over a data directory that none holds.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::util::pretty::pretty_format_batches;
use axum::body::Body;
use clap::{Args, ValueEnum};
use forewarn_ingest::log::{EmbeddedLog, EmbeddedLogConfig, Log as _};
use forewarn_schemas::{PartitionId, Record};
use forewarn_store::{LocalBlocks, SqlLimits, Store, StoreConfig};
use forewarn_vfs::{StdVfs, Vfs};
use futures::StreamExt as _;
use prometheus::Registry;

use crate::api::sql::{self, Format};
use crate::config::Config;
use crate::data_dir::DataDir;

/// Bytes of the log read at once.
const READ_BYTES: usize = 16 << 20;

/// Flags of `query`.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// The query; tables are samples(ts, metric, node, family, labels, value) and series(metric, node, family, labels,
    /// first_ts, last_ts)
    sql: String,
    /// Address of the running forewarn
    #[arg(long, value_name = "URL", env = "FOREWARN_URL", default_value = "http://127.0.0.1:9797")]
    url: String,
    /// File that holds a bearer token for it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Data directory to read instead, while no forewarn runs on it; it is checked and mended as by a start
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Shape of the answer
    #[arg(long, value_enum, default_value_t = Shape::Table)]
    output: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    Table,
    Csv,
    Json,
    Arrow,
}

impl Shape {
    /// A table and JSON are written here, from Arrow, where a query that fails half-way is an error.
    fn format(self) -> Format {
        match self {
            Self::Table | Self::Json | Self::Arrow => Format::Arrow,
            Self::Csv => Format::Csv,
        }
    }
}

/// Runs the query and writes the answer to standard output.
///
/// # Errors
/// What the query or the connection failed with.
pub fn run(args: &QueryArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let body = match &args.data {
            Some(dir) => from_directory(dir, args).await?,
            None => from_server(args).await?,
        };
        write(body, args.output).await
    })
}

async fn from_server(args: &QueryArgs) -> anyhow::Result<Body> {
    let url = format!("{}/api/v1/sql", args.url.trim_end_matches('/'));
    let mut request = reqwest::Client::new()
        .post(&url)
        .header("content-type", "text/plain")
        .header("accept", args.output.format().media_type())
        .body(args.sql.clone());
    if let Some(file) = &args.token_file {
        let token = std::fs::read_to_string(file).with_context(|| format!("token file {}", file.display()))?;
        request = request.bearer_auth(token.trim());
    }
    let answer = request.send().await.with_context(|| {
        format!("no forewarn answers at {}: start one, name it with --url, or read a directory with --data", args.url)
    })?;
    if !answer.status().is_success() {
        let status = answer.status();
        bail!(failure(status.as_u16(), &answer.text().await.unwrap_or_default()));
    }
    Ok(Body::from_stream(futures::stream::try_unfold(answer, |mut answer| async move {
        Ok::<_, reqwest::Error>(answer.chunk().await?.map(|bytes| (bytes, answer)))
    })))
}

fn failure(status: u16, text: &str) -> String {
    let error =
        serde_json::from_str::<serde_json::Value>(text).ok().and_then(|v| v["error"].as_str().map(str::to_owned));
    error.unwrap_or_else(|| format!("the server answered {status}: {}", text.trim()))
}

/// Opens the directory as a start would, reads what the log has beyond the blocks, and flushes nothing.
async fn from_directory(dir: &Path, args: &QueryArgs) -> anyhow::Result<Body> {
    let data = DataDir::open_existing(dir)?;
    let registry = Registry::new();
    let vfs: Arc<dyn Vfs> = Arc::new(StdVfs);
    let blocks = LocalBlocks::new(vfs.clone(), data.blocks());
    let store = Store::open(Arc::new(blocks), data.partitions(), StoreConfig::default(), &registry)?;
    let (log, _) = EmbeddedLog::open(vfs, data.log(), data.partitions(), EmbeddedLogConfig::default(), &registry)?;
    for p in (0..data.partitions()).map(PartitionId) {
        let mut next = store.checkpoint(p).max(log.bounds(p).start);
        while next < log.bounds(p).end {
            let chunk = log.read(p, next, READ_BYTES).await?;
            for (offset, bytes) in chunk.records {
                match Record::decode(&bytes) {
                    Ok(record) => _ = store.append(p, offset, &record)?,
                    Err(e) => eprintln!("forewarn: record {offset} of partition {p} skipped: {e}"),
                }
            }
            next = chunk.next;
        }
    }
    let limits = Config::default().query;
    let limits = SqlLimits { memory: limits.memory_max, time: limits.timeout, rows: limits.rows_max };
    let answer = sql::answer(&store, &args.sql, args.output.format(), limits, ()).await;
    let (head, body) = answer.into_parts();
    if !head.status.is_success() {
        let bytes = axum::body::to_bytes(body, 1 << 20).await?;
        bail!(failure(head.status.as_u16(), &String::from_utf8_lossy(&bytes)));
    }
    Ok(body)
}

async fn write(body: Body, shape: Shape) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if matches!(shape, Shape::Table | Shape::Json) {
        let bytes = axum::body::to_bytes(body, usize::MAX).await?;
        let reader = StreamReader::try_new(bytes.as_ref(), None)?;
        let columns = sql::columns(&reader.schema());
        let batches = reader.collect::<Result<Vec<RecordBatch>, _>>()?;
        if shape == Shape::Json {
            let rows: Vec<_> = batches.iter().flat_map(sql::rows).collect();
            writeln!(out, "{}", serde_json::json!({"columns": columns, "rows": rows}))?;
        } else {
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            writeln!(out, "{}\n{rows} rows", pretty_format_batches(&batches)?)?;
        }
        return Ok(());
    }
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        out.write_all(&piece?)?;
    }
    Ok(())
}
