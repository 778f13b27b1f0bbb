//! The `offshoot` command: the front door. Each subcommand is a module; what they run is in the library.

mod bench;
mod chaos;
mod doctor;
mod processes;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Grow MPI workers on demand from an ordinary process, and give them work.
#[derive(Debug, Parser)]
#[command(name = "offshoot", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Doctor(doctor::Arguments),
    Chaos(chaos::Arguments),
    Bench(bench::Arguments),
    /// Hold the MPI of an isolated pool. It is started by a pool (`Builder::parent_executable`), not by hand.
    Parent,
}

const EXAMPLES: &str = "\
Examples:
  offshoot run jobs.txt                       each line of the file, on as many workers as there are cores
  seq 100 | offshoot run --args 'gzip -k {}'  one command for each line of input
  offshoot run --help                         everything that `run` can do
  offshoot doctor                             which MPI this is, and whether workers can be spawned
  offshoot chaos                              workers are killed at random: is anything lost?
  offshoot bench                              how fast it is here, beside raw MPI in the same run";

fn main() -> ExitCode {
    bench::serve_if_raw();
    // A worker is this same executable: in a spawned process this does not return.
    offshoot::init();
    match Cli::parse().command {
        Command::Run(arguments) => run::main(&arguments),
        Command::Doctor(arguments) => doctor::main(&arguments),
        Command::Chaos(arguments) => chaos::main(&arguments),
        Command::Bench(arguments) => bench::main(&arguments),
        Command::Parent => {
            eprintln!(
                "offshoot: an isolated parent is started by the pool whose MPI it holds: name this executable in \
                 `Builder::parent_executable`"
            );
            ExitCode::from(2)
        }
    }
}
