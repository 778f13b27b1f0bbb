//! The settings of a pool, and how it comes to be.

use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::time::Duration;

use super::Pool;
use super::backend::{self, Wanted};
use super::embedded;
use super::isolation;
use super::stats::Kind;
use crate::containment::Containment;
use crate::core::Config;
use crate::error::BuildError;
use crate::isolation::Isolation;
use crate::launch::Program;
use crate::slots::{Slots, SlotsError, Source};
use crate::task::{Call, Registry, Task};
use crate::transport::Output;
use crate::transport::output::Sink;

/// Unfinished tasks that a pool holds before `submit` waits.
const QUEUE_MAX: usize = 65_536;

/// More than a year is for ever, and clocks have an end.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);
/// How long a worker that is to be ended may take to do so by itself.
const KILL_GRACE: Duration = Duration::from_secs(1);
/// How long another host may be silent, by default and at least.
const HEARTBEAT_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings of a pool. Each has a default; [`Builder::build`] makes the pool.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// use std::time::Duration;
///
/// let pool = offshoot::Pool::builder()
///     .workers(0..=4)
///     .idle_timeout(Duration::from_secs(60))
///     .loopback() // in-memory workers: this example runs without MPI
///     .build()?;
/// assert_eq!(pool.stats().workers(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is built before `build`"]
pub struct Builder {
    config: Config,
    workers: (Bound<u32>, Bound<u32>),
    host_file: Option<PathBuf>,
    oversubscribe: bool,
    queue_max: usize,
    containment: Option<Containment>,
    program: Program,
    output: Output,
    kill_grace: Duration,
    heartbeat_timeout: Duration,
    backend: Backend,
    isolation: Isolation,
    parent: Option<PathBuf>,
}

#[derive(Clone, Debug)]
enum Backend {
    Mpi,
    Loopback(Registry),
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            config: Config::default(),
            workers: (Bound::Included(0), Bound::Unbounded),
            host_file: None,
            oversubscribe: false,
            queue_max: QUEUE_MAX,
            containment: None,
            program: Program::this_executable(),
            output: Output::default(),
            kill_grace: KILL_GRACE,
            heartbeat_timeout: HEARTBEAT_TIMEOUT,
            backend: Backend::Mpi,
            isolation: Isolation::Auto,
            parent: None,
        }
    }
}

impl Builder {
    /// How many workers the pool keeps at least, and has at most: `0..=8`, `2..=2`, `..=4`, `2..`. The minimum
    /// holds for the default program and is started at once; the rest comes on demand. Without an upper
    /// limit there is one worker a core at most: as many as there are [`Slots`].
    ///
    /// More than that may be asked for on this machine, where they share its cores; in an allocation, or
    /// with a host file, only with [`Builder::oversubscribe`].
    pub fn workers(mut self, workers: impl RangeBounds<u32>) -> Self {
        self.workers = (workers.start_bound().cloned(), workers.end_bound().cloned());
        self
    }

    /// A file of the hosts on which workers are started: one host a line, `node1 slots=4` or `node1:4`, with
    /// comments after `#`, in the order in which they are filled; one worker where no number is given. By
    /// default the file that the environment variable `OFFSHOOT_HOSTFILE` names, if any. Inside an allocation
    /// of Slurm it chooses among the allocated hosts.
    ///
    /// The executables are at the same paths on all hosts, which are reached as the MPI reaches them: through
    /// `ssh` without a password, or what `OMPI_MCA_plm_rsh_agent` or `HYDRA_LAUNCHER_EXEC` names. With Open
    /// MPI a worker elsewhere has the environment of that remote shell, not the host's.
    pub fn hostfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.host_file = Some(path.into());
        self
    }

    /// Allows more workers than there are slots in the allocation or the host file; not allowed by default.
    pub fn oversubscribe(mut self, allowed: bool) -> Self {
        self.oversubscribe = allowed;
        self
    }

    /// The default program; [`Program::this_executable`] unless set.
    pub fn program(mut self, program: Program) -> Self {
        self.program = program;
        self
    }

    /// A call that each worker of the default program runs once, before its first task.
    pub fn initializer<T: Task>(mut self, call: Call<T>) -> Self {
        self.program = self.program.initializer(call);
        self
    }

    /// How long a worker above the minimum stays without work; 10 s by default.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.config.idle_timeout = timeout;
        self
    }

    /// How long a worker may take from its spawn until it is ready, its initializer included; 30 s by default.
    ///
    /// The first pool of a process gives `MPI_Init` as long, and ten seconds at least.
    pub fn spawn_timeout(mut self, timeout: Duration) -> Self {
        self.config.spawn_timeout = timeout.min(FOR_EVER);
        self
    }

    /// How often a task is tried when its workers are lost; 3 by default.
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.config.attempts_max = attempts;
        self
    }

    /// How long a task may run if its call does not say ([`Call::timeout`]); for ever by default.
    pub fn task_timeout(mut self, timeout: Duration) -> Self {
        self.config.task_timeout = Some(timeout);
        self
    }

    /// How long a running task that was cancelled, or whose time is over, has to stop of itself
    /// ([`Context::cancelled`](crate::Context::cancelled)) before its worker is killed; 2 s by default.
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.config.stop_grace = grace;
        self
    }

    /// How many unfinished tasks the pool holds before `submit` waits; 65,536 by default.
    pub fn queue_max(mut self, tasks: usize) -> Self {
        self.queue_max = tasks;
        self
    }

    /// What the death of a worker may do to this process in the middle of a transfer. By default what this process was
    /// prepared for, which is [`Containment::Survivable`] where that can be had.
    ///
    /// It is the environment variable `OFFSHOOT_CONTAINMENT` that chooses ([`Containment`] says why); a pool that
    /// is told here what it needs is refused where it would have something else.
    pub fn containment(mut self, containment: Containment) -> Self {
        self.containment = Some(containment);
        self
    }

    /// Where the pool's MPI lives: in this process, or in one beside it. [`Isolation::Auto`] by default.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Has the pool's MPI live in a process of its own: short for `isolation(Isolation::Isolated)`.
    ///
    /// That process is started from this executable, unless [`Builder::parent_executable`] names another, and uses the MPI's
    /// fastest transport ([`Containment::Fast`]) unless [`Builder::containment`] or `OFFSHOOT_CONTAINMENT` says
    /// otherwise: a death in the middle of a transfer may end it, and another is started.
    pub fn isolated(self) -> Self {
        self.isolation(Isolation::Isolated)
    }

    /// The executable that an isolated pool's parent is started from: one with an MPI that calls
    /// [`init`](crate::init) or [`worker::serve`](crate::worker::serve) first thing, such as the `offshoot` command, or a worker
    /// of the pool's. This executable by default.
    pub fn parent_executable(mut self, path: impl Into<PathBuf>) -> Self {
        self.parent = Some(path.into());
        self
    }

    /// Where what the workers write to their standard output and standard error goes; to the host's own streams by
    /// default. In-memory workers are part of the host, and write where that writes.
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// How long a worker that is to be ended has, with all that it has started: they get SIGTERM first, and SIGKILL
    /// when that time is over; 1 s by default. When the host itself is gone they get SIGKILL at once.
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.kill_grace = grace.min(FOR_EVER);
        self
    }

    /// How long another host may be silent before its workers are taken for lost; 10 s by default. They end
    /// themselves when they have not heard of this host for so long. Guards and host say four times in that time
    /// that they are there, so that a slow worker is not taken for a lost one. On one host nothing of that is
    /// needed.
    pub fn heartbeat_timeout(mut self, timeout: Duration) -> Self {
        self.heartbeat_timeout = timeout.min(FOR_EVER);
        self
    }

    /// Uses in-memory workers, threads of this process, in place of MPI. Everything else is the same,
    /// and everything is really serialized. For tests.
    pub fn loopback(self) -> Self {
        self.loopback_with(Registry::linked())
    }

    /// As [`Builder::loopback`], with an explicit list of tasks.
    pub fn loopback_with(mut self, registry: Registry) -> Self {
        self.backend = Backend::Loopback(registry);
        self
    }

    /// Makes the pool. With MPI the first one initializes MPI, unless the host has.
    ///
    /// # Errors
    /// [`BuildError`]: a setting makes no sense, `offshoot::init` was not called, MPI cannot be used, there are
    /// not so many slots, a host cannot be reached, or the process has another containment than was asked for.
    pub fn build(self) -> Result<Pool, BuildError> {
        let slots = match self.backend {
            Backend::Mpi => Slots::find_with(self.host_file.as_deref())?,
            Backend::Loopback(_) => Slots::of_cores(),
        };
        let config = self.config(&slots)?;
        self.program.check()?;
        let source = match self.workers.1 {
            Bound::Included(_) | Bound::Excluded(_) => Source::User,
            Bound::Unbounded => slots.source.clone(),
        };
        let (shared, kind) = match self.backend {
            Backend::Mpi => {
                self.check_slots(&slots, config.workers_max)?;
                let decision = isolation::decide(self.isolation)?;
                let sink = Sink::start(self.output).map_err(|error| {
                    BuildError::Setting(format!("output(): nothing can be written: {error}"))
                })?;
                let wanted = Wanted {
                    config,
                    program: self.program,
                    queue_max: self.queue_max,
                    slots: &slots,
                    containment: self.containment,
                    kill_grace: self.kill_grace,
                    heartbeat_timeout: self.heartbeat_timeout,
                    sink,
                };
                let (shared, containment) = match decision.isolation {
                    Isolation::Isolated => backend::isolated(wanted, self.parent)?,
                    Isolation::Auto | Isolation::Embedded => embedded::embedded(wanted)?,
                };
                (shared, Kind { containment, isolation: decision.isolation, reason: decision.reason })
            }
            Backend::Loopback(registry) => {
                let shared = backend::in_memory(config, self.program, self.queue_max, registry)?;
                let (isolation, reason) = (Isolation::Embedded, "its workers are in memory");
                (shared, Kind { containment: self.containment.unwrap_or_default(), isolation, reason })
            }
        };
        Ok(Pool::on(slots, shared, config.workers_max, source, kind))
    }

    /// Refuses more workers than fit, where somebody else counts on it that they do. On a machine of one's own
    /// they only slow each other down.
    pub(super) fn check_slots(&self, slots: &Slots, workers: u32) -> Result<(), SlotsError> {
        let total = slots.total();
        match slots.source {
            _ if workers <= total || self.oversubscribe => Ok(()),
            Source::Cores | Source::User => {
                tracing::warn!("up to {workers} workers share {total} core(s)");
                Ok(())
            }
            Source::Slurm | Source::HostFile(_) => {
                Err(SlotsError::TooMany { workers, slots: total, source_of_slots: slots.source.clone() })
            }
        }
    }

    pub(super) fn config(&self, slots: &Slots) -> Result<Config, BuildError> {
        let setting = |text: &str| Err(BuildError::Setting(text.to_owned()));
        let workers_min = match self.workers.0 {
            Bound::Included(min) => min,
            Bound::Excluded(min) => min.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let workers_max = match self.workers.1 {
            Bound::Included(max) => max,
            Bound::Excluded(max) => max.saturating_sub(1),
            Bound::Unbounded => slots.total().max(workers_min),
        };
        if workers_max == 0 {
            return setting("workers(..=0): a pool without workers runs nothing");
        }
        if workers_min > workers_max {
            return setting("workers(min..=max): the minimum is above the maximum");
        }
        if self.config.attempts_max == 0 {
            return setting("attempts_max(0): a task needs one attempt at least");
        }
        if self.heartbeat_timeout < HEARTBEAT_TIMEOUT_MIN {
            return setting("heartbeat_timeout: other hosts need a tenth of a second at least");
        }
        if self.queue_max == 0 {
            return setting("queue_max(0): a pool that holds no task runs nothing");
        }
        Ok(Config { workers_min, workers_max, ..self.config })
    }
}
