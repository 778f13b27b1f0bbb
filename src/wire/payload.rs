//! The encoding of a value, in the pieces in which its bytes lie in memory.
//!
//! A small value is one piece. Of one that has large arrays, each of these is a piece: it lies where the user has put it, and
//! travels from there, or stays there until the other side fetches it (`array.rs`).

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::array::{Array, Remote};
use super::frame::APART;
use super::memory::Memory;

/// Bytes, end to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(super) first: Bytes,
    /// Without memory of their own where there are none, as with most tasks.
    pub(super) others: Box<[Piece]>,
}

/// Some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Bytes(Bytes),
    Array(Arc<Array>),
    Remote(Remote),
}

/// A piece of a payload that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    Bytes(&'a Bytes),
    Array(&'a Arc<Array>),
    Remote(&'a Remote),
}

impl Piece {
    pub(super) fn array(memory: Memory) -> Self {
        Self::Array(Arc::new(Array::new(memory)))
    }

    pub(super) fn len(&self) -> usize {
        self.part().len()
    }

    fn part(&self) -> Part<'_> {
        match self {
            Self::Bytes(bytes) => Part::Bytes(bytes),
            Self::Array(array) => Part::Array(array),
            Self::Remote(remote) => Part::Remote(remote),
        }
    }
}

impl Part<'_> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Array(array) => array.bytes().len(),
            Self::Remote(remote) => remote.length(),
        }
    }

    /// Where the other side finds it, if it is not sent: an array, where those are lent, and what was lent to this process.
    pub(super) fn lent(self, lend: bool) -> Option<Remote> {
        match self {
            Self::Bytes(_) => None,
            Self::Array(array) => lend.then(|| array.whereabouts()),
            Self::Remote(remote) => Some(*remote),
        }
    }

    /// What this process has of it.
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Array(array) => array.bytes(),
            Self::Remote(_) => &[],
        }
    }

    /// The same, without a copy.
    pub(super) fn to_bytes(self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Array(array) => Bytes::from_owner(Sent(Arc::clone(array))),
            Self::Remote(_) => Bytes::new(),
        }
    }
}

struct Sent(Arc<Array>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl Payload {
    pub(super) fn new(first: Bytes, others: Vec<Piece>) -> Self {
        Self { first, others: others.into() }
    }

    /// What is made of these, the first of which are bytes.
    pub(super) fn of(mut pieces: Vec<Piece>) -> Self {
        match pieces.first_mut() {
            Some(Piece::Bytes(first)) => {
                let first = std::mem::take(first);
                pieces.remove(0);
                Self::new(first, pieces)
            }
            Some(Piece::Array(_) | Piece::Remote(_)) | None => Self::new(Bytes::new(), pieces),
        }
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.parts().map(Part::len).fold(0, usize::saturating_add)
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'_>> + Clone {
        std::iter::once(Part::Bytes(&self.first)).chain(self.others.iter().map(Piece::part))
    }

    /// Whether there are large arrays in it.
    pub(crate) fn is_in_pieces(&self) -> bool {
        !self.others.is_empty()
    }

    /// The arrays in it that this process has.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Arc<Array>> {
        self.others.iter().filter_map(|piece| match piece {
            Piece::Array(array) => Some(array),
            Piece::Bytes(_) | Piece::Remote(_) => None,
        })
    }

    /// Whether there are arrays in it that another process has.
    pub(crate) fn is_remote(&self) -> bool {
        self.others.iter().any(|piece| matches!(piece, Piece::Remote(_)))
    }

    /// Fetches the first array that another process has, at most so many bytes of it. Whether that is here now. What has come of it
    /// is kept in `begun`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn fetch(&mut self, begun: &mut Option<Memory>, bytes_max: usize) -> io::Result<bool> {
        for piece in &mut self.others {
            if let Piece::Remote(remote) = piece {
                let array = remote.go_on(begun, bytes_max)?;
                return Ok(array.map(|array| *piece = Piece::Array(Arc::new(array))).is_some());
            }
        }
        Ok(true)
    }
}

impl From<Bytes> for Payload {
    fn from(first: Bytes) -> Self {
        Self { first, others: Box::default() }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() < APART {
            return Bytes::from(bytes).into();
        }
        Self::new(Bytes::new(), vec![Piece::array(Memory::Bytes(bytes))])
    }
}

#[cfg(test)]
impl Payload {
    /// An array, however small.
    pub(crate) fn array_of(bytes: &[u8]) -> Self {
        Self::of(vec![Piece::array(Memory::Bytes(bytes.to_vec()))])
    }

    /// As whoever it is lent to has it.
    pub(crate) fn lent(&self) -> Self {
        let pieces = self
            .parts()
            .map(|part| part.lent(true).map_or_else(|| Piece::Bytes(part.to_bytes()), Piece::Remote));
        Self::of(pieces.collect())
    }

    /// All of it in one piece.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.parts().flat_map(|part| part.as_slice().to_vec()).collect()
    }
}
