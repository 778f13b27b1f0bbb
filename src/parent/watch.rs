//! Watches over what ends a parent: its host's end, and an MPI call that never returns.
//!
//! Two threads, because the main thread may be in an MPI call for long, or for ever. When the host is gone, the main thread
//! has a moment to end in order; then this ends the workers, the daemons of the MPI and the process. When an MPI call does
//! not return, the host is told why, and goes on with another parent.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};

use crate::launch::{self, Launchers};
use crate::process;
use crate::transport::control::Killer;
use crate::transport::parent::Channel;
use crate::transport::{Call, Doorbell, Pulse};
use crate::wire::parent::FromParent;

/// How long the main thread has to end in order when the host is gone.
const ORDERLY_END: Duration = Duration::from_secs(1);

/// How long `MPI_Comm_spawn` may take to return when its worker is dead. Another parent costs less than to wait for longer.
const RELEASE_PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Watch {
    is_host_gone: AtomicBool,
    killer: OnceLock<Killer>,
    pulse: Arc<Pulse>,
    /// Since when there has been a spawn whose worker is dead.
    dead_since: Mutex<Option<Instant>>,
}

impl Watch {
    /// Starts both threads. The doorbell is rung when the host is gone.
    pub(super) fn start(
        socket: &OwnedFd,
        host: u32,
        pulse: Arc<Pulse>,
        doorbell: Arc<Doorbell>,
    ) -> io::Result<Arc<Self>> {
        let watch = Arc::new(Self {
            is_host_gone: AtomicBool::new(false),
            killer: OnceLock::new(),
            pulse,
            dead_since: Mutex::default(),
        });
        let (of_host, line) = (Arc::clone(&watch), socket.try_clone()?);
        // A socket of which a child of the host has a copy stays open; the process does not.
        let host = i32::try_from(host).ok().and_then(Pid::from_raw).filter(|host| getppid() == Some(*host));
        let host = host.and_then(|host| pidfd_open(host, PidfdFlags::empty()).ok());
        thread::Builder::new()
            .name("offshoot host".to_owned())
            .spawn(move || of_host.watch_host(&line, host.as_ref(), &doorbell))?;
        let (of_pulse, line) = (Arc::clone(&watch), socket.try_clone()?);
        thread::Builder::new().name("offshoot watch".to_owned()).spawn(move || of_pulse.watch_pulse(line))?;
        Ok(watch)
    }

    /// The workers that are to be killed.
    pub(super) fn know_killer(&self, killer: Killer) {
        let _ = self.killer.set(killer);
    }

    pub(super) fn is_host_gone(&self) -> bool {
        self.is_host_gone.load(Ordering::Acquire)
    }

    /// Why a spawn never returns, if it is so: its worker has been dead for long enough. Asked now and then.
    pub(super) fn hopeless_spawn(&self) -> Option<String> {
        let mut since = self.dead_since.lock().unwrap_or_else(PoisonError::into_inner);
        let is_dead = self.killer.get().is_some_and(Killer::has_dead_spawn);
        *since = is_dead.then(|| since.unwrap_or_else(Instant::now));
        let is_over = since.is_some_and(|since| since.elapsed() > RELEASE_PATIENCE);
        is_over.then(|| "the worker of a spawn is dead, and the spawn does not return".to_owned())
    }

    fn watch_host(&self, socket: &OwnedFd, host: Option<&OwnedFd>, doorbell: &Doorbell) {
        let mut watched: Vec<PollFd<'_>> = vec![PollFd::new(socket, PollFlags::RDHUP)];
        match host {
            Some(host) => watched.push(PollFd::new(host, PollFlags::IN)),
            // It ended before it could be watched.
            None if getppid().is_none_or(|parent| parent.is_init()) => return self.end(doorbell),
            None => {}
        }
        while poll(&mut watched, None).is_err() {}
        self.end(doorbell);
    }

    fn end(&self, doorbell: &Doorbell) {
        self.is_host_gone.store(true, Ordering::Release);
        doorbell.ring();
        thread::sleep(ORDERLY_END);
        self.end_all()
    }

    fn watch_pulse(&self, socket: OwnedFd) {
        let mut launchers = Launchers::default();
        let (call, silence, cause) = self.pulse.watch(|call| match call {
            Call::Spawn => {
                launchers.look();
                launchers.loss().or_else(|| self.hopeless_spawn())
            }
            Call::Other | Call::Disconnect | Call::Finalize => None,
        });
        let cause = cause.unwrap_or_else(|| format!("it had not returned after {silence:?}"));
        let reason = format!("{} was given up: {cause}", call.name());
        // The packet is one of its own, whatever the other thread was about to send.
        let mut channel = Channel::new(socket);
        if channel.push(FromParent::Stuck { reason }.encode(), None).is_ok() {
            let _ = channel.flush();
        }
        self.end_all()
    }

    /// Ends everything that this process has started, and itself.
    fn end_all(&self) -> ! {
        self.killer.get().into_iter().for_each(Killer::kill_all);
        launch::end_daemons();
        process::exit_now()
    }
}
