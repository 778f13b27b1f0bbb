//! What a worker writes to stderr: passed on as it comes, and the last lines kept for error reports.

use std::collections::VecDeque;
use std::io::Write;

/// Lines that are kept, and bytes of each.
const LINES_MAX: usize = 64;
const LINE_MAX: usize = 1024;

/// The last lines of a stream.
#[derive(Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    /// The line that has no end yet.
    open: Vec<u8>,
}

impl Tail {
    /// Writes to this process's own stderr, and remembers.
    pub(super) fn pass_on(&mut self, bytes: &[u8]) {
        // Where nobody reads, it is lost: a worker must not wait for a reader.
        let _ = std::io::stderr().write_all(bytes);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_MAX.saturating_sub(self.open.len());
            self.open.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.close_line();
            }
        }
    }

    fn close_line(&mut self) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(String::from_utf8_lossy(&self.open).trim_end().to_owned());
        self.open.clear();
    }

    /// The last lines, oldest first.
    pub(super) fn take(&mut self) -> Vec<String> {
        if !self.open.is_empty() {
            self.close_line();
        }
        std::mem::take(&mut self.lines).into()
    }
}
