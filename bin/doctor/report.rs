//! What the doctor prints: a page for people, one JSON object for programs.

use std::io::{self, Write};

use offshoot::{Diagnosis, Status, VariableOrigin};
use serde::Serialize;

use super::trial::Trial;

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether a pool works here.
    works: bool,
    #[serde(flatten)]
    diagnosis: Diagnosis,
    /// What came of two workers; absent if none were spawned.
    trial: Option<Trial>,
    #[serde(skip)]
    look_only: bool,
}

impl Report {
    pub(crate) fn new(diagnosis: Diagnosis, trial: Option<Trial>, look_only: bool) -> Self {
        let tried = trial.as_ref().map_or(look_only, |trial| trial.error.is_none());
        Self { works: diagnosis.is_fine() && tried, diagnosis, trial, look_only }
    }

    pub(crate) fn is_fine(&self) -> bool {
        self.works
    }

    pub(crate) fn print_json(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, self)?;
        writeln!(out)
    }

    pub(crate) fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        self.print_mpi(&mut out)?;
        self.print_environment(&mut out)?;
        self.print_findings(&mut out)?;
        self.print_trial(&mut out)?;
        let verdict = match (self.works, self.look_only) {
            (true, true) => "Nothing speaks against workers here; none were spawned.",
            (true, false) => "Workers can be spawned here.",
            (false, _) => "Workers can NOT be spawned here.",
        };
        writeln!(out, "\n{verdict}")
    }

    fn print_mpi(&self, out: &mut impl Write) -> io::Result<()> {
        let Diagnosis {
            offshoot,
            mpi,
            mpi_version,
            library,
            process_manager,
            launcher,
            thread_level,
            universe_size,
            spawn_thread,
            ..
        } = &self.diagnosis;
        let path = |path: &Option<std::path::PathBuf>| {
            path.as_ref().map_or("not found".to_owned(), |path| path.display().to_string())
        };
        writeln!(out, "offshoot {offshoot}")?;
        row(out, "MPI", mpi.unwrap_or("unknown"))?;
        row(out, "version", mpi_version)?;
        row(out, "library", &path(library))?;
        let manager =
            if process_manager == "own" { "offshoot's own, in this process" } else { "the launcher" };
        row(out, "processes by", manager)?;
        row(out, "launcher", &path(launcher))?;
        if let Some(level) = thread_level {
            row(out, "thread level", level)?;
            let size =
                universe_size.map_or("not set".to_owned(), |size| format!("{size}, which is not trusted"));
            row(out, "universe size", &size)?;
        }
        if let Some(slots) = &self.diagnosis.slots {
            for host in &slots.hosts {
                row(out, "host", &format!("{}: {} slots ({})", host.name, host.slots, slots.source))?;
            }
        }
        row(out, "spawning", spawn_thread.unwrap_or("unknown"))?;
        let (isolation, reason) = (self.diagnosis.isolation, self.diagnosis.isolation_reason);
        row(out, "pools are", &format!("{isolation}: {reason}"))?;
        row(out, "containment", &self.diagnosis.containment.to_string())?;
        row(out, "contained by", self.diagnosis.contained_by.unwrap_or("unknown"))
    }

    fn print_environment(&self, out: &mut impl Write) -> io::Result<()> {
        if self.diagnosis.environment.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nEnvironment")?;
        for variable in &self.diagnosis.environment {
            let value = variable.value.as_deref().unwrap_or_default();
            let name = variable.name;
            match variable.origin {
                VariableOrigin::Set => writeln!(out, "  set      {name}={value}")?,
                VariableOrigin::User => writeln!(out, "  yours    {name}={value}")?,
                VariableOrigin::Removed => writeln!(out, "  removed  {name}")?,
            }
            writeln!(out, "           ({})", variable.why)?;
        }
        Ok(())
    }

    fn print_findings(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\nChecks")?;
        for finding in &self.diagnosis.findings {
            let mark = match finding.status {
                Status::Ok => "ok  ",
                Status::Warning => "WARN",
                Status::Failure => "FAIL",
            };
            writeln!(out, "  {mark}  {}: {}", finding.check, finding.found)?;
            if let Some(remedy) = &finding.remedy {
                writeln!(out, "        -> {remedy}")?;
            }
        }
        Ok(())
    }

    fn print_trial(&self, out: &mut impl Write) -> io::Result<()> {
        let Some(trial) = &self.trial else { return Ok(()) };
        writeln!(out, "\nTrial")?;
        timed(out, "MPI initialized", trial.init_ms, "ms")?;
        timed(out, "first worker answered", trial.first_answer_ms, "ms")?;
        timed(out, "both workers answered", trial.both_answers_ms, "ms")?;
        for worker in &trial.workers {
            writeln!(out, "        process {} at {}", worker.pid, worker.host)?;
        }
        timed(out, "round trip of a task", trial.round_trip_us, "us")?;
        timed(out, "a worker killed, noticed after", trial.death_noticed_ms, "ms")?;
        if let Some(survivor) = &trial.survivor {
            writeln!(out, "  ok    the other one lives: process {} at {}", survivor.pid, survivor.host)?;
        }
        timed(out, "pool ended", trial.end_ms, "ms")?;
        trial.error.as_ref().map_or(Ok(()), |error| writeln!(out, "  FAIL  {error}"))
    }
}

fn row(out: &mut impl Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "  {name:<15}{value}")
}

fn timed(out: &mut impl Write, what: &str, time: Option<f64>, unit: &str) -> io::Result<()> {
    time.map_or(Ok(()), |time| writeln!(out, "  ok    {what}: {time:.1} {unit}"))
}
