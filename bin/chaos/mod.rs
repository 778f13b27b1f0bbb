//! `offshoot chaos`: a real pool under fire, and an account of every task.
//!
//! Two processes: the host (`fire`) has the pool, hands in tasks and kills its workers at random; the one that
//! the user started (`watch`) sees how the host ends and what it leaves behind. `ledger` is the account: what
//! was handed in, what came of it, what was executed, from journals of its own and not from the pool's.
//! `tasks` has what the workers do, `victims` finds them, `ear` hears when the pool knows of a death, `report` adds up.

mod ear;
mod fire;
mod ledger;
mod report;
mod tasks;
mod victims;
mod watch;

use std::process::ExitCode;

use clap::Args;

/// Prove that nothing is lost: kill workers at random while a pool works, and account for each task.
///
/// Tasks with checksummed payloads, short and long, up to 64 MiB, failing, stalling and cancelled ones, on workers
/// that are killed by all kinds of signals: while they start, work, idle and leave.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// For how long there is fire.
    #[arg(long, value_name = "S", default_value_t = 20)]
    seconds: u32,

    /// The seed of what happens; a random one by default. Processes have a time of their own: the same seed gives
    /// the same tasks and the same intentions, not the same moments.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// The most workers at once.
    #[arg(long, value_name = "N", default_value_t = 4)]
    workers: u32,

    /// Kill no guards, or no workers that start; or nothing else than those: `nothing` is spared. By default what
    /// this MPI is known not to survive (docs/MPI.md).
    #[arg(long, value_name = "WHAT", value_enum)]
    spare: Vec<Spare>,

    /// Have the MPI in an isolated parent, with its fastest transport, and kill that too, and the daemons of the MPI.
    #[arg(long)]
    isolated: bool,

    /// Start the host through this command: `--through "mpiexec -n 1"`.
    #[arg(long, value_name = "COMMAND")]
    through: Option<String>,

    /// Say first which MPI this is, and what stands between host and workers.
    #[arg(long)]
    mpi_info: bool,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,

    /// Be the host that is watched.
    #[arg(long, hide = true, value_name = "FOLDER")]
    watched_in: Option<std::path::PathBuf>,
}

/// What is not killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Spare {
    Guards,
    Starts,
    Nothing,
}

impl Arguments {
    /// What is spared, as asked for or as this MPI needs it.
    fn spared(&self) -> Vec<Spare> {
        let mut spared = match &self.spare[..] {
            // Whatever that ends, it is not the host.
            [] if self.isolated => Vec::new(),
            [] => {
                let diagnosis = offshoot::Diagnosis::make();
                let manager = diagnosis.as_ref().map_or("", |diagnosis| &diagnosis.process_manager);
                let mpi = diagnosis.as_ref().and_then(|diagnosis| diagnosis.mpi).unwrap_or_default();
                default_spare(mpi, manager, self.through.is_some()).to_vec()
            }
            asked => asked.iter().copied().filter(|one| *one != Spare::Nothing).collect(),
        };
        spared.sort_unstable();
        spared.dedup();
        spared
    }
}

/// What would end the host, or its MPI, for reasons that are not ours: docs/MPI.md says what was seen.
fn default_spare(mpi: &str, process_manager: &str, is_in_job: bool) -> &'static [Spare] {
    match mpi {
        "Open MPI 4" | "Open MPI 5" => &[],
        // In a job it is the launcher of that.
        _ if process_manager == "own" && !is_in_job => &[],
        _ => &[Spare::Guards],
    }
}

const EXAMPLES: &str = "\
Examples:
  offshoot chaos
  offshoot chaos --seconds 600 --seed 7 --json
  offshoot chaos --isolated

Exit code: 0 every task is accounted for and nothing is left behind, 1 otherwise, 2 wrong usage.";

/// Wrong usage.
const USAGE: u8 = 2;

/// The whole command.
pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    if arguments.seconds == 0 || arguments.workers == 0 {
        eprintln!("offshoot: there is no chaos without a second and a worker");
        return ExitCode::from(USAGE);
    }
    let done = match &arguments.watched_in {
        Some(folder) => fire::run(arguments, folder).map(|()| true),
        None => watch::run(arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("offshoot: {error:#}");
            ExitCode::FAILURE
        }
    }
}
