//! The bytes of a segment: header and frames (`docs/formats/segment-v1.md`).

use std::ops::Range;

use forewarn_schemas::record::RECORD_BYTES_MAX;
use forewarn_schemas::{Offset, PartitionId};

/// The version that this code writes, and the newest that it reads.
pub(super) const SEGMENT_VERSION: u32 = 1;
/// Bytes before the first frame: two copies of the header, each in a sector of its own.
pub(super) const HEADER_BYTES: usize = 2 * SECTOR;
/// Bytes of a frame beside its record.
pub(super) const FRAME_OVERHEAD: usize = 28;

const SECTOR: usize = 512;
const COPY: usize = 80;
const MAGIC: &[u8; 8] = b"FWRNSEGM";

/// Eight random bytes that begin every frame of one segment, none of them zero.
///
/// Being random, they cannot be guessed by who writes label values in the hope of being taken for a frame one day, and
/// frames of a removed segment, which a file system may leave in a torn tail, are not those of this one.
pub(super) type Marker = [u8; 8];

/// What a segment says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) partition: PartitionId,
    /// The number of partitions of the log.
    pub(super) partitions: u32,
    /// The offset of its first record.
    pub(super) base: Offset,
    /// The offset after the last record of the segment before it. Offsets from there to `base` were never given.
    pub(super) previous_end: Offset,
    /// Offsets of the segment before it that, if they are missing, were torn before they were acknowledged.
    pub(super) previous_torn: Range<Offset>,
    pub(super) marker: Marker,
}

/// What the first bytes of a segment turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opened {
    Valid(Header),
    Newer(u32),
    Damaged,
}

impl Header {
    /// Makes the header of a segment that begins at `base` after one that ended there, with a marker of its own.
    pub(super) fn new(partition: PartitionId, partitions: u32, base: Offset) -> Self {
        let marker = std::array::from_fn(|_| rand::random_range(1..=u8::MAX));
        Self { partition, partitions, base, previous_end: base, previous_torn: base..base, marker }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut copy = [0; COPY];
        copy[..8].copy_from_slice(MAGIC);
        copy[8..12].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        copy[12..16].copy_from_slice(&(COPY as u32).to_le_bytes());
        copy[16..20].copy_from_slice(&self.partition.0.to_le_bytes());
        copy[20..24].copy_from_slice(&self.partitions.to_le_bytes());
        copy[24..32].copy_from_slice(&self.base.0.to_le_bytes());
        copy[32..40].copy_from_slice(&self.previous_end.0.to_le_bytes());
        copy[40..48].copy_from_slice(&self.previous_torn.start.0.to_le_bytes());
        copy[48..56].copy_from_slice(&self.previous_torn.end.0.to_le_bytes());
        copy[56..64].copy_from_slice(&self.marker);
        let crc = crc32c::crc32c(&copy[..COPY - 4]);
        copy[COPY - 4..].copy_from_slice(&crc.to_le_bytes());
        let mut out = [0; HEADER_BYTES];
        out[..COPY].copy_from_slice(&copy);
        out[SECTOR..SECTOR + COPY].copy_from_slice(&copy);
        out
    }

    /// Reads the first valid copy; `bytes` is the beginning of the file, at most [`HEADER_BYTES`] of it.
    pub(super) fn decode(bytes: &[u8]) -> Opened {
        let copies = [0, SECTOR].map(|at| bytes.get(at..at + COPY).map_or(Opened::Damaged, Self::decode_copy));
        let rank = |o: &Opened| match o {
            Opened::Valid(_) => 2,
            Opened::Newer(_) => 1,
            Opened::Damaged => 0,
        };
        let [first, second] = copies;
        if rank(&second) > rank(&first) { second } else { first }
    }

    fn decode_copy(copy: &[u8]) -> Opened {
        if !copy.starts_with(MAGIC) {
            return Opened::Damaged;
        }
        // Before the checksum, whose place a newer version may have moved.
        let version = u32_at(copy, 8);
        if version > SEGMENT_VERSION {
            return Opened::Newer(version);
        }
        if version != SEGMENT_VERSION || crc32c::crc32c(&copy[..COPY - 4]) != u32_at(copy, COPY - 4) {
            return Opened::Damaged;
        }
        Opened::Valid(Self {
            partition: PartitionId(u32_at(copy, 16)),
            partitions: u32_at(copy, 20),
            base: Offset(u64_at(copy, 24)),
            previous_end: Offset(u64_at(copy, 32)),
            previous_torn: Offset(u64_at(copy, 40))..Offset(u64_at(copy, 48)),
            marker: copy[56..64].try_into().expect("eight bytes"),
        })
    }
}

/// Appends the frame of a record to `out`; it is the `nth` of those that are written and synced together, from 0.
pub(super) fn encode_frame(marker: &Marker, offset: Offset, nth: u32, record: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(marker);
    out.extend_from_slice(&offset.0.to_le_bytes());
    out.extend_from_slice(&nth.to_le_bytes());
    out.extend_from_slice(&(record.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[start..]), record);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(record);
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHead {
    pub(super) offset: Offset,
    /// Its place among the frames that were synced together: all before those were acknowledged.
    nth: u32,
    /// Bytes of the record.
    pub(super) record: usize,
    crc: u32,
}

impl FrameHead {
    /// Reads the fixed part; `None` when it cannot be that of a frame of this segment.
    pub(super) fn decode(head: &[u8], marker: &Marker) -> Option<Self> {
        if head.len() < FRAME_OVERHEAD || !head.starts_with(marker) {
            return None;
        }
        let (offset, nth) = (Offset(u64_at(head, 8)), u32_at(head, 16));
        let (record, crc) = (u32_at(head, 20) as usize, u32_at(head, 24));
        (record <= RECORD_BYTES_MAX).then_some(Self { offset, nth, record, crc })
    }

    /// Returns the end of what was acknowledged before this frame was written.
    pub(super) fn acknowledged(&self) -> Offset {
        Offset(self.offset.0.saturating_sub(u64::from(self.nth)))
    }

    /// Says whether the checksum agrees; `frame` is the whole of it.
    pub(super) fn is_valid(&self, frame: &[u8]) -> bool {
        let (head, record) = frame.split_at(FRAME_OVERHEAD);
        crc32c::crc32c_append(crc32c::crc32c(&head[..FRAME_OVERHEAD - 4]), record) == self.crc
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            previous_end: Offset(5),
            previous_torn: Offset(2)..Offset(4),
            ..Header::new(PartitionId(1), 2, Offset(7))
        }
    }

    #[test]
    fn a_header_survives_any_one_damaged_byte() {
        let good = header();
        let bytes = good.encode();
        for at in 0..bytes.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut bad = bytes;
                bad[at] ^= mask;
                assert_eq!(Header::decode(&bad), Opened::Valid(good.clone()), "byte {at}");
            }
        }
    }

    #[test]
    fn a_newer_version_is_named_and_a_short_header_is_damage() {
        let mut bytes = header().encode();
        for at in [8, SECTOR + 8] {
            bytes[at] = 9;
        }
        assert_eq!(Header::decode(&bytes), Opened::Newer(9));
        assert_eq!(Header::decode(&header().encode()[..40]), Opened::Damaged);
        assert_eq!(Header::decode(&[]), Opened::Damaged);
        assert_eq!(Header::decode(&[0; HEADER_BYTES]), Opened::Damaged);
    }
}
