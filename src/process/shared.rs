//! Memory that processes of one host share: the page of a guard and its worker, and the words by which they wake each other.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::inherited;

/// A page of memory that a guard shares with its worker. There the worker says which task runs, for the price of
/// a store; a message for each would cost more than a short task does.
pub(crate) struct Board {
    words: NonNull<AtomicU64>,
}

/// What the words of a [`Board`] are.
const BOARD_TASK: usize = 0;
const BOARD_READS: usize = 1;
const BOARD_CONSTANTS: usize = 2;
const BOARD_CLAIM: usize = 6;
const BOARD_WORDS: usize = 8;
const BOARD_BYTES: usize = BOARD_WORDS * size_of::<AtomicU64>();

impl Board {
    /// Makes one, and the file by which another process can have it, too. `constants` are for that process.
    pub(crate) fn create(constants: [u64; 4]) -> io::Result<(Self, OwnedFd)> {
        let (words, file) = create_memory("offshoot board", BOARD_BYTES)?;
        let board = Self { words: words.cast() };
        for (at, constant) in constants.into_iter().enumerate() {
            board.word(BOARD_CONSTANTS + at).store(constant, Ordering::Relaxed);
        }
        Ok((board, file))
    }

    /// The one that this process inherited under this number.
    pub(crate) fn inherited(fd: RawFd) -> io::Result<(Self, [u64; 4])> {
        let file = inherited(fd);
        let board = Self { words: open_memory(&file, BOARD_BYTES)?.cast() };
        let constants = std::array::from_fn(|at| board.word(BOARD_CONSTANTS + at).load(Ordering::Relaxed));
        Ok((board, constants))
    }

    fn word(&self, at: usize) -> &'static AtomicU64 {
        assert!(at < BOARD_WORDS);
        // SAFETY: the mapping has so many words, is aligned to a page, stays for ever, and is written by atomic
        // operations only, whatever process does so.
        unsafe { self.words.add(at).as_ref() }
    }

    /// Where it is decided which task begins.
    pub(crate) fn claim(&self) -> &'static AtomicU64 {
        self.word(BOARD_CLAIM)
    }

    /// Says which task runs.
    pub(crate) fn begin(&self, task: u64) {
        self.word(BOARD_TASK).store(task << 1 | 1, Ordering::Release);
    }

    /// It does not run any more.
    pub(crate) fn end(&self, task: u64) {
        self.word(BOARD_TASK).store(task << 1, Ordering::Release);
    }

    /// The last task that has begun, and whether it runs.
    pub(crate) fn task(&self) -> (u64, bool) {
        let word = self.word(BOARD_TASK).load(Ordering::Acquire);
        (word >> 1, word & 1 == 1)
    }

    /// The guard has read something that the worker wrote.
    pub(crate) fn count_read(&self) {
        self.word(BOARD_READS).fetch_add(1, Ordering::Release);
    }

    pub(crate) fn reads(&self) -> u64 {
        self.word(BOARD_READS).load(Ordering::Acquire)
    }
}

/// Words that the processes of one host share to wake each other: each sleeps on one of its own. They lie far
/// enough from each other that who writes one disturbs no other.
const WORDS_APART: usize = 32;

/// Makes so many words, and the file by which another process can have them, too.
pub(crate) fn create_words(name: &str, count: usize) -> io::Result<(Words, OwnedFd)> {
    let (memory, file) = create_memory(name, count * WORDS_APART * size_of::<AtomicU32>())?;
    Ok((Words::at(memory, count), file))
}

/// The words that another process has made, with its file at hand.
pub(crate) fn open_words(file: &OwnedFd, count: usize) -> io::Result<Words> {
    let memory = open_memory(file, count * WORDS_APART * size_of::<AtomicU32>())?;
    Ok(Words::at(memory, count))
}

/// Words in memory that several processes share. It stays mapped for as long as this process lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words(&'static [AtomicU32]);

impl Words {
    fn at(memory: NonNull<u8>, count: usize) -> Self {
        // SAFETY: the mapping has so many words, is aligned to a page, stays for ever, and is written by atomic
        // operations only, whatever process does so.
        Self(unsafe { std::slice::from_raw_parts(memory.cast().as_ptr(), count * WORDS_APART) })
    }

    /// One of them.
    pub(crate) fn get(self, at: usize) -> Option<&'static AtomicU32> {
        self.0.get(at * WORDS_APART)
    }
}

/// Memory that has a file, for other processes to have it too. It stays mapped for ever.
fn create_memory(name: &str, bytes: usize) -> io::Result<(NonNull<u8>, OwnedFd)> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, bytes as u64)?;
    // Who has it mapped must not find it gone.
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok((map_memory(&file, bytes)?, file))
}

/// Memory that another process has made so.
fn open_memory(file: &OwnedFd, bytes: usize) -> io::Result<NonNull<u8>> {
    let is_whole = rustix::fs::fcntl_get_seals(file)?.contains(rustix::fs::SealFlags::SHRINK)
        && u64::try_from(rustix::fs::fstat(file)?.st_size) == Ok(bytes as u64);
    if is_whole { map_memory(file, bytes) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn map_memory(file: &OwnedFd, bytes: usize) -> io::Result<NonNull<u8>> {
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses a place that nobody has, and the mapping is never taken away. The file has
    // this length for as long as it is there.
    let memory = unsafe { mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, file, 0) }?;
    NonNull::new(memory.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
