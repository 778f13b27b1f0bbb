//! A process that does one piece of work, and tells what came of it.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use offshoot::Diagnosis;

use super::child::{self, Done};
use super::figure::Sample;
use super::work::Work;
use super::{bandwidth, idle, isolation, latency, lines, raw, scheduler, spawn, throughput};

/// Before anything else in `main`: a raw worker has nothing of this library in it, so it returns only in processes
/// that are none.
pub(crate) fn serve_if_raw() {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() != Some(raw::FLAG) {
        return;
    }
    raw::forget_what_is_for_hosts();
    if let Some(host) = arguments.next().and_then(|host| host.parse().ok()) {
        child::end_soon_after(host);
    }
    raw::serve();
    std::process::exit(0);
}

/// Does what the first text says, and writes what came of it into the file.
pub(crate) fn run(work: &str, file: &Path) -> anyhow::Result<()> {
    let work: Work = serde_json::from_str(work).context("this is not for users")?;
    child::end_with_parent();
    let diagnosis = Diagnosis::make().context("this process was not initialized, which is a bug")?;
    let outcome = measure(work).map_err(|error| format!("{error:#}"));
    let containment = match work {
        Work::Scheduler { .. } => "none".to_owned(),
        _ => diagnosis.containment.to_string(),
    };
    let done = Done { mpi: diagnosis.mpi_version, containment, outcome };
    fs::write(file, serde_json::to_vec(&done)?).context("nobody can be told")
}

fn measure(work: Work) -> anyhow::Result<Vec<Sample>> {
    let time = Duration::from_millis;
    match work {
        Work::RoundTrips { workers, millis } => latency::round_trips(workers, time(millis)),
        Work::AfterIdle { workers, times } => latency::after_idle(workers, times),
        Work::Throughput { workers, tasks } => throughput::measure(workers, tasks),
        Work::Echoes { bytes, millis } => bandwidth::measure(bytes, time(millis)),
        Work::Isolation { millis, tasks, bytes } => isolation::measure(time(millis), tasks, bytes),
        Work::ColdStart { workers, side } => spawn::cold_start(workers, side),
        Work::Gap { side } => spawn::gap(side),
        Work::Idle { workers, side, millis } => idle::measure(workers, side, time(millis)),
        Work::Scheduler { workers, tasks } => scheduler::measure(workers, tasks),
        Work::Lines { workers, lines } => lines::measure(workers, lines),
    }
}
