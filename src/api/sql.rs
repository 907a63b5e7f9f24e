//! `POST /api/v1/sql`: SQL over the history; the answer follows `Accept` (JSON, CSV or an Arrow IPC stream) and is
//! produced batch by batch, so a large one is never held in memory. It ends when the client leaves.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int32Type, Int64Type, Schema, SchemaRef, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use forewarn_store::{SendableRecordBatchStream, SqlLimits, Store, StoreError};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::answer;

/// The shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `{columns, rows}` in the envelope.
    Json,
    /// RFC 4180 with a header line.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl Format {
    /// Returns the media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// Chooses by the header `Accept`: the first known media type in it; JSON when there is none.
    pub fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let known = accept.split(',').find_map(|part| match part.split(';').next().unwrap_or_default().trim() {
            "text/csv" => Some(Self::Csv),
            "application/vnd.apache.arrow.stream" => Some(Self::Arrow),
            "application/json" => Some(Self::Json),
            _ => None,
        });
        known.unwrap_or(Self::Json)
    }
}

/// Runs a query and answers its result.
///
/// The query runs in a task of its own that ends at its time limit, when the client leaves or does not read; `permit` is
/// held until then.
pub async fn answer<P: Send + 'static>(
    store: &Store,
    query: &str,
    format: Format,
    limits: SqlLimits,
    permit: P,
) -> Response {
    match store.sql(query, limits).await {
        Ok(batches) => {
            let schema = batches.schema();
            let batches = driven(batches, limits.time, permit);
            let body = match format {
                Format::Json => Body::from_stream(json_stream(&schema, batches)),
                Format::Csv => Body::from_stream(csv_stream(&schema, batches)),
                Format::Arrow => Body::from_stream(arrow_stream(&schema, batches)),
            };
            ([(header::CONTENT_TYPE, format.media_type())], body).into_response()
        }
        Err(error) => {
            let (status, kind) = match &error {
                StoreError::Query(_) => (StatusCode::BAD_REQUEST, "bad_data"),
                StoreError::Limit(_) => (StatusCode::UNPROCESSABLE_ENTITY, "execution"),
                _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            };
            answer::error(status, kind, &error.to_string())
        }
    }
}

/// Drives a query from a task, so that a client that stops reading cannot hold its memory and threads past the time limit.
fn driven<P: Send + 'static>(
    mut batches: SendableRecordBatchStream,
    time: std::time::Duration,
    permit: P,
) -> impl Stream<Item = Result<RecordBatch, String>> + Send + 'static {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
    tokio::spawn(async move {
        let forward = async {
            while let Some(batch) = batches.next().await {
                if sender.send(batch.map_err(|e| Store::query_error(&e).to_string())).await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(time, forward).await.is_err() {
            // A reader that is gone or stuck does not hear it; one that reads does.
            let _ = sender.try_send(Err(format!("query: more than its time of {time:?}")));
        }
        drop(permit);
    });
    stream::poll_fn(move |context| receiver.poll_recv(context))
}

/// Streams the enveloped JSON. An error after the first rows can only be said at the end: `status` is then `error`.
fn json_stream(
    schema: &SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, String>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    let head = format!("{{\"data\":{{\"columns\":{},\"rows\":[", columns(schema));
    let mut first = true;
    let mut failed = false;
    let rows = batches.map(move |batch| {
        if failed {
            return Bytes::new();
        }
        match batch {
            Ok(batch) => {
                let mut out = String::new();
                for row in rows(&batch) {
                    out.push_str(if std::mem::take(&mut first) { "" } else { "," });
                    out.push_str(&row.to_string());
                }
                out.into()
            }
            Err(e) => {
                failed = true;
                format!("]}},\"status\":\"error\",\"errorType\":\"execution\",\"error\":{}}}", Value::from(e)).into()
            }
        }
    });
    // Whether the rows ended well is known only when they have ended, so the end is decided by the last piece.
    let pieces = stream::once(async move { Bytes::from(head) })
        .chain(rows)
        .chain(stream::once(async { Bytes::from("]},\"status\":\"success\"}") }));
    pieces
        .scan(false, |ended, piece| {
            let failed_before = *ended;
            *ended |= piece.starts_with(b"]},\"status\":\"error\"");
            futures::future::ready((!failed_before).then_some(piece))
        })
        .filter(|piece| futures::future::ready(!piece.is_empty()))
        .map(Ok)
}

/// Returns `[{name, type}]` of a schema.
pub fn columns(schema: &Schema) -> Value {
    schema.fields().iter().map(|f| json!({"name": f.name(), "type": f.data_type().to_string()})).collect()
}

/// Returns each row of a batch as a JSON array.
pub fn rows(batch: &RecordBatch) -> Vec<Value> {
    (0..batch.num_rows()).map(|row| batch.columns().iter().map(|c| cell(c, row)).collect()).collect()
}

fn cell(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let number = |n: f64| serde_json::Number::from_f64(n).map_or_else(|| Value::from(n.to_string()), Value::Number);
    match column.data_type() {
        DataType::Float64 => number(column.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => number(column.as_primitive::<Float32Type>().value(row).into()),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let text = |i: usize, at: usize| cell(entries.column(i), at);
            let pairs = (0..entries.len()).map(|i| (text(0, i).as_str().unwrap_or_default().to_owned(), text(1, i)));
            Value::Object(pairs.collect())
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            (0..items.len()).map(|i| cell(&items, i)).collect()
        }
        _ => match ArrayFormatter::try_new(column, &FormatOptions::default()) {
            Ok(formatter) => formatter.value(row).to_string().into(),
            Err(e) => format!("<{e}>").into(),
        },
    }
}

/// Maps, which CSV has no notion of, become their JSON.
fn csv_stream(
    schema: &SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, String>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    let head: Vec<String> = schema.fields().iter().map(|f| csv_cell(f.name())).collect();
    let head = Ok(Bytes::from(head.join(",") + "\r\n"));
    let rows = batches.map_err(std::io::Error::other).map_ok(|batch| {
        let mut out = String::new();
        for row in rows(&batch) {
            let cells = row.as_array().into_iter().flatten().map(|v| match v {
                Value::Null => String::new(),
                Value::String(s) => csv_cell(s),
                other => csv_cell(&other.to_string()),
            });
            out.push_str(&cells.collect::<Vec<_>>().join(","));
            out.push_str("\r\n");
        }
        Bytes::from(out)
    });
    stream::once(async { head }).chain(rows)
}

fn csv_cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn arrow_stream(
    schema: &SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, String>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    let writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), schema).map_err(std::io::Error::other);
    let batches = batches.map(Some).chain(stream::once(async { None }));
    batches.scan(writer, |writer, batch| {
        let piece = (|| {
            let writer = writer.as_mut().map_err(|e| std::io::Error::other(e.to_string()))?;
            match batch {
                Some(batch) => writer.write(&batch.map_err(std::io::Error::other)?).map_err(std::io::Error::other)?,
                None => writer.finish().map_err(std::io::Error::other)?,
            }
            Ok(Bytes::from(std::mem::take(writer.get_mut())))
        })();
        futures::future::ready(Some(piece))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([
            ("ts", Arc::new(TimestampMillisecondArray::from(vec![0, 1_500]).with_timezone("UTC")) as ArrayRef),
            ("metric", Arc::new(StringArray::from(vec![Some("a,\"b\""), None]))),
            ("value", Arc::new(Float64Array::from(vec![f64::NAN, 2.5]))),
        ])
        .unwrap()
    }

    async fn text(pieces: impl Stream<Item = Result<Bytes, std::io::Error>>) -> String {
        let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[tokio::test]
    async fn json_is_enveloped_and_numbers_stay_numbers() {
        let b = batch();
        let out = text(json_stream(&b.schema(), stream::iter([Ok(b.clone()), Ok(b)]))).await;
        let v: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(v["status"], "success");
        assert_eq!(v["data"]["columns"][2]["name"], "value");
        assert_eq!(v["data"]["rows"].as_array().unwrap().len(), 4);
        assert_eq!(v["data"]["rows"][1], json!(["1970-01-01T00:00:01.500Z", null, 2.5]));
        assert_eq!(v["data"]["rows"][0][2], "NaN");
    }

    #[tokio::test]
    async fn a_late_error_is_said_in_the_answer() {
        let b = batch();
        let out = text(json_stream(&b.schema(), stream::iter([Ok(b), Err("disk \"x\" broke".to_owned())]))).await;
        let v: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((v["status"].as_str(), v["error"].as_str()), (Some("error"), Some("disk \"x\" broke")));
    }

    #[tokio::test]
    async fn csv_quotes_and_arrow_reads_back() {
        let b = batch();
        let out = text(csv_stream(&b.schema(), stream::iter([Ok(b.clone())]))).await;
        assert_eq!(
            out,
            "ts,metric,value\r\n1970-01-01T00:00:00Z,\"a,\"\"b\"\"\",NaN\r\n1970-01-01T00:00:01.500Z,,2.5\r\n"
        );
        let pieces: Vec<Bytes> = arrow_stream(&b.schema(), stream::iter([Ok(b)])).try_collect().await.unwrap();
        let bytes = pieces.concat();
        let read = arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None).unwrap();
        assert_eq!(read.map(|b| b.unwrap().num_rows()).sum::<usize>(), 2);
    }

    #[test]
    fn format_by_accept() {
        let of = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Format::of(&headers)
        };
        assert_eq!(of("text/csv"), Format::Csv);
        assert_eq!(of("application/vnd.apache.arrow.stream;q=1, */*"), Format::Arrow);
        assert_eq!(of("*/*"), Format::Json);
        assert_eq!(Format::of(&HeaderMap::new()), Format::Json);
    }
}
