//! Memory that another process has filled and sealed: it is read where it lies, and nobody can change it any more.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// What a file must have so that nothing of it changes or vanishes while it is mapped.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE);

/// A file in memory with these bytes, end to end, which nobody can change.
pub(crate) fn seal<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> io::Result<OwnedFd> {
    let file = memfd_create("offshoot payload", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    for mut piece in pieces {
        while !piece.is_empty() {
            match rustix::io::write(&file, piece)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => piece = &piece[written..],
            }
        }
    }
    fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
    Ok(file)
}

/// Such a file, mapped for as long as this lives.
#[derive(Debug)]
pub(crate) struct Sealed {
    memory: NonNull<u8>,
    length: usize,
}

// SAFETY: nobody writes what it points to, here or in another process, so any thread may read it.
unsafe impl Send for Sealed {}
// SAFETY: as for `Send`.
unsafe impl Sync for Sealed {}

impl Sealed {
    /// Maps a file that must be sealed, and have this length.
    pub(crate) fn open(file: impl AsFd, length: usize) -> io::Result<Self> {
        let is_sealed = fcntl_get_seals(&file)?.contains(SEALS);
        let is_whole = u64::try_from(fstat(&file)?.st_size) == Ok(length as u64);
        if !is_sealed || !is_whole || length == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: the kernel chooses a place that nobody has. The file keeps this length and content, by its seals.
        let memory = unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, flags, file, 0) }?;
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory, length })
    }
}

impl AsRef<[u8]> for Sealed {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: so many bytes are mapped until the drop, and nobody writes them.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `open`, and nothing borrows from it any more. It can only fail for arguments that
        // make no sense.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_read_and_cannot_be_changed() {
        let file = seal([&b"ab"[..], b"", b"cde"].into_iter()).expect("there is memory");
        assert!(rustix::io::pwrite(&file, b"x", 0).is_err(), "it is sealed");
        assert!(rustix::fs::ftruncate(&file, 1).is_err(), "it is sealed");
        let memory = Sealed::open(&file, 5).expect("it is sealed");
        drop(file);
        assert_eq!(memory.as_ref(), b"abcde");
    }

    #[test]
    fn what_may_change_or_is_of_another_length_is_refused() {
        let file = seal([&b"abc"[..]].into_iter()).expect("there is memory");
        for length in [0, 2, 4, usize::MAX] {
            assert!(Sealed::open(&file, length).is_err(), "{length}");
        }
        let open = memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memory");
        rustix::io::write(&open, b"abc").expect("it can be written");
        assert!(Sealed::open(&open, 3).is_err(), "somebody may still write it");
        let null = std::fs::File::open("/dev/null").expect("it is there");
        assert!(Sealed::open(&null, 1).is_err(), "that is no memory");
    }
}
