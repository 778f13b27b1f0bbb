//! `offshoot doctor`: what is on this machine, and whether a pool would work here.
//!
//! First it looks, and starts nothing; then `trial` spawns two workers, talks to them and kills one. `report`
//! prints what came of it, for people or for programs; `elsewhere` looks at another installation of MPI.

mod elsewhere;
mod report;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use offshoot::Diagnosis;

pub(crate) use report::Report;

/// Say which MPI is here, what was done for it, and whether workers can be spawned.
///
/// It looks at the MPI library and its launcher, at the environment and this machine; then it spawns two
/// workers, exchanges a message with each, kills one, and sees that the other lives.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Print one JSON object, as for a report of a bug.
    #[arg(long)]
    json: bool,

    /// Look only: spawn nothing.
    #[arg(long)]
    look_only: bool,

    /// Use the MPI that is installed in this folder, which has `bin` and `lib`.
    #[arg(long, value_name = "PATH")]
    mpi: Option<PathBuf>,

    /// Look at, and spawn on, the hosts of this file: one a line, `node1 slots=4` or `node1:4`.
    #[arg(long, value_name = "FILE")]
    hostfile: Option<PathBuf>,

    /// How long a worker may take to start.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    timeout: u32,
}

const EXAMPLES: &str = "\
Examples:
  offshoot doctor
  offshoot doctor --json > report.json
  offshoot doctor --mpi /opt/mpich-5.0

Exit code: 0 a pool works here, 1 it does not, 2 wrong usage.";

/// Wrong usage.
const USAGE: u8 = 2;

/// The whole command, in a process that its user started.
pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    if let Some(folder) = &arguments.mpi {
        // Where that works, this process becomes another one.
        eprintln!("offshoot: {}", elsewhere::look(folder));
        return ExitCode::from(USAGE);
    }
    let diagnose = || match &arguments.hostfile {
        Some(file) => Diagnosis::make_with(file),
        None => Diagnosis::make(),
    };
    let Some(before) = diagnose() else {
        eprintln!("offshoot: this process was not initialized, which is a bug");
        return ExitCode::FAILURE;
    };
    if let Some(complaint) = elsewhere::complaint(&before) {
        eprintln!("offshoot: {complaint}");
        return ExitCode::from(USAGE);
    }
    let trial = if !before.is_fine() || arguments.look_only {
        None
    } else {
        let timeout = Duration::from_secs(arguments.timeout.max(1).into());
        Some(trial::run(timeout, arguments.hostfile.as_deref()))
    };
    // MPI tells more once it is initialized.
    let diagnosis = diagnose().unwrap_or(before);
    let report = Report::new(diagnosis, trial, arguments.look_only);
    let printed = if arguments.json { report.print_json() } else { report.print() };
    match printed {
        Ok(()) if report.is_fine() => ExitCode::SUCCESS,
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}
