//! The process manager of the MPICH family, as a guard has to do with it, in its worker's place.
//!
//! Whoever is started by one has a socket to it, `PMI_FD`. Hydra's proxy takes a close of it without `cmd=finalize` for
//! a crash, after which it kills everything that it started and the host's process group. Offshoot's own, in the
//! host, does nothing of the kind. The protocol is PMI-1, line by line (MPICH, `src/pmi`).

use std::env;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::launch::{AWAITED, IS_AWAITED, NOT_AWAITED};
use crate::process;

const FD_VARIABLE: &str = "PMI_FD";
/// A guard's socket to the host's own process manager is its standard input, which it needs for nothing else.
const STANDARD_INPUT: &str = "0";

/// The process manager of this guard and its worker.
#[derive(Clone, Copy, Debug)]
pub(super) enum Manager {
    /// The MPI has none of this kind.
    None,
    /// The MPI's own.
    Launchers(RawFd),
    /// A thread of the host.
    Hosts(RawFd),
}

impl Manager {
    /// Finds it. The first thing that a guard does.
    pub(super) fn meet() -> Self {
        let Ok(fd) = env::var(FD_VARIABLE) else { return Self::None };
        if fd != STANDARD_INPUT {
            return fd.parse().map_or(Self::None, Self::Launchers);
        }
        let taken = process::take_standard_input();
        let Ok(fd) =
            taken.inspect_err(|error| eprintln!("offshoot: the guard has no process manager: {error}"))
        else {
            return Self::None;
        };
        process::set_variable(FD_VARIABLE, fd.to_string().as_ref());
        Self::Hosts(fd)
    }

    /// What it calls the job of the worker.
    pub(super) fn job_name(self) -> Option<String> {
        let (Self::Launchers(fd) | Self::Hosts(fd)) = self else { return None };
        let answer = process::converse(fd, b"cmd=get_my_kvsname\n")?;
        let answer = String::from_utf8_lossy(&answer);
        let words = answer.strip_prefix("cmd=my_kvsname")?.split_whitespace();
        words.filter_map(|word| word.strip_prefix("kvsname=")).next().map(str::to_owned)
    }

    /// Says goodbye.
    pub(super) fn finalize(self) {
        match self {
            Self::None => {}
            Self::Launchers(fd) | Self::Hosts(fd) => drop(process::converse(fd, b"cmd=finalize\n")),
        }
    }

    /// Hears what it still had to say to a worker that has died in the middle of a conversation, so that whoever
    /// speaks next is not answered what was not asked.
    pub(super) fn hear_out(self) {
        match self {
            Self::None | Self::Hosts(_) => {}
            Self::Launchers(fd) => process::drain(fd, SILENCE),
        }
    }

    /// Whether the parent is waiting, or may be, for a process that initializes MPI, where the worker has not said
    /// that it did. The host's own manager knows; it makes the spawn fail itself, as long as nobody
    /// has asked for the parent's address.
    pub(super) fn is_awaited(self) -> bool {
        let Self::Hosts(fd) = self else { return true };
        let question = format!("cmd=get kvsname=none key={IS_AWAITED}\n");
        let mut heard = Vec::new();
        let mut next = process::converse(fd, question.as_bytes());
        // What the dead worker was to be answered comes first.
        while let Some(bytes) = next.filter(|bytes| !bytes.is_empty() && heard.len() < ANSWER_MAX) {
            heard.extend_from_slice(&bytes);
            let text = String::from_utf8_lossy(&heard);
            if text.contains(AWAITED) {
                return true;
            }
            if text.contains(NOT_AWAITED) {
                return false;
            }
            next = process::converse(fd, b"");
        }
        // The host is gone.
        false
    }
}

/// An answer comes within a fraction of this.
const SILENCE: Duration = Duration::from_millis(50);
/// More than a worker may have left unread.
const ANSWER_MAX: usize = 64 << 10;
