use proptest::prelude::*;

use super::*;
use crate::sample::STALE_NAN;

fn example() -> Batch {
    let mut batch = Batch::default();
    let t = Timestamp::from_millis(1_700_000_000_123);
    batch.push(Labels::series("beam_processes", &[("node", "a@host")]).unwrap(), t, 42.0);
    batch.push(Labels::series("beam_atoms", &[("node", "a@host")]).unwrap(), t, STALE_NAN);
    batch.series[0].samples.push(Sample { ts: Timestamp::from_millis(-5), value: -0.0 });
    batch
}

fn encode_one(batch: &Batch) -> Bytes {
    let mut all = encode_samples(batch, Timestamp::from_millis(1_700_000_000_500), "beam").unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0).0
}

/// The fixture is written once, by `FOREWARN_BLESS=1 cargo test`, and read for ever after.
#[test]
fn fixture_of_version_1_still_opens_and_is_what_we_write() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/record-v1.bin");
    if std::env::var_os("FOREWARN_BLESS").is_some() {
        std::fs::write(path, encode_one(&example())).unwrap();
    }
    let fixture = std::fs::read(path).unwrap();
    let record = Record::decode(&fixture).unwrap();
    assert_eq!(record.source, "beam");
    assert_eq!(record.received_at, Timestamp::from_millis(1_700_000_000_500));
    assert_eq!(record.body, RecordBody::Samples(example()));
    assert_eq!(fixture, encode_one(&example()));
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut bytes = encode_one(&example()).to_vec();
    bytes[4] = 2;
    assert!(matches!(Record::decode(&bytes), Err(RecordError::Version(2))));
}

#[test]
fn columns_of_a_later_minor_version_are_ignored() {
    let batch = to_arrow(&example()).unwrap();
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("exemplar", DataType::Utf8, true)));
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec![Some("later"), None])));
    let later = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let bytes = envelope(KIND_SAMPLES, Timestamp::default(), "later", &encode_arrow(&later).unwrap()).unwrap();
    assert_eq!(Record::decode(&bytes).unwrap().body, RecordBody::Samples(example()));
}

#[test]
fn a_large_batch_is_split_and_nothing_is_lost() {
    let mut batch = Batch::default();
    for i in 0..3000 {
        let labels = Labels::series("m", &[("i", &i.to_string()), ("long", &"x".repeat(500))]).unwrap();
        batch.push(labels, Timestamp::from_millis(i), i as f64);
    }
    let many = (0..200_000).map(|i| Sample { ts: Timestamp::from_millis(i), value: i as f64 }).collect();
    batch.series.push(SeriesSamples { labels: Labels::series("long", &[]).unwrap(), samples: many });
    let records = encode_samples(&batch, Timestamp::default(), "s").unwrap();
    assert!(records.len() >= 5);
    let mut samples = 0;
    for (bytes, chunk) in &records {
        assert!(bytes.len() <= RECORD_BYTES_MAX);
        assert_eq!(Record::decode(bytes).unwrap().body, RecordBody::Samples(chunk.clone()));
        samples += chunk.samples();
    }
    assert_eq!(samples, batch.samples());
}

#[test]
fn control_records_carry_json() {
    let bytes = encode_control("{\"gap\":{}}", Timestamp::from_millis(7), "spool").unwrap();
    assert_eq!(Record::decode(&bytes).unwrap().body, RecordBody::Control("{\"gap\":{}}".into()));
}

#[test]
fn every_flipped_byte_and_every_cut_is_an_error_and_never_a_panic() {
    let good = encode_one(&example());
    for i in 0..good.len() {
        let mut bad = good.to_vec();
        bad[i] ^= 0x5a;
        assert!(Record::decode(&bad).is_err(), "byte {i}");
        assert!(Record::decode(&good[..i]).is_err(), "cut at {i}");
    }
}

proptest! {
    #[test]
    fn all_bits_of_all_values_survive(
        rows in prop::collection::vec((0u32..50, prop::collection::vec((any::<i64>(), any::<u64>()), 0..20)), 1..30)
    ) {
        let series = rows.into_iter().map(|(name, samples)| SeriesSamples {
            labels: Labels::series("m", &[("n", &name.to_string()), ("ü", "日本")]).unwrap(),
            samples: samples.into_iter()
                .map(|(t, v)| Sample { ts: Timestamp::from_millis(t), value: f64::from_bits(v) }).collect(),
        }).filter(|s| !s.samples.is_empty()).collect();
        let batch = Batch { series };
        let records = encode_samples(&batch, Timestamp::default(), "p").unwrap();
        let mut back = Batch::default();
        for (bytes, _) in records {
            let RecordBody::Samples(part) = Record::decode(&bytes).unwrap().body else { panic!("samples") };
            back.series.extend(part.series);
        }
        prop_assert_eq!(back, batch);
    }

    /// With a valid checksum around it, so that the Arrow decoding itself is reached.
    #[test]
    fn damaged_content_behind_a_valid_checksum_never_panics(at in 0usize..2000, to in any::<u8>()) {
        let payload = encode_batch(&example()).unwrap();
        let mut bad = payload;
        let at = at % bad.len();
        bad[at] = to;
        let bytes = envelope(KIND_SAMPLES, Timestamp::default(), "p", &bad).unwrap();
        let _ = Record::decode(&bytes);
    }
}
