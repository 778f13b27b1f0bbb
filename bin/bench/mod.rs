//! `offshoot bench`: what this library makes of an MPI, beside that MPI alone, in one run.
//!
//! The process that the user started measures nothing. It starts itself again for each piece of work (`work` says
//! what there is, `child` starts and ends it), because MPI is initialized once per process, and round after round,
//! so that what disturbs the machine disturbs everything. In such a process `measure` does the work, with one file
//! for each kind of figure; `raw` is what it is compared with. `book` keeps what came of it, `figure` adds up,
//! `report` prints.

mod bandwidth;
mod book;
mod child;
mod figure;
mod idle;
mod isolation;
mod latency;
mod lines;
mod measure;
mod raw;
mod report;
mod scheduler;
mod spawn;
mod tasks;
mod throughput;
mod work;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use book::Book;
use figure::Figure;
use work::{Name, ROUNDS, Work};

pub(crate) use measure::serve_if_raw;

/// Measure this library on this machine, beside raw MPI in the same run.
///
/// `raw` is what a C programmer would write with the same MPI, its settings included: loops on the intercommunicator
/// of one `MPI_Comm_spawn`. `ours / raw` is the ratio of the medians; it is measured in three rounds, and given with
/// the least and the most of them. (Of the `isolated` figures, `raw` is the same work on an embedded pool.) Judge by ratios: times depend on what else this machine does.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to measure. [default: all]
    #[arg(value_name = "NAME", value_enum)]
    names: Vec<Name>,

    /// Print one JSON object a line, for each figure one.
    #[arg(long)]
    json: bool,

    /// How many workers, in place of each figure's own numbers.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    workers: Option<u32>,

    /// For how long a figure is measured, about, all rounds together. With less than a second there are fewer tasks,
    /// and no large ones.
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,

    /// What a worker's death may do to the host: with which choice of transport to measure. [default: both]
    #[arg(long, value_name = "WHAT", value_enum)]
    containment: Option<Choice>,

    /// Be the process that does this, and write the outcome there.
    #[arg(long, hide = true, num_args = 2, value_names = ["WORK", "FILE"])]
    measure: Option<Vec<String>>,
}

/// As `OFFSHOOT_CONTAINMENT` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    Survivable,
    Fast,
}

const EXAMPLES: &str = "\
Examples:
  offshoot bench
  offshoot bench roundtrip throughput --containment fast
  offshoot bench bandwidth --json > figures.jsonl

Exit code: 0 everything was measured, 1 some figures were not, 2 wrong usage.";

/// Wrong usage.
const USAGE: u8 = 2;
/// Seconds that one process may take beside those of the user: sixteen workers that start, a gigabyte that travels.
const LIMIT: f64 = 45.0;
/// A figure takes minutes at most; more is a slip of the keyboard.
const SECONDS_MAX: f64 = 3600.0;

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    if seconds > 0.0 && seconds <= SECONDS_MAX {
        Ok(seconds)
    } else {
        Err(format!("a figure takes more than 0 and at most {SECONDS_MAX} seconds"))
    }
}

/// The whole command, in a process that its user started or in one that does a part of it.
pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    if let Some([work, file]) = arguments.measure.as_deref() {
        return match measure::run(work, Path::new(file)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("offshoot: {error:#}");
                ExitCode::from(USAGE)
            }
        };
    }
    if cfg!(debug_assertions) {
        eprintln!("offshoot: this is no release build, and its figures say little");
    }
    match measure_and_print(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("offshoot: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every figure is there. Each name's are printed as they come, in JSON; a table is printed as a whole.
fn measure_and_print(arguments: &Arguments) -> anyhow::Result<bool> {
    let names = if arguments.names.is_empty() { Name::value_variants() } else { &arguments.names };
    let mut all = Vec::new();
    for name in names {
        let figures = figures(*name, arguments)?;
        if arguments.json {
            report::print_json(&figures)?;
        }
        all.extend(figures);
    }
    if !arguments.json {
        report::print(&all)?;
    }
    Ok(all.iter().all(|figure| figure.error.is_none()))
}

fn figures(name: Name, arguments: &Arguments) -> anyhow::Result<Vec<Figure>> {
    let mut book = Book::default();
    let turns = turns(name, arguments);
    let progress = Progress::start(turns.len());
    for turn in turns {
        progress.show(&turn.work.name());
        let done = child::run(&turn.work, turn.containment, limit(arguments))?;
        book.note(turn.round, &turn.work, done);
    }
    progress.end();
    Ok(book.figures())
}

/// One process to start.
struct Turn {
    round: u32,
    work: Work,
    containment: &'static str,
}

/// Round after round, so that what disturbs the machine for a while does not disturb one of them only.
fn turns(name: Name, arguments: &Arguments) -> Vec<Turn> {
    let works = name.works(arguments);
    let containments = containments(name, arguments);
    let mut turns = Vec::new();
    for round in 0..ROUNDS {
        for &work in works.iter().filter(|work| round < work.rounds()) {
            turns.extend(containments.iter().map(|&containment| Turn { round, work, containment }));
        }
    }
    turns
}

fn containments(name: Name, arguments: &Arguments) -> &'static [&'static str] {
    match arguments.containment {
        _ if !name.depends_on_containment() => &["survivable"],
        None => &["survivable", "fast"],
        Some(Choice::Survivable) => &["survivable"],
        Some(Choice::Fast) => &["fast"],
    }
}

/// How long one process may take. They measure for a part of the seconds, and start and end workers.
fn limit(arguments: &Arguments) -> Duration {
    Duration::from_secs_f64(LIMIT + arguments.seconds)
}

/// How far it is, where somebody looks.
struct Progress(ProgressBar);

impl Progress {
    fn start(turns: usize) -> Self {
        let style = ProgressStyle::with_template("{pos}/{len} {msg}").expect("it is a good template");
        Self(ProgressBar::new(turns as u64).with_style(style))
    }

    fn show(&self, what: &str) {
        self.0.set_message(what.to_owned());
        self.0.inc(1);
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}
