//! Frames out of a file, in order, over whatever damage lies between.

use std::io;
use std::ops::Range;

use forewarn_schemas::Offset;
use forewarn_vfs::VfsFile;

use super::frame::{FRAME_OVERHEAD, FrameHead, Marker};

/// How much is read at once.
const WINDOW: usize = 256 << 10;

/// What comes next in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A valid frame; its record is [`Frames::record`] until the next step.
    Frame { at: u64, offset: Offset, bytes: u64, acknowledged: Offset },
    /// Bytes that are no valid frame, up to the next one that is or to the end.
    Damage { at: u64, bytes: u64 },
}

/// Walks over the frames of a segment.
///
/// A frame is valid when it has the segment's marker, a matching checksum and a possible offset: after n bytes of
/// damage at most n / [`FRAME_OVERHEAD`] offsets can be missing. Damage costs the frames that it touches and no other.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    file: &'a dyn VfsFile,
    marker: Marker,
    at: u64,
    end: u64,
    expected: Offset,
    window: Vec<u8>,
    window_at: u64,
    record: Range<usize>,
}

impl<'a> Frames<'a> {
    /// Begins at byte `at`, where the frame of `expected` should be; nothing at or after byte `end` is looked at.
    pub(super) fn new(file: &'a dyn VfsFile, marker: Marker, at: u64, end: u64, expected: Offset) -> Self {
        Self { file, marker, at, end, expected, window: Vec::new(), window_at: 0, record: 0..0 }
    }

    /// Returns the record of the frame that the last step gave.
    pub(super) fn record(&self) -> &[u8] {
        &self.window[self.record.clone()]
    }

    /// Takes a step; `None` at the end.
    pub(super) fn step(&mut self) -> io::Result<Option<Step>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let at = self.at;
        if let Some((head, bytes)) = self.frame(at, 0)? {
            let (offset, acknowledged) = (head.offset, head.acknowledged());
            self.at = at + bytes;
            self.expected = offset.next();
            return Ok(Some(Step::Frame { at, offset, bytes, acknowledged }));
        }
        self.at = self.end;
        let mut from = at + 1;
        while let Some(found) = self.find_marker(from)? {
            let missing_max = (found - at) / FRAME_OVERHEAD as u64;
            if let Some((head, _)) = self.frame(found, missing_max)? {
                (self.at, self.expected) = (found, head.offset);
                break;
            }
            from = found + 1;
        }
        // A file shorter than promised may have moved the end.
        self.at = self.at.min(self.end);
        Ok(Some(Step::Damage { at, bytes: self.at.saturating_sub(at) }))
    }

    /// Returns head and size of the frame at byte `at`, if there is a valid one.
    fn frame(&mut self, at: u64, missing_max: u64) -> io::Result<Option<(FrameHead, u64)>> {
        let marker = self.marker;
        let Some(head) = self.load(at, FRAME_OVERHEAD)? else { return Ok(None) };
        let Some(head) = FrameHead::decode(&self.window[head], &marker) else { return Ok(None) };
        let missing = head.offset.0.checked_sub(self.expected.0);
        if missing.is_none_or(|m| m > missing_max) {
            return Ok(None);
        }
        let Some(frame) = self.load(at, FRAME_OVERHEAD + head.record)? else { return Ok(None) };
        if !head.is_valid(&self.window[frame.clone()]) {
            return Ok(None);
        }
        self.record = frame.start + FRAME_OVERHEAD..frame.end;
        Ok(Some((head, frame.len() as u64)))
    }

    /// Returns the first place from `from` on where the marker stands.
    fn find_marker(&mut self, mut from: u64) -> io::Result<Option<u64>> {
        while from + FRAME_OVERHEAD as u64 <= self.end {
            let Some(_) = self.load(from, FRAME_OVERHEAD)? else { return Ok(None) };
            let haystack = &self.window[(from - self.window_at) as usize..];
            let first = self.marker[0];
            if let Some(i) = haystack.windows(8).position(|w| w[0] == first && *w == self.marker) {
                return Ok(Some(from + i as u64));
            }
            from += (haystack.len() - 7) as u64;
        }
        Ok(None)
    }

    /// Brings bytes into the window and returns where they are in it; `None` when they go past the end.
    fn load(&mut self, at: u64, len: usize) -> io::Result<Option<Range<usize>>> {
        if at + len as u64 > self.end {
            return Ok(None);
        }
        let inside = at >= self.window_at && at + len as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let want = (self.end - at).min(len.max(WINDOW) as u64) as usize;
            self.window.resize(want, 0);
            self.window_at = at;
            let mut done = 0;
            while done < want {
                match self.file.read_at(&mut self.window[done..], at + done as u64)? {
                    0 => break,
                    n => done += n,
                }
            }
            self.window.truncate(done);
            if done < want {
                self.end = at + done as u64;
            }
            if done < len {
                return Ok(None);
            }
        }
        let start = (at - self.window_at) as usize;
        Ok(Some(start..start + len))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use forewarn_vfs::{Open, SimVfs, Vfs};

    use super::super::frame::encode_frame;
    use super::*;

    const MARKER: Marker = *b"\x01\x02\x03\x04\x05\x06\x07\x08";

    fn walk(bytes: &[u8]) -> Vec<Step> {
        let vfs = SimVfs::new();
        let mut file = vfs.open(Path::new("/f"), Open::CreateNew).unwrap();
        file.append(bytes).unwrap();
        let mut frames = Frames::new(&*file, MARKER, 0, bytes.len() as u64, Offset(5));
        let mut out = Vec::new();
        while let Some(step) = frames.step().unwrap() {
            if let Step::Frame { offset, .. } = step {
                assert!(frames.record().iter().all(|b| *b == offset.0 as u8));
            }
            out.push(step);
        }
        out
    }

    fn three(record: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for offset in 5..8 {
            encode_frame(&MARKER, Offset(offset), 0, &vec![offset as u8; record], &mut bytes);
        }
        bytes
    }

    #[test]
    fn damage_costs_what_it_touches_also_across_windows() {
        for record in [0, 10, 200_000, 1 << 20] {
            let good = three(record);
            let frame = (FRAME_OVERHEAD + record) as u64;
            let at = |i: u64| {
                let offset = Offset(5 + i);
                Step::Frame { at: i * frame, offset, bytes: frame, acknowledged: offset }
            };
            assert_eq!(walk(&good), [at(0), at(1), at(2)]);
            let mut bad = good.clone();
            bad[frame as usize + 9] ^= 1;
            assert_eq!(walk(&bad), [at(0), Step::Damage { at: frame, bytes: frame }, at(2)]);
            let mut bad = good.clone();
            bad[3] ^= 1;
            assert_eq!(walk(&bad), [Step::Damage { at: 0, bytes: frame }, at(1), at(2)]);
            assert_eq!(walk(&good[..good.len() - 1])[2], Step::Damage { at: 2 * frame, bytes: frame - 1 });
        }
    }

    #[test]
    fn a_frame_with_an_impossible_offset_is_damage() {
        let mut bytes = three(10);
        let kept = bytes.len() as u64;
        for offset in [7, 900] {
            encode_frame(&MARKER, Offset(offset), 0, b"", &mut bytes);
        }
        assert_eq!(walk(&bytes)[3..], [Step::Damage { at: kept, bytes: 2 * FRAME_OVERHEAD as u64 }]);
    }
}
