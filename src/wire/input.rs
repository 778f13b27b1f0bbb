//! What a value is decoded from: the pieces of a payload, read in order, in part or whole.
//!
//! An array that is wanted as it is, is taken as it is; one that another process has is read where it lies, to where the value will
//! have it. Whatever is read otherwise is copied out, byte by byte if need be.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::array::{Array, Remote};
use super::bulk::copy_of;
use super::memory::{Memory, Number};
use super::payload::Piece;

/// The bytes that a value is decoded from. The codec reads from it, and so does this file, in turns.
#[derive(Debug)]
pub(super) struct Input<'b> {
    /// What has not been read of the first piece.
    first: Cell<&'b [u8]>,
    /// Nothing, mostly: short values are one piece.
    others: Option<RefCell<Others>>,
}

/// The pieces behind the first.
#[derive(Debug, Default)]
struct Others {
    pieces: VecDeque<Piece>,
    /// How much has been read of the first of these.
    done: usize,
    /// A part of it that is here already, and where it begins, if another process has it.
    window: (usize, Vec<u8>),
    /// What other processes have and was read.
    read: Vec<Remote>,
}

/// Why there is nothing to read.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    #[error("an array of {count} numbers is longer than what came")]
    Short { count: u64 },
    #[error("could not be read where they are: {0}")]
    Remote(#[from] io::Error),
}

/// So many bytes are fetched at once where not a whole array is wanted.
const WINDOW: usize = 64 << 10;

impl<'b> Input<'b> {
    pub(super) fn new(first: &'b [u8], others: Vec<Piece>) -> Self {
        let behind = |pieces: Vec<Piece>| RefCell::new(Others { pieces: pieces.into(), ..Others::default() });
        Self { first: Cell::new(first), others: (!others.is_empty()).then(|| behind(others)) }
    }

    /// How many bytes have not been read.
    pub(super) fn left(&self) -> usize {
        let behind = self.others.as_ref().map_or(0, |others| others.borrow().left());
        self.first.get().len().saturating_add(behind)
    }

    /// Copies the next bytes out.
    pub(super) fn read(&self, bytes: &mut [u8]) -> Result<(), ReadError> {
        if let Some((taken, rest)) = self.first.get().split_at_checked(bytes.len()) {
            self.first.set(rest);
            bytes.copy_from_slice(taken);
            return Ok(());
        }
        let short = ReadError::Short { count: bytes.len() as u64 };
        let others = self.others.as_ref().filter(|_| self.first.get().is_empty()).ok_or(short)?;
        others.borrow_mut().read(bytes)
    }

    /// The next bytes, if they are here and lie together.
    pub(super) fn peek(&self, count: usize) -> Option<&'b [u8]> {
        self.first.get().get(..count)
    }

    /// Goes on past bytes that were peeked at.
    pub(super) fn skip(&self, count: usize) {
        self.first.set(self.first.get().get(count..).unwrap_or_default());
    }

    /// Reads an array of so many numbers.
    pub(super) fn read_array<N: Number>(&self, count: u64) -> Result<Vec<N>, ReadError> {
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(size_of::<N>()));
        let bytes = bytes.filter(|bytes| *bytes <= self.left()).ok_or(ReadError::Short { count })?;
        if let Some((taken, rest)) = self.first.get().split_at_checked(bytes) {
            self.first.set(rest);
            return Ok(copy_of(taken));
        }
        let others = self.others.as_ref().filter(|_| self.first.get().is_empty());
        others.ok_or(ReadError::Short { count })?.borrow_mut().read_array(bytes)
    }

    /// Makes sure that what was read from the memory of other processes was what had been lent.
    pub(super) fn check(&self) -> Result<(), ReadError> {
        let read = self.others.as_ref().map(RefCell::borrow);
        Ok(read.iter().flat_map(|others| &others.read).try_for_each(Remote::check)?)
    }
}

impl Others {
    fn left(&self) -> usize {
        self.pieces.iter().map(Piece::len).fold(0, usize::saturating_add) - self.done
    }

    /// Has the first piece be one from which something is left to be read, if there is one.
    fn go_to_next(&mut self) {
        while self.pieces.front().is_some_and(|piece| piece.len() == self.done) {
            self.pieces.pop_front();
            self.done = 0;
            self.window = (0, Vec::new());
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        self.go_to_next();
        let (begin, end) = (self.done, self.done.saturating_add(bytes.len()));
        let Some(piece) = self.pieces.front().filter(|piece| end <= piece.len()) else {
            return Err(ReadError::Short { count: bytes.len() as u64 });
        };
        let here = match piece {
            Piece::Bytes(piece) => &piece[begin..end],
            Piece::Array(array) => &array.bytes()[begin..end],
            Piece::Remote(remote) => {
                let (from, window) = &mut self.window;
                if begin < *from || end > *from + window.len() {
                    *window = remote.read(begin, bytes.len().max(WINDOW).min(piece.len() - begin))?;
                    *from = begin;
                    note(&mut self.read, *remote);
                }
                &window[begin - *from..end - *from]
            }
        };
        bytes.copy_from_slice(here);
        self.done = end;
        Ok(())
    }

    fn read_array<N: Number>(&mut self, bytes: usize) -> Result<Vec<N>, ReadError> {
        self.go_to_next();
        let count = bytes / size_of::<N>();
        let (begin, end) = (self.done, self.done + bytes);
        let Some(piece) = self.pieces.front_mut().filter(|piece| end <= piece.len()) else {
            return if bytes == 0 { Ok(Vec::new()) } else { Err(ReadError::Short { count: count as u64 }) };
        };
        self.done = end;
        Ok(match piece {
            Piece::Bytes(piece) => copy_of(&piece[begin..end]),
            Piece::Array(array) => {
                let is_whole = array.bytes().len() == bytes;
                // Nobody else has it, as a rule, and then it need not be copied.
                match Arc::get_mut(array).filter(|_| is_whole).map(Array::take) {
                    Some(memory) => {
                        self.pieces.pop_front();
                        self.done = 0;
                        memory.into_numbers().unwrap_or_else(|memory: Memory| copy_of(memory.bytes()))
                    }
                    None => copy_of(&array.bytes()[begin..end]),
                }
            }
            Piece::Remote(remote) => {
                note(&mut self.read, *remote);
                remote.read(begin, count)?
            }
        })
    }
}

/// It is to be checked in the end.
fn note(read: &mut Vec<Remote>, remote: Remote) {
    if read.last() != Some(&remote) {
        read.push(remote);
    }
}
