//! A parent as a process of the host: how it is started, how it is ended, and how it has ended.
//!
//! A thread for each waits for its end and wakes the host: so the host knows within a moment, and no zombie stays. The
//! thread is there until the process is gone, whatever becomes of the pool.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Channel;
use crate::containment::Containment;
use crate::launch;
use crate::process;
use crate::transport::Doorbell;

/// Of its arguments, what names it in a list of processes.
const FLAG: &str = "--offshoot-parent";

/// How long the daemons of a parent that was killed may take to notice.
const DAEMONS_LEAVE: Duration = Duration::from_secs(2);

/// A parent that was started.
pub(super) struct ParentProcess {
    pid: u32,
    /// It stands for this process only, even when its number is another's.
    handle: OwnedFd,
    end: Arc<End>,
}

#[derive(Default)]
struct End {
    status: Mutex<Option<io::Result<ExitStatus>>>,
    known: Condvar,
}

impl ParentProcess {
    /// Starts one, with one end of a new socket. The host's doorbell is rung when it has ended.
    pub(super) fn start(
        executable: &Path,
        containment: Option<Containment>,
        doorbell: &Arc<Doorbell>,
    ) -> io::Result<(Self, Channel)> {
        let (own, theirs) = Channel::pair()?;
        let mut command = Command::new(executable);
        command
            .arg(FLAG)
            .env_clear()
            .envs(launch::parent_environment(theirs.as_raw_fd(), containment))
            // Standard input is the host's, and no daemon's of an MPI.
            .stdin(Stdio::null());
        process::in_own_session(&mut command);
        process::hand_over(&mut command, theirs.as_fd());
        let child = command.spawn()?;
        let pid = child.id();
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let handle = pidfd_open(id, PidfdFlags::empty())?;
        let end = Arc::new(End::default());
        let (told, doorbell) = (Arc::clone(&end), Arc::clone(doorbell));
        thread::Builder::new()
            .name("offshoot parent".to_owned())
            .spawn(move || told.await_child(child, &doorbell))?;
        Ok((Self { pid, handle, end }, Channel::new(own)))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.end.status.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn kill(&self) {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// How it has ended, if that is known in time.
    pub(super) fn describe_end(&self, patience: Duration) -> Option<String> {
        let status = self.end.status.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.end.known.wait_timeout_while(status, patience, |status| status.is_none());
        let (status, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Some(match status.as_ref()? {
            Err(error) => format!("nobody knows how: {error}"),
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("it exited with code {code}"),
                (None, Some(signal)) => format!("it was killed by {}", process::signal_name(signal)),
                (None, None) => format!("its status is {status}"),
            },
        })
    }
}

impl End {
    fn await_child(&self, mut child: Child, doorbell: &Doorbell) {
        let status = child.wait();
        let is_clean = status.as_ref().is_ok_and(ExitStatus::success);
        // Counted before anybody knows that it has ended.
        let cleaning = (!is_clean).then(Cleaning::begin);
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        self.known.notify_all();
        doorbell.ring();
        if let Some(cleaning) = cleaning {
            thread::sleep(DAEMONS_LEAVE);
            launch::remove_daemons_folders();
            launch::remove_launchers_folders(child.id());
            drop(cleaning);
        }
    }
}

/// How many parents were killed whose daemons' folders are still to be removed, and when that changes.
static CLEANINGS: (Mutex<u32>, Condvar) = (Mutex::new(0), Condvar::new());

/// The removal of what a parent that was killed has left.
struct Cleaning(());

impl Cleaning {
    fn begin() -> Self {
        *CLEANINGS.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(())
    }
}

impl Drop for Cleaning {
    fn drop(&mut self) {
        *CLEANINGS.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        CLEANINGS.1.notify_all();
    }
}

/// Waits until nothing of a parent that was killed is left: this process may be about to end, and those that do it with it.
pub(super) fn await_cleanings() {
    let count = CLEANINGS.0.lock().unwrap_or_else(PoisonError::into_inner);
    drop(CLEANINGS.1.wait_timeout_while(count, DAEMONS_LEAVE * 2, |count| *count > 0));
}
