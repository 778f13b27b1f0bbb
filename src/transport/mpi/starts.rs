//! Workers on their way: from the order to the intercommunicator, or to the reason why there is none.
//!
//! How long `MPI_Comm_spawn` takes, and who waits for it, depends on the MPI ([`Way`](super::runtime::Way)). Whatever
//! the way, a start ends here with one [`Newborn`], and no start waits for another one's end except for its turn in the
//! call.

use std::collections::VecDeque;
use std::env;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustc_hash::FxHashMap;

use super::Runtime;
use super::birth::Birth;
use super::ffi::{Comm, MpiError};
use super::places::Places;
use super::spawner::{Outcome, Wanted};
use super::words::failure;
use crate::error::{SpawnCause, SpawnFailure};
use crate::finding::Finding;
use crate::ids::WorkerId;
use crate::launch::{self, Hints, Program};
use crate::transport::Call;
use crate::transport::bells::WorkerBell;
use crate::transport::control::{Expectation, Notice, Whereabouts};
use crate::transport::output::Sink;
use crate::wire::control::{Ended, How, Ticket, Watch};

/// How long a guard has, once MPI has found its worker dead, to say how it died.
pub(super) const GUARD_PATIENCE: Duration = Duration::from_millis(100);
/// How long it has where the machine may be too busy for MPI.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);
/// How often a start is tried again after a failure that need not last.
const TRIES_MAX: u32 = 3;
/// How much longer than a worker may take a spawn may, in which a guard ends that worker and stands in for it.
const SPAWN_GRACE: Duration = Duration::from_secs(5);
/// So many workers start at once for each processor, where each is met when it has come so far. Fewer leave the processor idle,
/// more only take it from each other: 16 on two processors were there after 385 ms, the first after 205 to 240; all at once after
/// 520, the first after 430 (MPICH 5.0.2).
const AHEAD_PER_CORE: usize = 4;
const AHEAD_MAX: usize = 16;
/// A guard keeps no directory busy; it starts the worker in its own.
const GUARD_DIRECTORY: &str = "/";

/// What a pool wants of its workers and their guards.
pub(crate) struct Terms {
    pub(crate) spawn_timeout: Duration,
    /// How long a worker that is to be ended may take to do so by itself.
    pub(crate) kill_grace: Duration,
    /// How long another host may be silent.
    pub(crate) heartbeat_timeout: Duration,
    /// Where what they write goes, if anywhere.
    pub(crate) sink: Option<Arc<Sink>>,
}

/// How a worker ended, and where it was.
pub(super) type End = (Ended, Option<Whereabouts>);

/// What a start has come to.
pub(super) enum Newborn {
    Come {
        worker: WorkerId,
        comm: Comm,
        ticket: Ticket,
        bell: Option<WorkerBell>,
        /// It has ended meanwhile.
        end: Option<End>,
    },
    Failed {
        worker: WorkerId,
        failure: SpawnFailure,
    },
}

/// The starts of one pool.
pub(super) struct Starts {
    runtime: Rc<Runtime>,
    terms: Terms,
    pub(super) places: Places,
    /// Those whose turn has not come.
    waiting: VecDeque<Order>,
    begun: FxHashMap<WorkerId, Begun>,
    tickets: FxHashMap<Ticket, WorkerId>,
    /// How many starts may be under way at once, where they can be.
    ahead_max: usize,
    outcomes: Receiver<Outcome>,
    outcome: Sender<Outcome>,
    notify: Sender<(Ticket, Notice)>,
}

/// A worker that is to be started.
struct Order {
    worker: WorkerId,
    program: Program,
    /// How often that was tried in vain, for no reason that would last.
    tries: u32,
}

struct Begun {
    program: Program,
    tries: u32,
    ticket: Ticket,
    wanted: Wanted,
    bell: Option<WorkerBell>,
    stage: Stage,
    end: Option<End>,
    /// Nobody wants it any more.
    is_abandoned: bool,
}

enum Stage {
    /// It was ordered, and MPI knows nothing of it yet.
    Ordered(Box<Birth>),
    /// `MPI_Comm_spawn` was called for it, or is about to be.
    Call,
    /// The call has failed, then and for this reason. Its guard may know a better one.
    Failed(Failed, Instant),
}

/// What a call said that has failed.
pub(super) struct Failed {
    reason: String,
    /// Whether another call may fare better.
    is_momentary: bool,
}

impl Failed {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_momentary: false }
    }

    /// How long the guard has to say more. Where the library only could not send for a moment, the worker may be dying, or
    /// the machine is busy.
    fn patience(&self) -> Duration {
        if self.is_momentary { BUSY_PATIENCE } else { GUARD_PATIENCE }
    }
}

impl From<MpiError> for Failed {
    fn from(error: MpiError) -> Self {
        Self { reason: error.to_string(), is_momentary: error.is_momentary() }
    }
}

/// How far the beginning of a start has come.
enum Progress {
    /// It goes on by itself.
    UnderWay,
    /// `MPI_Comm_spawn` was called on this thread, and has returned.
    Called,
}

impl Starts {
    pub(super) fn new(
        runtime: Rc<Runtime>,
        terms: Terms,
        places: Places,
        notify: Sender<(Ticket, Notice)>,
    ) -> Self {
        let (outcome, outcomes) = unbounded();
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
        Self {
            runtime,
            terms,
            places,
            waiting: VecDeque::new(),
            begun: FxHashMap::default(),
            tickets: FxHashMap::default(),
            ahead_max: cores.saturating_mul(AHEAD_PER_CORE).min(AHEAD_MAX),
            outcomes,
            outcome,
            notify,
        }
    }

    pub(super) fn order(&mut self, worker: WorkerId, program: &Program) {
        self.waiting.push_back(Order { worker, program: program.clone(), tries: 0 });
    }

    /// Whether more has to be done that nobody rings for.
    pub(super) fn is_pending(&self) -> bool {
        let is_failed = |begun: &Begun| matches!(begun.stage, Stage::Failed(..));
        !self.waiting.is_empty() && self.has_room() || self.begun.values().any(is_failed)
    }

    pub(super) fn has_arrived(&self) -> bool {
        let has_news = |begun: &Begun| matches!(&begun.stage, Stage::Ordered(birth) if birth.has_news());
        !self.outcomes.is_empty() || self.begun.values().any(has_news)
    }

    /// Gives up what MPI knows nothing of yet, and says whose starts that were.
    pub(super) fn cancel(&mut self) -> Vec<WorkerId> {
        let is_ahead = |(_, begun): &(&WorkerId, &Begun)| matches!(begun.stage, Stage::Ordered(_));
        let ahead: Vec<WorkerId> = self.begun.iter().filter(is_ahead).map(|(&worker, _)| worker).collect();
        ahead.iter().for_each(|&worker| self.abandon(worker));
        self.waiting.drain(..).map(|order| order.worker).chain(ahead).collect()
    }

    /// Nobody wants this worker any more.
    pub(super) fn abandon(&mut self, worker: WorkerId) {
        self.waiting.retain(|order| order.worker != worker);
        let Some(begun) = self.begun.get_mut(&worker) else { return };
        self.runtime.control().kill(begun.ticket);
        match begun.stage {
            Stage::Call => begun.is_abandoned = true,
            Stage::Ordered(_) | Stage::Failed(..) => drop(self.forget(worker)),
        }
        self.places.release(worker);
    }

    /// Takes in what a guard, or who has started it, says, unless that is about no worker on its way.
    pub(super) fn hear(
        &mut self,
        ticket: Ticket,
        notice: Notice,
        births: &mut Vec<Newborn>,
    ) -> Option<Notice> {
        let Some(&worker) = self.tickets.get(&ticket) else { return Some(notice) };
        let begun = self.begun.get_mut(&worker)?;
        match (notice, &begun.stage) {
            (Notice::Ready | Notice::Recalled { .. }, _) => {}
            (Notice::Ended(ended, at), Stage::Call | Stage::Ordered(_)) => begun.end = Some((ended, at)),
            (Notice::Ended(ended, at), Stage::Failed(..)) => {
                self.fail(worker, Some((ended, at)), SpawnCause::Mpi, String::new(), births);
            }
        }
        None
    }

    /// Does what there is to do, and begins what may be begun, if the rest of the pool is calm enough for that.
    pub(super) fn advance(&mut self, is_calm: bool, births: &mut Vec<Newborn>) {
        while let Ok(Outcome { worker, spawned }) = self.outcomes.try_recv() {
            self.take(worker, spawned.map(|comm| comm.take()).map_err(Failed::new), births);
        }
        self.give_up_failed(births);
        self.meet_next(births);
        self.look_at_spawner(births);
        while is_calm
            && self.has_room()
            && let Some(order) = self.waiting.pop_front()
        {
            let worker = order.worker;
            match self.begin(order, births) {
                // The workers that run are served between two calls.
                Ok(Progress::Called) => break,
                Ok(Progress::UnderWay) => {}
                Err(failure) => {
                    self.note_failure(worker);
                    births.push(Newborn::Failed { worker, failure });
                }
            }
        }
    }

    /// Whether one more start may be begun beside those that are.
    fn has_room(&self) -> bool {
        let is_under_way = |begun: &&Begun| !matches!(begun.stage, Stage::Failed(..));
        let under_way = || self.begun.values().filter(is_under_way).count();
        let way = self.runtime.way();
        match (&way.ports, &way.spawner) {
            (Some(_), _) => under_way() < self.ahead_max,
            (None, Some(_)) => under_way() == 0,
            (None, None) => true,
        }
    }

    /// Begins the start of one worker.
    fn begin(
        &mut self,
        Order { worker, program, tries }: Order,
        births: &mut Vec<Newborn>,
    ) -> Result<Progress, SpawnFailure> {
        let refused = |finding: Finding| SpawnFailure::new(SpawnCause::Executable, finding.to_string());
        launch::check_program(&program).map_err(refused)?;
        if let Some(loss) = self.runtime.launchers().borrow().loss() {
            let reason = format!("{loss}, and this process can spawn no more: start it again");
            return Err(SpawnFailure::new(SpawnCause::Launcher, reason));
        }
        let watch = Watch {
            is_output_wanted: self.terms.sink.is_some(),
            heartbeat_timeout: Some(self.terms.heartbeat_timeout),
            bell: None,
        };
        let mut start =
            program.start(watch).map_err(|reason| SpawnFailure::new(SpawnCause::Executable, reason))?;
        let (host, address) = self.place(worker)?;
        let bell = self.places.is_here(worker).then(|| self.runtime.bells()?.hang()).flatten();
        start.watch.bell = bell.as_ref().map(WorkerBell::place);
        let ticket = self.runtime.control().expect(Expectation {
            start,
            deadline: Instant::now() + self.terms.spawn_timeout,
            kill_grace: self.terms.kill_grace,
            notices: self.notify.clone(),
            voice: self.terms.sink.as_ref().map(|sink| sink.voice(worker)),
        });
        let wanted = match guard(&address, &host, ticket) {
            Ok(wanted) => wanted,
            Err(reason) => {
                self.runtime.control().kill(ticket);
                return Err(SpawnFailure::new(SpawnCause::Mpi, reason));
            }
        };
        let ports = self.runtime.way().ports.as_ref();
        let birth = ports.and_then(|ports| Birth::order(ports, &wanted, self.runtime.doorbell()));
        let stage = birth.map_or(Stage::Call, |birth| Stage::Ordered(Box::new(birth)));
        let is_to_call = matches!(stage, Stage::Call);
        let begun = Begun { program, tries, ticket, wanted, bell, stage, end: None, is_abandoned: false };
        self.tickets.insert(ticket, worker);
        self.begun.insert(worker, begun);
        if !is_to_call {
            return Ok(Progress::UnderWay);
        }
        self.call(worker, births);
        Ok(if self.runtime.way().spawner.is_some() { Progress::UnderWay } else { Progress::Called })
    }

    /// How long the call may take.
    fn limit(&self) -> Duration {
        self.terms.spawn_timeout + SPAWN_GRACE
    }

    /// Meets one of those that were ordered, if it is about to connect. One a turn: the workers that run are served
    /// between two.
    fn meet_next(&mut self, births: &mut Vec<Newborn>) {
        let has_news = |(_, begun): &(&WorkerId, &Begun)| match &begun.stage {
            Stage::Ordered(birth) => birth.has_news(),
            Stage::Call | Stage::Failed(..) => false,
        };
        let Some((&worker, _)) = self.begun.iter().find(has_news) else { return };
        let limit = self.limit();
        let Some(begun) = self.begun.get_mut(&worker) else { return };
        let Stage::Ordered(birth) = std::mem::replace(&mut begun.stage, Stage::Call) else { return };
        let is_coming = birth.news().unwrap_or(false);
        let meet = || birth.meet(self.runtime.spawner(), is_coming);
        let met = self.runtime.pulse().during(Call::Spawn, limit, meet);
        self.runtime.control().note_spawned(begun.ticket, met.is_ok());
        self.take(worker, met, births);
    }

    /// Makes the call, or has it made.
    fn call(&mut self, worker: WorkerId, births: &mut Vec<Newborn>) {
        let limit = self.limit();
        let Some(begun) = self.begun.get_mut(&worker) else { return };
        begun.stage = Stage::Call;
        if let Some(spawner) = &self.runtime.way().spawner {
            let (ticket, wanted) = (begun.ticket, begun.wanted.clone());
            return spawner.order(worker, ticket, wanted, limit, self.outcome.clone());
        }
        let _decoy = self.runtime.decoy();
        let spawn = || begun.wanted.spawn_from(self.runtime.spawner());
        let spawned = self.runtime.pulse().during(Call::Spawn, limit, spawn);
        self.runtime.control().note_spawned(begun.ticket, spawned.is_ok());
        self.take(worker, spawned.map_err(Failed::from), births);
    }

    /// A call has returned.
    fn take(&mut self, worker: WorkerId, spawned: Result<Comm, Failed>, births: &mut Vec<Newborn>) {
        let spawned = spawned.and_then(|comm| match comm.remote_size() {
            Ok(1) => Ok(comm),
            Ok(size) => Err(Failed::new(format!("one worker was asked for, and {size} came"))),
            Err(error) => Err(error.into()),
        });
        let begun = self.begun.get_mut(&worker);
        match (spawned, begun) {
            // It was given up meanwhile, and told so.
            (Ok(_), None) => self.runtime.note_loss(),
            (Err(_), None) => {}
            (Ok(comm), Some(_)) => {
                self.runtime.note_spawn();
                let Some(Begun { ticket, bell, end, is_abandoned, .. }) = self.forget(worker) else { return };
                if is_abandoned {
                    // The communicator is neither freed nor disconnected: both are collective.
                    self.runtime.control().kill(ticket);
                    return self.runtime.note_loss();
                }
                self.places.note_start(worker, true);
                births.push(Newborn::Come { worker, comm, ticket, bell, end });
            }
            (Err(failed), Some(begun)) => match begun.end.take() {
                Some(end) => self.fail(worker, Some(end), SpawnCause::Mpi, failed.reason, births),
                // The worker may have died: then MPI has noticed it, or was told by the answer in its place, perhaps
                // before its guard's last word is here.
                None => begun.stage = Stage::Failed(failed, Instant::now()),
            },
        }
    }

    /// Gives up those whose guards have had their time.
    fn give_up_failed(&mut self, births: &mut Vec<Newborn>) {
        let over = |(worker, begun): (&WorkerId, &Begun)| match &begun.stage {
            Stage::Failed(failed, since) if since.elapsed() > failed.patience() => {
                Some((*worker, failed.reason.clone(), failed.is_momentary && begun.tries < TRIES_MAX))
            }
            Stage::Failed(..) | Stage::Ordered(_) | Stage::Call => None,
        };
        let over: Vec<_> = self.begun.iter().filter_map(over).collect();
        for (worker, reason, is_to_try_again) in over {
            if is_to_try_again {
                tracing::debug!("a worker is started again: {reason}");
                self.try_again(worker);
            } else {
                self.fail(worker, None, SpawnCause::Mpi, reason, births);
            }
        }
    }

    /// Starts it once more, before all others, unless nobody wants it any more.
    fn try_again(&mut self, worker: WorkerId) {
        let Some(Begun { program, tries, .. }) = self.end_start(worker) else { return };
        self.waiting.push_front(Order { worker, program, tries: tries + 1 });
    }

    /// Ends what was begun of a start that has failed. Returns it, unless nobody wants the worker any more.
    fn end_start(&mut self, worker: WorkerId) -> Option<Begun> {
        let begun = self.forget(worker)?;
        self.runtime.control().kill(begun.ticket);
        self.note_failure(worker);
        (!begun.is_abandoned).then_some(begun)
    }

    /// Its place is free again.
    fn note_failure(&mut self, worker: WorkerId) {
        self.places.note_start(worker, false);
        self.places.release(worker);
    }

    /// Gives up all calls that are to be made on a thread that does not come back.
    fn look_at_spawner(&mut self, births: &mut Vec<Newborn>) {
        let Some(spawner) = &self.runtime.way().spawner else { return };
        let is_called = |(_, begun): &(&WorkerId, &Begun)| matches!(begun.stage, Stage::Call);
        let called: Vec<WorkerId> = self.begun.iter().filter(is_called).map(|(&worker, _)| worker).collect();
        if called.is_empty() {
            return;
        }
        let is_hopeless = || {
            let mut launchers = self.runtime.launchers().borrow_mut();
            launchers.look();
            launchers.loss()
        };
        let Some(verdict) = spawner.look(is_hopeless) else { return };
        for worker in called {
            self.fail(worker, None, SpawnCause::Launcher, verdict.clone(), births);
        }
    }

    /// A start has failed: as its guard says, or else for this reason.
    fn fail(
        &mut self,
        worker: WorkerId,
        end: Option<End>,
        cause: SpawnCause,
        reason: String,
        births: &mut Vec<Newborn>,
    ) {
        // MPI has not heard the worker, which is nobody's fault: the next may fare better, for as long as the pool waits for
        // it.
        if let Some((Ended { how: How::Jammed, .. }, _)) = end {
            return self.try_again(worker);
        }
        if self.end_start(worker).is_none() {
            return;
        }
        let failure = match end {
            Some((ended, at)) => failure(&ended, at.as_ref()),
            None => SpawnFailure::new(cause, reason),
        };
        births.push(Newborn::Failed { worker, failure });
    }

    fn forget(&mut self, worker: WorkerId) -> Option<Begun> {
        let begun = self.begun.remove(&worker)?;
        self.tickets.remove(&begun.ticket);
        Some(begun)
    }

    /// Chooses a host: what MPI is told of it, and where a guard there finds its parent.
    fn place(&mut self, worker: WorkerId) -> Result<(Hints, String), SpawnFailure> {
        let unreachable = |reason: String| SpawnFailure::new(SpawnCause::Host, reason);
        let site =
            self.places.take(worker).cloned().ok_or_else(|| unreachable("there is no host".to_owned()))?;
        for host in self.places.to_ask(worker, !launch::outlives_hosts()) {
            // It takes seconds, in which nothing else happens on this thread.
            self.runtime.pulse().beat();
            launch::ask(&host).map_err(|finding| {
                let is_another = host != site.host.name;
                let why =
                    if is_another { "; while it is gone, this MPI starts no worker anywhere" } else { "" };
                unreachable(format!("{finding}{why}"))
            })?;
            self.places.trust(&host);
        }
        let control = self.runtime.control();
        let address = match site.route {
            Some(ip) => control
                .network_address(&launch::own_name(), ip)
                .map_err(|error| unreachable(format!("nothing can listen at {ip}: {error}")))?,
            None => control.address().to_owned(),
        };
        // Once other hosts are known to the MPI, it has to be told of this one too.
        let is_plain = site.info.is_empty() && control.is_on_network();
        Ok((if is_plain { launch::own_host_info() } else { site.info }, address))
    }
}

impl Drop for Starts {
    fn drop(&mut self) {
        for begun in self.begun.values() {
            self.runtime.control().kill(begun.ticket);
            if matches!(begun.stage, Stage::Call) {
                self.runtime.note_loss();
            }
        }
    }
}

/// The guard of one worker, as MPI is to start it.
fn guard(address: &str, host: &[(&'static str, String)], ticket: Ticket) -> Result<Wanted, String> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|error| error.to_string());
    let executable = env::current_exe().map_err(|error| format!("this executable has no path: {error}"))?;
    let arguments = launch::guard_arguments(address, ticket);
    let secret = launch::secret_info();
    let ours = host.iter().chain(&secret).map(|(key, value)| (*key, value.as_str()));
    let hints =
        [("wdir", GUARD_DIRECTORY)].into_iter().chain(launch::spawn_info().iter().copied()).chain(ours);
    let hints = hints.map(|(key, value)| Ok((text(key.as_bytes())?, text(value.as_bytes())?)));
    Ok(Wanted {
        command: text(executable.as_os_str().as_bytes())?,
        arguments: arguments.iter().map(|argument| text(argument.as_bytes())).collect::<Result<_, _>>()?,
        info: hints.collect::<Result<_, String>>()?,
    })
}
