//! The encoding of a value, in the pieces in which its bytes lie in memory.
//!
//! A small value is one piece. Of one that owned large arrays, each of these is a piece: it lies where the user has put it,
//! and travels from there. What is received is always one.

use bytes::Bytes;

/// Bytes, end to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Payload {
    first: Bytes,
    /// Without memory of their own where there are none, as with most tasks.
    others: Box<[Bytes]>,
}

impl Payload {
    pub(crate) fn new(first: Bytes, others: Vec<Bytes>) -> Self {
        Self { first, others: others.into() }
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.pieces().map(Bytes::len).sum()
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Bytes> + Clone {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Whether there are large arrays in it.
    pub(crate) fn is_in_pieces(&self) -> bool {
        !self.others.is_empty()
    }

    /// All of it in one piece.
    pub(crate) fn into_bytes(self) -> Bytes {
        if self.others.is_empty() { self.first } else { self.pieces().flatten().copied().collect() }
    }
}

impl From<Bytes> for Payload {
    fn from(first: Bytes) -> Self {
        Self { first, others: Box::default() }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}
