//! What the user is told of a line, in words, behind what the line itself wrote.

use super::Arguments;
use super::input::Line;
use super::order::{Captured, End, Report};

/// Characters of a command in a message.
const COMMAND_SHOWN: usize = 60;

/// What the user is told of a line that has ended, beside its own output.
pub(super) fn words(line: &Line, report: &Report, arguments: &Arguments) -> Vec<String> {
    let number = line.number;
    let mut words = Vec::new();
    for (captured, name) in [(&report.stdout, "standard output"), (&report.stderr, "standard error")] {
        let Captured { bytes, dropped } = captured;
        if *dropped > 0 {
            let kept = bytes.len() >> 20;
            words.push(format!(
                "line {number} wrote {dropped} bytes to {name} beyond the {kept} MiB that are kept"
            ));
        }
    }
    let tries = match report.tries.len() {
        0 | 1 => String::new(),
        more => format!(" (try {more})"),
    };
    let about = match report.end() {
        None | Some(End::Exited(0) | End::Cancelled(_)) => return words,
        Some(End::NotStarted(reason)) => {
            words.push(format!("line {number} could not be started: {reason}"));
            return words;
        }
        Some(End::Exited(code)) => format!("line {number} failed with exit code {code}{tries}"),
        Some(end @ End::Signalled(_)) => {
            format!("line {number} was ended by {}{tries}", end.signal().unwrap_or_default())
        }
        Some(End::TimedOut(_)) => {
            let limit = arguments.timeout.unwrap_or_default().as_secs_f64();
            format!("line {number} took longer than {limit} s and was ended{tries}")
        }
    };
    if !arguments.quiet {
        words.push(format!("{about}: {}", shown(&line.command)));
    }
    words
}

fn shown(command: &[u8]) -> String {
    let start = &command[..command.len().min(4 * COMMAND_SHOWN)];
    let text: String =
        String::from_utf8_lossy(start).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(COMMAND_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Puts our words behind a line's own, each on a line of its own.
pub(super) fn append(stderr: &mut Vec<u8>, words: &[String]) {
    if !words.is_empty() && stderr.last().is_some_and(|last| *last != b'\n') {
        stderr.push(b'\n');
    }
    for text in words {
        stderr.extend_from_slice(format!("offshoot: {text}\n").as_bytes());
    }
}
