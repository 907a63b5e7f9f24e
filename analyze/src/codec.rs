//! How state becomes bytes and back, exactly: little-endian, floats by their bits, lengths as u32.
//!
//! The layout is in `docs/formats/snapshot-v1.md`. Reading never trusts a length that the bytes do not bear out.

use forewarn_schemas::{SeriesId, Timestamp};

use crate::error::AnalyzeError;

/// Bytes being read.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn bad(&self, what: &'static str) -> AnalyzeError {
        AnalyzeError::SnapshotContent(what, self.at)
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], AnalyzeError> {
        let end = self.at.checked_add(n).filter(|e| *e <= self.bytes.len()).ok_or_else(|| self.bad("cut short"))?;
        let out = &self.bytes[self.at..end];
        self.at = end;
        Ok(out)
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }
}

/// A piece of state.
pub(crate) trait State: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError>;
}

macro_rules! number {
    ($($t:ty),*) => { $(
        impl State for $t {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
                let bytes = input.take(size_of::<$t>())?;
                Ok(<$t>::from_le_bytes(bytes.try_into().expect("take returns as many bytes as it was asked for")))
            }
        }
    )* };
}
number!(u8, u16, u32, u64, i64, f64);

impl State for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        match u8::take(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(input.bad("a flag that is neither 0 nor 1")),
        }
    }
}

impl State for Timestamp {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_millis().put(out);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        i64::take(input).map(Self::from_millis)
    }
}

impl State for SeriesId {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        u32::take(input).map(Self)
    }
}

impl State for String {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        let n = u32::take(input)? as usize;
        let bytes = input.take(n)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| input.bad("text that is not UTF-8"))
    }
}

impl<T: State> State for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        if bool::take(input)? { T::take(input).map(Some) } else { Ok(None) }
    }
}

impl<T: State> State for Box<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (**self).put(out);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        T::take(input).map(Box::new)
    }
}

impl<T: State> State for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        for value in self {
            value.put(out);
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        let n = u32::take(input)? as usize;
        // Every element takes a byte at least, so this bounds what a false length can make us allocate.
        if n > input.remaining() {
            return Err(input.bad("a list longer than the bytes that are left"));
        }
        let mut out = Self::with_capacity(n.min(4096));
        for _ in 0..n {
            out.push(T::take(input)?);
        }
        Ok(out)
    }
}

impl<T: State + Copy + Default, const N: usize> State for [T; N] {
    fn put(&self, out: &mut Vec<u8>) {
        for value in self {
            value.put(out);
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, AnalyzeError> {
        let mut out = [T::default(); N];
        for value in &mut out {
            *value = T::take(input)?;
        }
        Ok(out)
    }
}

/// Implements [`State`] for a struct, field by field in the order given.
macro_rules! state_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::codec::State for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $( $crate::codec::State::put(&self.$field, out); )*
            }
            fn take(input: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::error::AnalyzeError> {
                $( let $field = $crate::codec::State::take(input)?; )*
                Ok(Self { $($field),* })
            }
        }
    };
}

/// Implements [`State`] for an enum without fields, as the byte given.
macro_rules! state_enum {
    ($name:ident { $($variant:ident = $byte:literal),* $(,)? }) => {
        impl $crate::codec::State for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(match self { $( Self::$variant => $byte, )* });
            }
            fn take(input: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::error::AnalyzeError> {
                match u8::take(input)? {
                    $( $byte => Ok(Self::$variant), )*
                    _ => Err(input.bad(concat!("a byte that is no ", stringify!($name)))),
                }
            }
        }
    };
}

pub(crate) use {state_enum, state_struct};
