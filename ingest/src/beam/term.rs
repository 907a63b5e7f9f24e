//! Erlang's external term format: what we send, and a decoder for what a peer sends, which is hostile until proven
//! otherwise.
//!
//! The decoder recurses at most [`DEPTH_MAX`] deep, makes at most [`TERMS_MAX`] terms, sets no memory aside on the word
//! of a length field, and refuses compressed terms: nothing that we ask for is answered with one. Terms that we never
//! look into (maps, funs, ports, large integers) are kept as their bytes. The decoder of the crate `eetf` does none of
//! this, which is why it serves the tests only.
//!
//! # Source
//! Erlang/OTP, *External Term Format*.

/// Deepest nesting taken.
pub(super) const DEPTH_MAX: usize = 64;
/// Most terms in one message; a list of 200,000 process ids has a fifth of it.
pub(super) const TERMS_MAX: usize = 1_000_000;

const NEW_FLOAT: u8 = 70;
const BIT_BINARY: u8 = 77;
const NEW_PID: u8 = 88;
const NEW_PORT: u8 = 89;
const NEWER_REFERENCE: u8 = 90;
const SMALL_INTEGER: u8 = 97;
const INTEGER: u8 = 98;
const ATOM: u8 = 100;
const PORT: u8 = 102;
const PID: u8 = 103;
const SMALL_TUPLE: u8 = 104;
const LARGE_TUPLE: u8 = 105;
const NIL: u8 = 106;
const STRING: u8 = 107;
const LIST: u8 = 108;
const BINARY: u8 = 109;
const SMALL_BIG: u8 = 110;
const LARGE_BIG: u8 = 111;
const NEW_FUN: u8 = 112;
const EXPORT: u8 = 113;
const NEW_REFERENCE: u8 = 114;
const SMALL_ATOM: u8 = 115;
const MAP: u8 = 116;
const ATOM_UTF8: u8 = 118;
const SMALL_ATOM_UTF8: u8 = 119;
const V4_PORT: u8 = 120;

/// Why bytes are not a term that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TermError {
    /// The bytes end inside a term.
    #[error("term is cut short")]
    Short,
    /// A tag that is unknown, or refused (a compressed term).
    #[error("term with tag {0} is not taken")]
    Tag(u8),
    /// A length or a text that cannot be.
    #[error("malformed term")]
    Malformed,
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("term is nested deeper than {DEPTH_MAX}")]
    Deep,
    /// More terms than [`TERMS_MAX`].
    #[error("more than {TERMS_MAX} terms in one message")]
    Many,
}

/// A term.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Term {
    /// An integer of 64 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// An atom.
    Atom(Box<str>),
    /// A tuple.
    Tuple(Vec<Term>),
    /// A proper list.
    List(Vec<Term>),
    /// A list of bytes, as the sender packed it.
    Text(Vec<u8>),
    /// A binary.
    Binary(Vec<u8>),
    /// A process id: its encoding, to be sent back as it came.
    Pid(Box<[u8]>),
    /// A reference: its encoding.
    Reference(Box<[u8]>),
    /// `fun Module:Function/Arity`; sent only.
    Export(&'static str, &'static str, u8),
    /// Something that we do not look into: its encoding.
    Opaque(Box<[u8]>),
}

impl Term {
    /// Makes an atom.
    pub(super) fn atom(name: &str) -> Self {
        Self::Atom(name.into())
    }

    /// Returns the integer, if it is one.
    pub(super) fn int(&self) -> Option<i64> {
        if let Self::Int(i) = self { Some(*i) } else { None }
    }

    /// Returns the integer as a sample's value; exact up to 2^53, the nearest above.
    pub(super) fn number(&self) -> Option<f64> {
        self.int().map(|i| i as f64)
    }

    /// Returns the atom's text, if it is one.
    pub(super) fn as_atom(&self) -> Option<&str> {
        if let Self::Atom(a) = self { Some(a) } else { None }
    }

    /// Returns the encoding of the process id, if it is one.
    pub(super) fn pid_bytes(&self) -> Option<&[u8]> {
        if let Self::Pid(raw) = self { Some(raw) } else { None }
    }

    /// Returns the tuple's elements, if it is one.
    pub(super) fn tuple(&self) -> Option<&[Self]> {
        if let Self::Tuple(t) = self { Some(t) } else { None }
    }

    /// Returns the list's elements, if it is a list of terms.
    pub(super) fn list(&self) -> Option<&[Self]> {
        if let Self::List(l) = self { Some(l) } else { None }
    }

    /// Returns the text of an Erlang string or binary; what is no Unicode is replaced.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(bytes) => Some(bytes.iter().map(|b| char::from(*b)).collect()),
            Self::Binary(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::List(items) => {
                let char_of = |t: &Self| u32::try_from(t.int()?).ok().and_then(char::from_u32);
                items.iter().map(char_of).collect()
            }
            _ => None,
        }
    }

    /// Appends the encoding, without the version byte.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(i) => encode_int(*i, out),
            Self::Float(f) => {
                out.push(NEW_FLOAT);
                out.extend(f.to_be_bytes());
            }
            Self::Atom(name) => encode_atom(name, out),
            Self::Tuple(items) => {
                match u8::try_from(items.len()) {
                    Ok(n) => out.extend([SMALL_TUPLE, n]),
                    Err(_) => encode_long(LARGE_TUPLE, items.len(), out),
                }
                items.iter().for_each(|t| t.encode(out));
            }
            Self::List(items) => {
                if !items.is_empty() {
                    encode_long(LIST, items.len(), out);
                    items.iter().for_each(|t| t.encode(out));
                }
                out.push(NIL);
            }
            Self::Text(bytes) => match u16::try_from(bytes.len()) {
                Ok(0) => out.push(NIL),
                Ok(n) => {
                    out.push(STRING);
                    out.extend(n.to_be_bytes());
                    out.extend(bytes);
                }
                Err(_) => {
                    encode_long(LIST, bytes.len(), out);
                    bytes.iter().for_each(|b| out.extend([SMALL_INTEGER, *b]));
                    out.push(NIL);
                }
            },
            Self::Binary(bytes) => {
                encode_long(BINARY, bytes.len(), out);
                out.extend(bytes);
            }
            Self::Pid(raw) | Self::Reference(raw) | Self::Opaque(raw) => out.extend(raw.iter()),
            Self::Export(module, function, arity) => {
                out.push(EXPORT);
                encode_atom(module, out);
                encode_atom(function, out);
                out.extend([SMALL_INTEGER, *arity]);
            }
        }
    }
}

/// Encodes a process id of the node `node`.
pub(super) fn pid(node: &str, id: u32, serial: u32, creation: u32) -> Term {
    let mut raw = vec![NEW_PID];
    encode_atom(node, &mut raw);
    [id, serial, creation].iter().for_each(|n| raw.extend(n.to_be_bytes()));
    Term::Pid(raw.into())
}

/// Encodes a reference of the node `node` with three words, the largest number that every release takes.
pub(super) fn reference(node: &str, creation: u32, words: [u32; 3]) -> Term {
    let mut raw = vec![NEWER_REFERENCE, 0, 3];
    encode_atom(node, &mut raw);
    raw.extend(creation.to_be_bytes());
    words.iter().for_each(|n| raw.extend(n.to_be_bytes()));
    Term::Reference(raw.into())
}

fn encode_int(i: i64, out: &mut Vec<u8>) {
    if let Ok(small) = u8::try_from(i) {
        out.extend([SMALL_INTEGER, small]);
    } else if let Ok(word) = i32::try_from(i) {
        out.push(INTEGER);
        out.extend(word.to_be_bytes());
    } else {
        let magnitude = i.unsigned_abs().to_le_bytes();
        let length = 8 - magnitude.iter().rev().take_while(|b| **b == 0).count();
        out.extend([SMALL_BIG, length as u8, u8::from(i < 0)]);
        out.extend(&magnitude[..length]);
    }
}

fn encode_atom(name: &str, out: &mut Vec<u8>) {
    match u8::try_from(name.len()) {
        Ok(n) => out.extend([SMALL_ATOM_UTF8, n]),
        Err(_) => {
            out.push(ATOM_UTF8);
            out.extend((name.len() as u16).to_be_bytes());
        }
    }
    out.extend(name.as_bytes());
}

/// Appends a tag and a length of 32 bits. Lengths are those of our own requests, far below the field's end.
fn encode_long(tag: u8, length: usize, out: &mut Vec<u8>) {
    out.push(tag);
    out.extend((length as u32).to_be_bytes());
}

/// Decodes terms from a message.
pub(super) struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    terms: usize,
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, terms: 0 }
    }

    /// Decodes one term that begins with the version byte 131.
    ///
    /// # Errors
    /// [`TermError`]; the decoder is of no use afterwards.
    pub(super) fn versioned(&mut self) -> Result<Term, TermError> {
        match self.u8()? {
            131 => self.term(0),
            tag => Err(TermError::Tag(tag)),
        }
    }

    fn term(&mut self, depth: usize) -> Result<Term, TermError> {
        if depth > DEPTH_MAX {
            return Err(TermError::Deep);
        }
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return Err(TermError::Many);
        }
        let start = self.at;
        Ok(match self.u8()? {
            SMALL_INTEGER => Term::Int(self.u8()?.into()),
            INTEGER => Term::Int(i32::from_be_bytes(self.array()?).into()),
            SMALL_BIG => {
                let length = self.u8()?.into();
                self.big(start, length)?
            }
            LARGE_BIG => {
                let length = self.length()?;
                self.big(start, length)?
            }
            NEW_FLOAT => Term::Float(f64::from_be_bytes(self.array()?)),
            ATOM | SMALL_ATOM | ATOM_UTF8 | SMALL_ATOM_UTF8 => {
                self.at = start;
                Term::Atom(self.atom()?)
            }
            SMALL_TUPLE => {
                let length = self.u8()?.into();
                Term::Tuple(self.items(length, depth)?)
            }
            LARGE_TUPLE => {
                let length = self.length()?;
                Term::Tuple(self.items(length, depth)?)
            }
            NIL => Term::List(Vec::new()),
            STRING => {
                let length = u16::from_be_bytes(self.array()?).into();
                Term::Text(self.take(length)?.to_vec())
            }
            LIST => {
                let length = self.length()?;
                let items = self.items(length, depth)?;
                match self.term(depth + 1)? {
                    Term::List(tail) if tail.is_empty() => Term::List(items),
                    _ => self.opaque(start),
                }
            }
            BINARY => {
                let length = self.length()?;
                Term::Binary(self.take(length)?.to_vec())
            }
            NEW_PID => Term::Pid(self.named(start, 12)?),
            PID => Term::Pid(self.named(start, 9)?),
            NEWER_REFERENCE => {
                let words = self.words()?;
                Term::Reference(self.named(start, 4 + 4 * words)?)
            }
            NEW_REFERENCE => {
                let words = self.words()?;
                Term::Reference(self.named(start, 1 + 4 * words)?)
            }
            PORT => Term::Opaque(self.named(start, 5)?),
            NEW_PORT => Term::Opaque(self.named(start, 8)?),
            V4_PORT => Term::Opaque(self.named(start, 12)?),
            BIT_BINARY => {
                let length = self.length()?;
                self.skip(length.checked_add(1).ok_or(TermError::Malformed)?)?;
                self.opaque(start)
            }
            NEW_FUN => {
                // The size counts itself.
                let size = self.length()?.checked_sub(4).ok_or(TermError::Malformed)?;
                self.skip(size)?;
                self.opaque(start)
            }
            EXPORT => {
                self.items(3, depth)?;
                self.opaque(start)
            }
            MAP => {
                let pairs = self.length()?;
                self.items(pairs.checked_mul(2).ok_or(TermError::Malformed)?, depth)?;
                self.opaque(start)
            }
            tag => return Err(TermError::Tag(tag)),
        })
    }

    fn items(&mut self, count: usize, depth: usize) -> Result<Vec<Term>, TermError> {
        // Each term has a byte at least, so a count beyond the bytes is a lie; and memory is not set aside ahead of
        // the terms by more than one page or so.
        if count > self.bytes.len() - self.at {
            return Err(TermError::Short);
        }
        let mut items = Vec::with_capacity(count.min(256));
        for _ in 0..count {
            items.push(self.term(depth + 1)?);
        }
        Ok(items)
    }

    fn big(&mut self, start: usize, length: usize) -> Result<Term, TermError> {
        let negative = match self.u8()? {
            0 => false,
            1 => true,
            _ => return Err(TermError::Malformed),
        };
        let digits = self.take(length)?;
        let mut magnitude: u64 = 0;
        for (i, digit) in digits.iter().enumerate() {
            match *digit {
                0 => {}
                _ if i >= 8 => return Ok(self.opaque(start)),
                d => magnitude |= u64::from(d) << (8 * i),
            }
        }
        let value = if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() };
        Ok(value.map_or_else(|| self.opaque(start), Term::Int))
    }

    fn atom(&mut self) -> Result<Box<str>, TermError> {
        let tag = self.u8()?;
        let length = match tag {
            SMALL_ATOM | SMALL_ATOM_UTF8 => self.u8()?.into(),
            ATOM | ATOM_UTF8 => u16::from_be_bytes(self.array()?).into(),
            tag => return Err(TermError::Tag(tag)),
        };
        let bytes = self.take(length)?;
        match tag {
            ATOM | SMALL_ATOM => Ok(bytes.iter().map(|b| char::from(*b)).collect()),
            _ => std::str::from_utf8(bytes).map(Into::into).map_err(|_| TermError::Malformed),
        }
    }

    /// Skips a node's name and `rest` bytes, and returns all from `start` on.
    fn named(&mut self, start: usize, rest: usize) -> Result<Box<[u8]>, TermError> {
        self.atom()?;
        self.skip(rest)?;
        Ok(self.bytes[start..self.at].into())
    }

    fn words(&mut self) -> Result<usize, TermError> {
        match u16::from_be_bytes(self.array()?) {
            n @ 1..=5 => Ok(n.into()),
            _ => Err(TermError::Malformed),
        }
    }

    fn opaque(&self, start: usize) -> Term {
        Term::Opaque(self.bytes[start..self.at].into())
    }

    fn length(&mut self) -> Result<usize, TermError> {
        Ok(u32::from_be_bytes(self.array()?) as usize)
    }

    fn u8(&mut self) -> Result<u8, TermError> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TermError> {
        self.take(N)?.try_into().map_err(|_| TermError::Short)
    }

    fn skip(&mut self, count: usize) -> Result<(), TermError> {
        self.take(count).map(drop)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], TermError> {
        let end = self.at.checked_add(count).ok_or(TermError::Malformed)?;
        let bytes = self.bytes.get(self.at..end).ok_or(TermError::Short)?;
        self.at = end;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
