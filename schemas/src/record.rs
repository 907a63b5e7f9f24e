//! Record v1: the bytes of the log, on disk and in Kafka (`docs/formats/record-v1.md`).
//!
//! ```text
//! magic "FWRN" | version u8 = 1 | kind u8 | codec u8 | flags u8 = 0 | received_at i64 | source length u16 | source
//! | payload length u32 | payload | CRC32C of all before, u32                       (integers little-endian)
//! ```
//!
//! The payload of a samples record is one Arrow IPC record batch message, without its schema, because that follows
//! from the version: `labels: Map<Utf8, Utf8>` sorted by key, `ts: List<Int64>` (ms), `value: List<Float64>`; one row
//! per series. A later minor version may append columns, and an older reader does not see them. A control record's
//! payload is JSON. Decoding never panics and never trusts a length that the bytes do not bear out.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray, StructArray,
};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use bytes::Bytes;

use crate::label::Labels;
use crate::sample::{Batch, Sample, SeriesSamples};
use crate::time::Timestamp;

/// Largest record, envelope included.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// The version that this code writes, and the newest that it reads.
pub const RECORD_VERSION: u8 = 1;

const MAGIC: &[u8; 4] = b"FWRN";
const HEAD: usize = 18;
const KIND_SAMPLES: u8 = 0;
const KIND_CONTROL: u8 = 1;
const CODEC_NONE: u8 = 0;

/// A decoded record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// When the edge took it in; nothing behind the log reads another clock.
    pub received_at: Timestamp,
    /// Who sent it: a collector's name.
    pub source: String,
    /// What it carries.
    pub body: RecordBody,
}

/// What a record carries.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordBody {
    /// Samples.
    Samples(Batch),
    /// An instruction to the consumers, as JSON text; one that a consumer does not know it skips and counts.
    Control(String),
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Fewer bytes than the lengths in them say.
    #[error("record is cut short at {0} bytes")]
    Truncated(usize),
    /// It does not begin as a record does.
    #[error("not a record: it does not begin with FWRN")]
    Magic,
    /// Written by a newer forewarn.
    #[error("record version {0} is newer than {RECORD_VERSION}: upgrade forewarn to read it")]
    Version(u8),
    /// A kind or codec that version 1 does not have.
    #[error("record has {what} {value}, which version 1 does not know")]
    Unknown {
        /// `kind` or `codec`.
        what: &'static str,
        /// Its number.
        value: u8,
    },
    /// The checksum does not agree.
    #[error("record checksum mismatch")]
    Checksum,
    /// The checksum agrees but the content is not what the format says.
    #[error("record content: {0}")]
    Content(String),
    /// One series alone is larger than a record may be.
    #[error("a series of {0} samples does not fit into one record of {RECORD_BYTES_MAX} bytes")]
    TooLarge(usize),
}

/// Encodes a batch into as few records of at most [`RECORD_BYTES_MAX`] bytes as it takes. Order is kept, series are
/// split only between samples.
///
/// # Errors
/// [`RecordError::TooLarge`] when one sample with its labels does not fit; [`RecordError::Content`] when `source` is
/// longer than 65,535 bytes.
pub fn encode_samples(batch: &Batch, received_at: Timestamp, source: &str) -> Result<Vec<(Bytes, Batch)>, RecordError> {
    const ROOM: usize = RECORD_BYTES_MAX - 4096;
    let mut out = Vec::new();
    let (mut chunk, mut size) = (Batch::default(), 0usize);
    for series in &batch.series {
        // Offsets, padding and the map's own columns cost at most 24 bytes a label and 32 a row.
        let row = 32 + series.labels.text_bytes() + 24 * series.labels.len();
        if row + 16 > ROOM {
            return Err(RecordError::TooLarge(series.samples.len()));
        }
        let mut rest = series.samples.as_slice();
        while !rest.is_empty() {
            if size + row + 16 > ROOM {
                out.push(encode_chunk(std::mem::take(&mut chunk), received_at, source)?);
                size = 0;
            }
            let (now, later) = rest.split_at(rest.len().min((ROOM - size - row) / 16));
            chunk.series.push(SeriesSamples { labels: series.labels.clone(), samples: now.to_vec() });
            size += row + 16 * now.len();
            rest = later;
        }
    }
    if !chunk.series.is_empty() {
        out.push(encode_chunk(chunk, received_at, source)?);
    }
    Ok(out)
}

fn encode_chunk(chunk: Batch, received_at: Timestamp, source: &str) -> Result<(Bytes, Batch), RecordError> {
    let bytes = envelope(KIND_SAMPLES, received_at, source, &encode_batch(&chunk)?)?;
    Ok((bytes, chunk))
}

/// Encodes a control record; `json` is its payload.
///
/// # Errors
/// [`RecordError::TooLarge`] when it would exceed [`RECORD_BYTES_MAX`].
pub fn encode_control(json: &str, received_at: Timestamp, source: &str) -> Result<Bytes, RecordError> {
    envelope(KIND_CONTROL, received_at, source, json.as_bytes())
}

fn envelope(kind: u8, received_at: Timestamp, source: &str, payload: &[u8]) -> Result<Bytes, RecordError> {
    let source_len = u16::try_from(source.len()).map_err(|_| RecordError::Content("source name too long".into()))?;
    let total = HEAD + source.len() + 4 + payload.len() + 4;
    if total > RECORD_BYTES_MAX {
        return Err(RecordError::TooLarge(payload.len()));
    }
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[RECORD_VERSION, kind, CODEC_NONE, 0]);
    out.extend_from_slice(&received_at.as_millis().to_le_bytes());
    out.extend_from_slice(&source_len.to_le_bytes());
    out.extend_from_slice(source.as_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    Ok(out.into())
}

impl Record {
    /// Decodes one record; `bytes` is the whole of it.
    ///
    /// # Errors
    /// [`RecordError`]; the version is looked at before the checksum, so that a newer format is named as such.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let short = || RecordError::Truncated(bytes.len());
        if !bytes.starts_with(MAGIC) {
            return Err(if bytes.len() < 4 { short() } else { RecordError::Magic });
        }
        let head = bytes.get(..HEAD).ok_or_else(short)?;
        if head[4] != RECORD_VERSION {
            return Err(RecordError::Version(head[4]));
        }
        let received_at = Timestamp::from_millis(i64::from_le_bytes(array(&head[8..16])));
        let source_end = HEAD + usize::from(u16::from_le_bytes(array(&head[16..18])));
        let payload_len = bytes.get(source_end..source_end + 4).ok_or_else(short)?;
        let payload_start = source_end + 4;
        let payload_end = payload_start + u32::from_le_bytes(array(payload_len)) as usize;
        let crc = bytes.get(payload_end..).filter(|c| c.len() == 4).ok_or_else(short)?;
        if crc32c::crc32c(&bytes[..payload_end]) != u32::from_le_bytes(array(crc)) {
            return Err(RecordError::Checksum);
        }
        if head[6] != CODEC_NONE {
            return Err(RecordError::Unknown { what: "codec", value: head[6] });
        }
        let text = |b: &[u8], what: &str| {
            String::from_utf8(b.to_vec()).map_err(|_| RecordError::Content(format!("{what} is not UTF-8")))
        };
        let payload = &bytes[payload_start..payload_end];
        let body = match head[5] {
            KIND_SAMPLES => RecordBody::Samples(decode_batch(payload)?),
            KIND_CONTROL => RecordBody::Control(text(payload, "control")?),
            kind => return Err(RecordError::Unknown { what: "kind", value: kind }),
        };
        Ok(Self { received_at, source: text(&bytes[HEAD..source_end], "source")?, body })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller cut exactly N bytes")
}

fn entry_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, false)])
}

fn item(t: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", t, false))
}

fn map_field() -> Arc<Field> {
    Arc::new(Field::new("entries", DataType::Struct(entry_fields()), false))
}

/// Returns the schema of the samples in a version 1 record.
pub fn schema_v1() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("labels", DataType::Map(map_field(), true), false),
        Field::new("ts", DataType::List(item(DataType::Int64)), false),
        Field::new("value", DataType::List(item(DataType::Float64)), false),
    ]))
}

fn to_arrow(batch: &Batch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let labels = OffsetBuffer::from_lengths(batch.series.iter().map(|s| s.labels.len()));
    let pairs = || batch.series.iter().flat_map(|s| s.labels.iter());
    let entries = StructArray::try_new(
        entry_fields(),
        vec![
            Arc::new(pairs().map(|p| Some(p.0)).collect::<StringArray>()) as ArrayRef,
            Arc::new(pairs().map(|p| Some(p.1)).collect::<StringArray>()),
        ],
        None,
    )?;
    let lengths = OffsetBuffer::<i32>::from_lengths(batch.series.iter().map(|s| s.samples.len()));
    let samples = || batch.series.iter().flat_map(|s| &s.samples);
    let ts = Int64Array::from(samples().map(|s| s.ts.as_millis()).collect::<Vec<_>>());
    let value = Float64Array::from(samples().map(|s| s.value).collect::<Vec<_>>());
    RecordBatch::try_new(
        schema_v1(),
        vec![
            Arc::new(MapArray::try_new(map_field(), labels, entries, None, true)?),
            Arc::new(ListArray::try_new(item(DataType::Int64), lengths.clone(), Arc::new(ts), None)?),
            Arc::new(ListArray::try_new(item(DataType::Float64), lengths, Arc::new(value), None)?),
        ],
    )
}

fn encode_batch(batch: &Batch) -> Result<Vec<u8>, RecordError> {
    to_arrow(batch).and_then(|b| encode_arrow(&b)).map_err(|e| RecordError::Content(e.to_string()))
}

fn encode_arrow(batch: &RecordBatch) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let mut dictionaries = DictionaryTracker::new(true);
    let options = IpcWriteOptions::default();
    let mut context = IpcWriteContext::default();
    let (_, data) = IpcDataGenerator::default().encode(batch, &mut dictionaries, &options, &mut context)?;
    let mut out = Vec::with_capacity(4 + data.ipc_message.len() + data.arrow_data.len());
    out.extend_from_slice(&(data.ipc_message.len() as u32).to_le_bytes());
    out.extend_from_slice(&data.ipc_message);
    out.extend_from_slice(&data.arrow_data);
    Ok(out)
}

fn decode_batch(payload: &[u8]) -> Result<Batch, RecordError> {
    let bad = |what: &str| RecordError::Content(what.to_owned());
    let arrow_bad = |e: arrow::error::ArrowError| RecordError::Content(e.to_string());
    let (len, rest) = payload.split_at_checked(4).ok_or_else(|| bad("payload without a message length"))?;
    let (message, body) = rest
        .split_at_checked(u32::from_le_bytes(array(len)) as usize)
        .ok_or_else(|| bad("message longer than the payload"))?;
    let message = arrow::ipc::root_as_message(message).map_err(|e| RecordError::Content(e.to_string()))?;
    let head = message.header_as_record_batch().ok_or_else(|| bad("message is not a record batch"))?;
    if head.compression().is_some() {
        return Err(bad("compressed Arrow buffers are not part of version 1"));
    }
    check_buffers(&head, body.len()).map_err(bad)?;
    let batch = arrow::ipc::reader::read_record_batch(
        &Buffer::from(body),
        head,
        schema_v1(),
        &HashMap::new(),
        None,
        &message.version(),
    )
    .map_err(arrow_bad)?;
    from_arrow(&batch)
}

/// Size of an element of each buffer of the version 1 schema, in the order of the Arrow columnar format: labels
/// (validity, offsets, entries' validity, then validity, offsets and text of key and of value), ts and value (validity,
/// offsets, items' validity, items).
const ELEMENT_BYTES_V1: [i64; 17] = [1, 4, 1, 1, 4, 1, 1, 4, 1, 1, 4, 1, 8, 1, 4, 1, 8];

/// Arrays in the version 1 schema, children included.
const NODES_V1: usize = 8;

/// The IPC reader slices buffers by offsets that the message states, and panics on ones outside the body.
fn check_buffers(head: &arrow::ipc::RecordBatch<'_>, body: usize) -> Result<(), &'static str> {
    let inside = |offset: i64, length: i64| {
        let (Ok(o), Ok(l)) = (usize::try_from(offset), usize::try_from(length)) else { return false };
        o.checked_add(l).is_some_and(|end| end <= body)
    };
    let buffers = head.buffers().ok_or("message without buffers")?;
    let nodes = head.nodes().ok_or("message without nodes")?;
    if !buffers.iter().all(|b| inside(b.offset(), b.length()) && b.offset() % 8 == 0) {
        return Err("a buffer lies outside the body or is not aligned");
    }
    if buffers.len() < ELEMENT_BYTES_V1.len() || buffers.iter().zip(ELEMENT_BYTES_V1).any(|(b, w)| b.length() % w != 0)
    {
        return Err("buffers are not those of version 1");
    }
    // No column has more values than the body has bits.
    let rows_max = (body as i64).saturating_mul(8);
    let sane = |n: i64| (0..=rows_max).contains(&n);
    if !sane(head.length()) || !nodes.iter().all(|n| sane(n.length())) {
        return Err("a length is impossible");
    }
    if nodes.len() < NODES_V1 || nodes.iter().take(NODES_V1).any(|n| n.null_count() != 0) {
        return Err("version 1 has no nulls");
    }
    Ok(())
}

fn from_arrow(batch: &RecordBatch) -> Result<Batch, RecordError> {
    let bad = |what: &str| RecordError::Content(what.to_owned());
    let (labels, ts, value) = (|| {
        let labels = batch.column(0).as_any().downcast_ref::<MapArray>()?;
        let ts = batch.column(1).as_any().downcast_ref::<ListArray>()?;
        let value = batch.column(2).as_any().downcast_ref::<ListArray>()?;
        Some((labels, ts, value))
    })()
    .ok_or_else(|| bad("columns are not those of version 1"))?;
    let (keys, values) = (|| {
        let keys = labels.keys().as_any().downcast_ref::<StringArray>()?;
        Some((keys, labels.values().as_any().downcast_ref::<StringArray>()?))
    })()
    .ok_or_else(|| bad("labels are not text"))?;
    let (stamps, numbers) = (|| {
        let stamps = ts.values().as_any().downcast_ref::<Int64Array>()?;
        Some((stamps, value.values().as_any().downcast_ref::<Float64Array>()?))
    })()
    .ok_or_else(|| bad("samples are not numbers"))?;
    if ts.offsets() != value.offsets() {
        return Err(bad("ts and value differ in length"));
    }
    let (label_at, sample_at) = (labels.offsets(), ts.offsets());
    let mut series = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let pairs = (label_at[row] as usize..label_at[row + 1] as usize).map(|i| (keys.value(i), values.value(i)));
        let labels = Labels::from_pairs(pairs).map_err(|e| RecordError::Content(e.to_string()))?;
        let samples = (sample_at[row] as usize..sample_at[row + 1] as usize)
            .map(|i| Sample { ts: Timestamp::from_millis(stamps.value(i)), value: numbers.value(i) })
            .collect();
        series.push(SeriesSamples { labels, samples });
    }
    Ok(Batch { series })
}

#[cfg(test)]
mod tests;
