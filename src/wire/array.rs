//! Large arrays: where the numbers of one lie, in this process or in another of this machine.
//!
//! An array that travels between two processes of which one can read the other's memory is not sent: its sender tells where
//! it lies ([`Remote`]), and its receiver copies it once, to where its user will have it. The sender keeps it until it is
//! told that this was done, or until nobody wants it any more. A receiver that was given up meanwhile may read what is
//! something else by then; so each array has a number of its own, which is erased before its memory is used for anything
//! else, and is read after the array.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::memory::{Memory, Number};
use crate::process;

/// An array that this process has.
#[derive(Debug)]
pub(crate) struct Array {
    memory: Memory,
    /// Its number, or none any more.
    number: AtomicU64,
}

/// An array that another process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub(crate) struct Remote {
    pid: u32,
    address: u64,
    /// Of all numbers, in bytes.
    #[cfg_attr(test, proptest(strategy = "0..1_u64 << 40"))]
    length: u64,
    /// Of one of them, in bytes.
    width: u8,
    /// Where the number of the array is, and what it is.
    number_at: u64,
    number: u64,
}

impl Array {
    pub(super) fn new(memory: Memory) -> Self {
        // What lies where an array was cannot be its number but by chance, so this is none that anything else has.
        let mut number = [0; 8];
        let made = rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty());
        let number = made.map_or(0, |_| u64::from_ne_bytes(number) | 1);
        Self { memory, number: AtomicU64::new(number) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// Where it lies, for another process, and does so until it is dropped.
    pub(super) fn whereabouts(self: &Arc<Self>) -> Remote {
        let bytes = self.bytes();
        Remote {
            pid: std::process::id(),
            address: process::address_of(bytes),
            length: bytes.len() as u64,
            width: self.memory.width(),
            number_at: process::address_of(&self.number),
            number: self.number.load(Ordering::Relaxed),
        }
    }

    /// Takes the memory. Whoever still reads it from elsewhere will know.
    pub(super) fn take(&mut self) -> Memory {
        self.number.swap(0, Ordering::SeqCst);
        std::mem::replace(&mut self.memory, Memory::Bytes(Vec::new()))
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        self.take().leave();
    }
}

impl PartialEq for Array {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Array {}

impl Remote {
    pub(super) fn length(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }

    /// Reads numbers that lie in it, so many bytes after its beginning.
    pub(super) fn read<N: Number>(&self, offset: usize, count: usize) -> io::Result<Vec<N>> {
        let mut numbers = Memory::find_for(count)?;
        process::read_memory(self.pid, self.address.wrapping_add(offset as u64), count, &mut numbers)?;
        Ok(numbers)
    }

    /// Reads on, at most so many bytes: all of it is here when it is an array.
    pub(super) fn go_on(&self, begun: &mut Option<Memory>, bytes_max: usize) -> io::Result<Option<Array>> {
        let mut memory = match begun.take() {
            Some(memory) => memory,
            None if self.length.is_multiple_of(u64::from(self.width)) => {
                Memory::find(self.width, self.length())?
            }
            None => return Err(io::ErrorKind::InvalidData.into()),
        };
        let done = memory.bytes().len();
        let bytes = (self.length() - done).min(bytes_max);
        memory.read(self.pid, self.address.wrapping_add(done as u64), bytes)?;
        if done + bytes < self.length() {
            *begun = Some(memory);
            return Ok(None);
        }
        self.check()?;
        Ok(Some(Array::new(memory)))
    }

    /// Makes sure that what was read until now was the array.
    pub(super) fn check(&self) -> io::Result<()> {
        let mut number = Vec::with_capacity(1);
        process::read_memory::<u64>(self.pid, self.number_at, 1, &mut number)?;
        let is_there = self.number != 0 && number == [self.number];
        is_there.then_some(()).ok_or_else(|| io::Error::other("it is not there any more"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lent(count: u64) -> (Arc<Array>, Remote) {
        let array = Arc::new(Array::new(Memory::of((0..count).collect())));
        let remote = array.whereabouts();
        (array, remote)
    }

    #[test]
    fn what_is_lent_comes_in_slices_or_in_part() {
        let (array, remote) = lent(1_000);
        let mut begun = None;
        for _ in 0..7 {
            assert!(remote.go_on(&mut begun, 1024).expect("it is there").is_none());
        }
        let whole = remote.go_on(&mut begun, 1024).expect("it is there").expect("it is whole");
        assert_eq!(whole, *array);
        let (_array, remote) = lent(1_000);
        assert_eq!(remote.read::<u64>(80, 3).expect("it is there"), [10, 11, 12]);
    }

    #[test]
    fn what_was_taken_back_is_noticed() {
        let (mut array, remote) = lent(1_000);
        let mut begun = None;
        assert!(remote.go_on(&mut begun, 4096).expect("it is there").is_none());
        // Its memory stays where it is, so that all of it can be read.
        let memory = Arc::get_mut(&mut array).expect("nobody else has it").take();
        let error = remote.go_on(&mut begun, usize::MAX).expect_err("it is the borrower's no more");
        assert!(error.to_string().contains("not there any more"), "{error}");
        drop(memory);
    }

    #[test]
    fn lies_about_arrays_are_errors() {
        let (_array, remote) = lent(10);
        for lie in [
            Remote { width: 0, ..remote },
            Remote { width: 3, length: 81, ..remote },
            Remote { length: 79, ..remote },
            Remote { length: 1 << 60, ..remote },
            Remote { address: 8, ..remote },
            Remote { pid: u32::MAX, ..remote },
            Remote { number: 0, ..remote },
        ] {
            assert!(lie.go_on(&mut None, usize::MAX).is_err(), "{lie:?}");
        }
    }
}
