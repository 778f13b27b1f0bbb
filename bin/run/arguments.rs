//! What `offshoot run` can be told, and what its help says.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::template::Template;

/// Run each line of a file as a shell command, on MPI workers that grow with the work.
///
/// Blank lines and lines that start with `#` are skipped. Each line runs under `/bin/sh` with this
/// shell's environment, in this directory, with nothing on standard input. Its output appears as one
/// piece when it has ended, in the order of the lines.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, after_long_help = EXAMPLES_AND_NOTES)]
pub(crate) struct Arguments {
    /// File with one command a line; standard input if absent or `-`.
    pub(crate) file: Option<PathBuf>,

    /// How many workers to keep at least and to have at most; one number is the most. [default: one a core]
    #[arg(short = 'j', long, value_name = "MIN..MAX")]
    pub(crate) workers: Option<Workers>,

    /// File with the hosts to run lines on: `node1 slots=4` or `node1:4`, one a line, filled in this order.
    ///
    /// Without it, the file that OFFSHOOT_HOSTFILE names. In an allocation of Slurm it chooses among the
    /// allocated hosts, all of which are used without it. The default of --workers is the number of slots. The hosts are reached as the MPI reaches them, by `ssh`
    /// without a password as a rule, and have `offshoot` and this directory at the same paths.
    #[arg(long, value_name = "FILE")]
    pub(crate) hostfile: Option<PathBuf>,

    /// Allow more workers than the allocation or the host file has slots.
    #[arg(long)]
    pub(crate) oversubscribe: bool,

    /// Make a command of each line of input: `{}` is the line, quoted for the shell, and `{#}` its number
    /// among the commands, from 1.
    ///
    /// Without either, the line is put at the end. Do not put quotes around `{}`. Every line of input
    /// that is not empty counts here, those that start with `#` too.
    #[arg(short, long, value_name = "COMMAND")]
    pub(crate) args: Option<OsString>,

    /// Print outputs as lines end, not in the order of the lines.
    #[arg(short, long)]
    pub(crate) unordered: bool,

    /// Write a table of all tries: a tab separates the columns, the first row names them.
    #[arg(long, value_name = "FILE")]
    pub(crate) joblog: Option<PathBuf>,

    /// Try a line that fails up to so many times again. The output is the last try's.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retries: u32,

    /// End a line, with all processes that it started, after so long; it counts as failed.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,

    /// At the first line that fails, end those that run, and start no more.
    #[arg(long)]
    pub(crate) halt_on_error: bool,

    /// Print the commands that would run, and start nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Say nothing about lines and progress on standard error, but let their own output through.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  offshoot run jobs.txt
  offshoot run jobs.txt --workers 2..16 --timeout 60 --retries 1 --joblog jobs.log
  seq 100 | offshoot run --args 'gzip -k {}'
  find . -name '*.wav' | offshoot run -u -a 'flac --silent {}'
  offshoot run jobs.txt --dry-run

`offshoot run --help` says more.";

const EXAMPLES_AND_NOTES: &str = "\
Examples:
  offshoot run jobs.txt
  offshoot run jobs.txt --workers 2..16 --timeout 60 --retries 1 --joblog jobs.log
  seq 100 | offshoot run --args 'gzip -k {}'
  find . -name '*.wav' | offshoot run -u -a 'flac --silent {}'
  offshoot run jobs.txt --dry-run
  offshoot run jobs.txt --hostfile hosts.txt

What happens when:
  Ctrl-C or SIGTERM ends the lines that run, prints what there is, and says what was not run; a second
  one quits at once. What a line leaves running in the background lives on if the line ended by itself
  (its further output is dropped), and is ended with it on a time-out or Ctrl-C. Of each output stream of
  a line 256 MiB are kept. A worker that dies takes its line with it: the line failed, unless --retries
  allows another try.

Exit code: 0 all lines passed, 1 a line failed, 2 wrong usage, 130 after Ctrl-C, 143 after SIGTERM,
141 when nobody reads standard output any more.";

impl Arguments {
    pub(crate) fn template(&self) -> Option<Template> {
        self.args.as_deref().map(Template::parse)
    }

    /// The least and the most workers, if the user has said.
    pub(crate) fn workers(&self) -> Option<(u32, u32)> {
        self.workers.map(|Workers { min, max }| (min, max))
    }
}

/// `MIN..MAX`, `..MAX` or `MAX`, the maximum included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workers {
    min: u32,
    max: u32,
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse().map_err(|_| format!("`{text}` is no number of workers: write 4, or 0..4"))
        };
        let (min, max) = match text.split_once("..") {
            None => (0, number(text)?),
            Some(("", max)) => (0, number(max.trim_start_matches('='))?),
            Some((min, max)) => (number(min)?, number(max.trim_start_matches('='))?),
        };
        match (min, max) {
            (_, 0) => Err("no worker runs nothing: let there be 1 at least".to_owned()),
            (min, max) if min > max => Err(format!("the least, {min}, is above the most, {max}")),
            (min, max) => Ok(Self { min, max }),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` is no time: write seconds, as in 90 or 0.5");
    let duration = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.filter(|duration| !duration.is_zero()).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_a_maximum_or_a_range() {
        let parse = |text: &str| text.parse::<Workers>();
        assert_eq!(parse("4"), Ok(Workers { min: 0, max: 4 }));
        assert_eq!(parse("2..4"), Ok(Workers { min: 2, max: 4 }));
        assert_eq!(parse("2..=4"), Ok(Workers { min: 2, max: 4 }));
        assert_eq!(parse("..4"), Ok(Workers { min: 0, max: 4 }));
        for wrong in ["", "0", "4..2", "2..", "x", "-1", "1..0", "1...2", "99999999999"] {
            assert!(parse(wrong).is_err(), "{wrong:?} should be refused");
        }
    }

    #[test]
    fn a_timeout_is_a_positive_number_of_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("90"), Ok(Duration::from_secs(90)));
        for wrong in ["", "0", "-1", "1s", "inf", "nan", "1e300"] {
            assert!(seconds(wrong).is_err(), "{wrong:?} should be refused");
        }
    }
}
