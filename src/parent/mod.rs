//! The isolated parent: the process that holds the MPI in the place of a host, whose own process never sees it.
//!
//! It is started by a host (`transport/parent`), in a session and process group of its own, with one end of a socket that
//! nobody else can connect to. Its one thread for MPI is its main thread; it runs none of the user's code. What the host asks for it has
//! done by the same transport that an embedded host uses, and what that reports goes back. So it decides nothing: the
//! scheduler, the promises and all that is known of tasks stay in the host, and outlive it.
//!
//! `router` hands on between the two, `watch` ends this process when its host is gone, or when an MPI call never returns.

mod router;
mod watch;

use std::os::fd::{OwnedFd, RawFd};
use std::process::exit;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::BuildError;
use crate::launch::{self, Site};
use crate::process;
use crate::transport::bells::Bells;
use crate::transport::mpi::{self, MpiTransport, Runtime, Terms};
use crate::transport::output::Sink;
use crate::transport::parent::Channel;
use crate::transport::{Doorbell, Patience, Pulse};
use crate::wire::parent::{FromParent, ParentFacts, Refusal, ToParent, Wishes};
use router::{Router, Turn};
use watch::Watch;

/// How long the host may take to say what it wants.
const BEGIN_PATIENCE: Duration = Duration::from_secs(10);
/// How long a last word may wait for room in the socket.
const WORD_PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// How long what workers write may take to end when they have left.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(2);
/// With workers that ring, it is looked this often all the same, for this long after anything has happened, and then only
/// so often: what rings may be here before what it rings for.
const LIVELY: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The whole life of this process, which its host has started as its parent.
pub(crate) fn serve(socket: RawFd, host: u32) -> ! {
    process::outlive_terminal_signals();
    process::keep_freed_memory();
    launch::prepare();
    let socket = process::inherited(socket);
    // What this process starts has no part in it.
    if rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC).is_err() {
        exit(1)
    }
    let watched = socket.try_clone();
    let mut channel = Channel::new(socket);
    let Some((bells, wishes)) = await_begin(&mut channel) else { exit(0) };
    let started = watched
        .map_err(|error| BuildError::System(error.to_string()))
        .and_then(|watched| Started::start(&watched, host, bells, wishes));
    match started {
        Ok(started) => started.serve(channel).run(),
        Err(error) => refuse(&mut channel, error),
    }
}

/// Waits for what the host wants; none if it is gone, or is none of ours.
fn await_begin(channel: &mut Channel) -> Option<(Arc<Bells>, Wishes)> {
    let until = Instant::now() + BEGIN_PATIENCE;
    let mut bells = None;
    loop {
        match channel.receive() {
            Ok(Some(arrived)) => match ToParent::decode(arrived.message) {
                Ok(ToParent::Bells) => bells = Bells::adopt(arrived.file?).ok(),
                Ok(ToParent::Begin(wishes)) => return Some((bells?, wishes)),
                Ok(_) | Err(_) => return None,
            },
            Ok(None) if Instant::now() > until => return None,
            Ok(None) => {
                let left = process::timespec_until(until);
                let _ = poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&left));
            }
            Err(_) => return None,
        }
    }
}

fn refuse(channel: &mut Channel, error: BuildError) -> ! {
    let message = FromParent::Refused(Refusal::from(error)).encode();
    if channel.push(message, None).is_ok() {
        let _ = channel.flush_within(WORD_PATIENCE);
    }
    exit(1)
}

/// A parent that has its MPI.
struct Parent {
    router: Router,
    runtime: Rc<Runtime>,
    pulse: Arc<Pulse>,
    doorbell: Arc<Doorbell>,
    watch: Arc<Watch>,
}

/// What there is before the host is told so.
struct Started {
    runtime: Rc<Runtime>,
    facts: ParentFacts,
    sites: Vec<Site>,
    wishes: Wishes,
    pulse: Arc<Pulse>,
    doorbell: Arc<Doorbell>,
    host_bell: Doorbell,
    watch: Arc<Watch>,
}

impl Started {
    fn start(socket: &OwnedFd, host: u32, bells: Arc<Bells>, wishes: Wishes) -> Result<Self, BuildError> {
        let (doorbell, host_bell) = (Arc::new(bells.of_host()), bells.of_host_behind());
        let pulse = Arc::new(Pulse::of_parent());
        // Before MPI starts, which may take its time: a host may go at any moment.
        let watch = Watch::start(socket, host, Arc::clone(&pulse), Arc::clone(&doorbell))
            .map_err(|error| BuildError::System(error.to_string()))?;
        let (runtime, facts) = start_mpi(&doorbell, bells, &pulse, wishes.slots.has_other_hosts())?;
        watch.know_killer(runtime.control().killer());
        let sites = launch::sites(&wishes.slots, wishes.workers_max)?;
        Ok(Self { runtime, facts, sites, wishes, pulse, doorbell, host_bell, watch })
    }

    /// Says to the host that it can begin.
    fn serve(self, channel: Channel) -> Parent {
        let Self { runtime, facts, sites, wishes, pulse, doorbell, host_bell, watch } = self;
        let (sink, pieces) = Sink::relay(Arc::clone(&doorbell));
        let terms = Terms {
            spawn_timeout: wishes.spawn_timeout,
            kill_grace: wishes.kill_grace,
            heartbeat_timeout: wishes.heartbeat_timeout,
            sink: wishes.is_output_wanted.then_some(sink),
        };
        let transport = MpiTransport::new(Rc::clone(&runtime), terms, sites);
        let mut router = Router::new(channel, host_bell, transport, pieces);
        router.say(FromParent::Here(facts));
        Parent { router, runtime, pulse, doorbell, watch }
    }
}

impl Parent {
    fn run(mut self) -> ! {
        let mut patience = Patience::new();
        let (mut active, mut is_tidy) = (Instant::now(), true);
        let mut looked = Instant::now();
        self.pulse.wakes();
        loop {
            self.pulse.beat();
            if self.watch.is_host_gone() {
                break;
            }
            if looked.elapsed() > LOOK_EVERY / 4 && self.router.has_workers() {
                looked = Instant::now();
                self.watch.hopeless_spawn().into_iter().for_each(|reason| self.router.give_up(reason));
            }
            match self.router.turn() {
                Turn::Active => {
                    patience.reset();
                    (active, is_tidy) = (Instant::now(), false);
                }
                Turn::Quiet(attention) => {
                    let nap = match attention {
                        Some(attention) => patience.pause(attention),
                        None => Some(LOOK_EVERY),
                    };
                    let Some(nap) = nap else { continue };
                    let is_lively = active.elapsed() < LIVELY || self.router.is_pending();
                    if !is_lively && !std::mem::replace(&mut is_tidy, true) {
                        process::give_back_freed_memory();
                    }
                    let nap = if is_lively { nap } else { nap.max(LOOK_EVERY) };
                    let until = self.router.has_workers().then(|| Instant::now() + nap);
                    let (router, watch) = (&mut self.router, &self.watch);
                    self.pulse.sleeps();
                    let mut is_woken = false;
                    self.doorbell.sleep(until, || {
                        is_woken = router.has_news() || watch.is_host_gone();
                        is_woken
                    });
                    self.pulse.wakes();
                    if is_woken || until.is_none_or(|until| Instant::now() < until) {
                        patience.reset();
                    }
                }
                Turn::Over => break,
            }
        }
        self.end()
    }

    /// Ends MPI, and this process.
    fn end(self) -> ! {
        let Self { router, runtime, doorbell, .. } = self;
        router.end(&doorbell, LAST_WORDS_PATIENCE);
        if let Some(runtime) = Rc::into_inner(runtime) {
            runtime.finish();
        }
        launch::remove_daemons_folders();
        exit(0)
    }
}

fn start_mpi(
    doorbell: &Arc<Doorbell>,
    bells: Arc<Bells>,
    pulse: &Arc<Pulse>,
    has_other_hosts: bool,
) -> Result<(Rc<Runtime>, ParentFacts), BuildError> {
    let prepared = launch::prepared().ok_or(BuildError::NotInitialized)?;
    let manager = launch::process_manager(has_other_hosts);
    launch::check_machine(prepared, manager).map_err(BuildError::Preflight)?;
    let runtime = Runtime::start(Arc::clone(doorbell), Some(bells), Arc::clone(pulse), manager)?;
    let known = mpi::facts().ok_or(BuildError::NotInitialized)?;
    let facts = ParentFacts {
        pid: std::process::id(),
        version: prepared.version.lines().next().unwrap_or_default().to_owned(),
        thread_level: known.thread_level.to_owned(),
        containment: known.containment,
        manager: known.manager.to_string(),
    };
    Ok((Rc::new(runtime), facts))
}
