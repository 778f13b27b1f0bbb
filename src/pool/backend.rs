//! What stands behind a pool: workers of an isolated parent, or threads in memory. Where the MPI is this process's own it
//! is `embedded`.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};

use super::{Shared, exit};
use crate::containment::Containment;
use crate::core::Config;
use crate::driver::{Driver, Turnable, run_drivers};
use crate::error::BuildError;
use crate::launch::Program;
use crate::process;
use crate::slots::Slots;
use crate::task::Registry;
use crate::transport::bells::Bells;
use crate::transport::loopback::LoopbackTransport;
use crate::transport::output::Sink;
use crate::transport::parent::{IsolatedTransport, ParentLaunch};
use crate::transport::{Doorbell, Pulse};
use crate::wire::parent::Wishes;

/// The MPI of an isolated parent has this long to start at least, however impatient a pool is with its workers.
const PARENT_START_MIN: Duration = Duration::from_secs(10);

/// What a pool with real workers is built of.
pub(super) struct Wanted<'a> {
    pub(super) config: Config,
    pub(super) program: Program,
    pub(super) queue_max: usize,
    pub(super) slots: &'a Slots,
    pub(super) containment: Option<Containment>,
    pub(super) kill_grace: Duration,
    pub(super) heartbeat_timeout: Duration,
    pub(super) sink: Option<Arc<Sink>>,
}

/// A pool whose MPI is in a process beside this one.
pub(super) fn isolated(
    wanted: Wanted<'_>,
    parent: Option<PathBuf>,
) -> Result<(Arc<Shared>, Containment), BuildError> {
    let Wanted { config, program, queue_max, slots, containment: asked, kill_grace, heartbeat_timeout, sink } =
        wanted;
    // Another executable knows its roles. This one would run `main` again.
    if parent.is_none() && !process::is_environment_remembered() {
        return Err(BuildError::NotInitialized);
    }
    let own = || env::current_exe().map_err(|error| BuildError::Parent(error.to_string()));
    let parent = ParentLaunch {
        executable: parent.map_or_else(own, Ok)?,
        containment: asked,
        start_limit: config.spawn_timeout.max(PARENT_START_MIN),
    };
    let wishes = Wishes {
        spawn_timeout: config.spawn_timeout,
        kill_grace,
        heartbeat_timeout,
        is_output_wanted: sink.is_some(),
        workers_max: config.workers_max,
        slots: slots.clone(),
    };
    let bells = Bells::create().map_err(|error| BuildError::System(error.to_string()))?;
    let doorbell = Arc::new(bells.of_host_behind());
    let (commands, inbox) = unbounded();
    let shared = Arc::new(Shared::new(commands, Arc::clone(&doorbell), queue_max));
    shared.set_sink(sink.clone());
    shared.note_parent(true);
    let (driven, pool) = (Arc::clone(&shared), Arc::clone(&shared));
    let (report, started) = bounded(1);
    let body = move || {
        let parents = driven.count_of_parents();
        let begun = IsolatedTransport::start(parent, wishes, sink, (Arc::clone(&doorbell), bells), parents);
        let transport = match begun {
            Ok((transport, facts)) => {
                let fits = asked.is_none_or(|asked| asked == facts.containment);
                let _ = report.send(Ok(facts));
                if !fits {
                    return;
                }
                transport
            }
            Err(error) => return drop(report.send(Err(error))),
        };
        let driver: Box<dyn Turnable> = Box::new(Driver::new(config, program, transport, inbox, driven));
        let (_, no_requests) = unbounded();
        run_drivers(&doorbell, &Pulse::default(), &no_requests, &(), vec![driver]);
        pool.note_parent(false);
    };
    thread::Builder::new()
        .name("offshoot isolated".to_owned())
        .spawn(body)
        .map_err(|error| BuildError::System(error.to_string()))?;
    let facts = started.recv().map_err(|_| BuildError::Parent("its thread panicked".to_owned()))??;
    exit::note(&shared);
    match asked {
        Some(asked) if asked != facts.containment => {
            let reason = format!("that is what the MPI of the isolated parent, {}, has", facts.version);
            Err(BuildError::Containment { asked, has: facts.containment, reason })
        }
        _ => Ok((shared, facts.containment)),
    }
}

/// A pool whose workers are threads of this process.
pub(super) fn in_memory(
    config: Config,
    program: Program,
    queue_max: usize,
    registry: Registry,
) -> Result<Arc<Shared>, BuildError> {
    let doorbell = Arc::new(Doorbell::default());
    let (commands, inbox) = unbounded();
    let shared = Arc::new(Shared::new(commands, Arc::clone(&doorbell), queue_max));
    let driven = Arc::clone(&shared);
    let body = move || {
        let transport = LoopbackTransport::new(registry, Arc::clone(&doorbell));
        let driver: Box<dyn Turnable> = Box::new(Driver::new(config, program, transport, inbox, driven));
        // Nobody can ask this engine for anything: it ends with its one driver.
        let (_, no_requests) = unbounded();
        run_drivers(&doorbell, &Pulse::default(), &no_requests, &(), vec![driver]);
    };
    thread::Builder::new()
        .name("offshoot loopback".to_owned())
        .spawn(body)
        .map_err(|error| BuildError::System(error.to_string()))?;
    Ok(shared)
}
