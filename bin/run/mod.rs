//! `offshoot run`: one shell command for each line of input, on workers that grow with the work.
//!
//! On the host: `input` reads lines, `session` keeps them under way, `output`, `joblog`, `words` and
//! `tally` say what became of them. On a worker: `shell` runs one line, `family` knows which processes are the
//! line's and ends them. `order` is what travels between the two.

mod arguments;
mod family;
mod input;
mod interrupt;
mod joblog;
mod order;
mod output;
mod plain;
mod progress;
mod session;
mod shell;
mod tally;
mod template;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

pub(crate) use arguments::Arguments;

use input::{Input, Lines};
use joblog::Joblog;

/// Exit codes beside the 128 + n of a signal.
const PASSED: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// What a shell reports of a process that SIGPIPE ended.
const BROKEN_PIPE: u8 = 141;

/// The whole command, in a process that its user started.
pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    ExitCode::from(run(arguments).unwrap_or_else(|Complaint { code, text }| {
        say(&text);
        code
    }))
}

/// Why nothing was run.
struct Complaint {
    code: u8,
    text: String,
}

fn usage(text: String) -> Complaint {
    Complaint { code: USAGE, text }
}

fn failure(text: String) -> Complaint {
    Complaint { code: FAILED, text }
}

fn run(arguments: &Arguments) -> Result<u8, Complaint> {
    let input = Input::open(arguments.file.as_deref()).map_err(usage)?;
    if arguments.dry_run {
        return print_commands(Lines::new(input, arguments.template()));
    }
    let joblog = arguments.joblog.as_deref().map(Joblog::create).transpose().map_err(usage)?;
    session::run(arguments, input, joblog).map_err(failure)
}

/// `--dry-run`: what would run, one command a line.
fn print_commands(lines: Lines) -> Result<u8, Complaint> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut any = false;
    for line in lines {
        let mut command = line.map_err(failure)?.command;
        command.push(b'\n');
        any = true;
        if let Err(error) = out.write_all(&command) {
            return end_of_output(&error);
        }
    }
    if !any {
        say(NOTHING);
    }
    out.flush().map_or_else(|error| end_of_output(&error), |()| Ok(PASSED))
}

const NOTHING: &str = "nothing to run: the input has no line that is a command";

fn end_of_output(error: &io::Error) -> Result<u8, Complaint> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(BROKEN_PIPE),
        _ => Err(failure(format!("standard output cannot be written: {error}"))),
    }
}

/// A word to the user. If standard error is gone there is nobody to tell.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "offshoot: {text}");
}
