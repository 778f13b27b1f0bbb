//! Memory of another process of this machine, read in one copy (`process_vm_readv(2)`), as the MPIs themselves do.
//!
//! Whether the system allows it is found out by trying: each process has a secret somewhere, and who knows where can compare.
#![allow(unsafe_code)]

use std::env;
use std::io;
use std::sync::OnceLock;

use bytemuck::AnyBitPattern;
use serde::{Deserialize, Serialize};

/// Where a process has its secret, and what that is: whoever finds it there can read the memory of this process, and not
/// that of another with the same number in another name space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probe {
    pub(crate) pid: u32,
    address: u64,
    secret: [u64; 2],
}

/// The variable that keeps hosts and workers from reading each other's memory.
pub(crate) const LENDING: &str = "OFFSHOOT_LENDING";

/// Whether they may, as far as the user is concerned.
pub(crate) fn is_lending() -> bool {
    env::var_os(LENDING).is_none_or(|wish| wish != "off")
}

/// That of this process. None where nobody is to read its memory, or the system has no secrets to give.
pub(crate) fn probe() -> Option<Probe> {
    if !is_lending() {
        return None;
    }
    static SECRET: OnceLock<[u64; 2]> = OnceLock::new();
    if SECRET.get().is_none() {
        let mut secret = [0; 16];
        rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty()).ok()?;
        SECRET.get_or_init(|| bytemuck::cast(secret));
    }
    let secret = SECRET.get()?;
    Some(Probe { pid: std::process::id(), address: address_of(secret), secret: *secret })
}

/// Where something lies, for another process.
pub(crate) fn address_of<T: ?Sized>(thing: &T) -> u64 {
    (&raw const *thing).cast::<u8>().addr() as u64
}

impl Probe {
    /// Whether this process can read the memory of that one.
    pub(crate) fn is_readable(&self) -> bool {
        let mut found: Vec<u64> = Vec::new();
        read_memory(self.pid, self.address, 2, &mut found).is_ok() && found == self.secret
    }
}

/// Appends what lies in the memory of a process, from an address on: so many numbers.
///
/// # Errors
/// If there is no such process, if it may not be read, if it has less there, or if there is no room. Nothing is appended then.
pub(crate) fn read_memory<T: AnyBitPattern>(
    pid: u32,
    address: u64,
    count: usize,
    numbers: &mut Vec<T>,
) -> io::Result<()> {
    numbers.try_reserve_exact(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let room = &mut numbers.spare_capacity_mut()[..count];
    let (start, bytes) = (room.as_mut_ptr().cast::<u8>(), size_of_val(room));
    let mut done = 0;
    while done < bytes {
        let left = bytes - done;
        let from = address.checked_add(done as u64).and_then(|from| usize::try_from(from).ok());
        let from = from.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: `done` is less than the room's length.
        let here = libc::iovec { iov_base: unsafe { start.add(done) }.cast(), iov_len: left };
        let there = libc::iovec { iov_base: std::ptr::without_provenance_mut(from), iov_len: left };
        // SAFETY: it writes to `room` only, and not more than that has; what it reads is the other process's.
        let read = unsafe { libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0) };
        match usize::try_from(read) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    // SAFETY: every byte of so many numbers was written, and any bytes are numbers of such a type.
    unsafe { numbers.set_len(numbers.len() + count) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_there() {
        let there: Vec<u32> = (0..100_000).collect();
        let (own, mut here) = (std::process::id(), vec![7]);
        read_memory(own, address_of(&there[10]), 50_000, &mut here).expect("it is this process's own");
        assert_eq!((here[0], &here[1..]), (7, &there[10..50_010]));
        for (pid, address, count) in [(own, 8, 1), (u32::MAX, address_of(&there[0]), 1), (own, 8, usize::MAX)]
        {
            assert!(read_memory(pid, address, count, &mut here).is_err());
        }
        assert_eq!(here.len(), 50_001, "nothing is appended");
    }

    #[test]
    fn a_probe_tells_its_process_from_others() {
        let probe = probe().expect("there are secrets");
        assert!(probe.is_readable());
        let other = Probe { secret: [1, 2], ..probe };
        assert!(!other.is_readable());
    }
}
