//! Where lines come from: a file or standard input, read lazily, as bytes of no particular encoding.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::thread;

use crossbeam_channel::{Receiver, bounded};

use super::template::Template;

/// The longest line. Without a bound an endless one would take all memory.
const LINE_MAX: u64 = 64 << 20;
/// Lines that are handed over at once, if they are there.
const BATCH: usize = 64;
/// Batches that are read before they are wanted.
const READ_AHEAD: usize = 1;

/// A line of input that is to be run.
pub(crate) struct Line {
    /// Which command this is, from 1, without a gap.
    pub(crate) sequence: u64,
    /// Which line of the input it is, from 1, for people.
    pub(crate) number: u64,
    pub(crate) command: Vec<u8>,
}

/// An open file or standard input.
pub(crate) struct Input {
    reader: BufReader<File>,
    name: String,
    path: Option<PathBuf>,
    /// Whether it can be read to its end without a wait for whoever writes it.
    pub(crate) is_file: bool,
}

impl Input {
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, String> {
        if path.is_none() && io::stdin().is_terminal() {
            return Err("what is to be run? Name a file with one command a line, or pipe lines in; \
                `offshoot run --help` has examples"
                .to_owned());
        }
        let stdin = take_stdin().map_err(|error| format!("standard input cannot be used: {error}"))?;
        match path {
            Some(path) if path.as_os_str() != "-" => Self::file(path),
            Some(_) | None => Ok(Self::stdin(stdin)),
        }
    }

    fn file(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let file = File::open(path).map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
        let metadata = file.metadata().map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
        if metadata.is_dir() {
            return Err(format!("`{shown}` is a directory: name a file with one command a line"));
        }
        Ok(Self {
            reader: BufReader::new(file),
            name: format!("`{shown}`"),
            path: Some(path.to_path_buf()),
            is_file: metadata.is_file(),
        })
    }

    fn stdin(stdin: File) -> Self {
        Self {
            is_file: stdin.metadata().is_ok_and(|metadata| metadata.is_file()),
            reader: BufReader::new(stdin),
            name: "standard input".to_owned(),
            path: None,
        }
    }

    /// A second look at the same file, to count its lines. Not if that would take away from the first.
    pub(crate) fn again(&self) -> Option<Self> {
        self.path.as_deref().filter(|_| self.is_file).and_then(|path| Self::file(path).ok())
    }
}

/// Puts nothing in the place of standard input, and returns what was there. The daemons of an MPI inherit
/// it, and Open MPI's takes what it can get, for the first worker: lines would be missing here.
fn take_stdin() -> io::Result<File> {
    let stdin = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(File::from(stdin))
}

/// Lines that are handed over at once, one at least.
pub(crate) type Batch = Vec<Result<Line, String>>;

/// The lines of an input that are to be run: an iterator. After an error there are no more.
pub(crate) struct Lines {
    input: Input,
    template: Option<Template>,
    number: u64,
    sequence: u64,
    failed: bool,
}

impl Lines {
    pub(crate) fn new(input: Input, template: Option<Template>) -> Self {
        Self { input, template, number: 0, sequence: 0, failed: false }
    }

    /// Has a thread read them, because whoever writes standard input may take his time. The channel
    /// closes at the end of the input; the thread ends, at its next line, when the channel is dropped.
    pub(crate) fn on_a_thread(mut self) -> io::Result<Receiver<Batch>> {
        let (ahead, lines) = bounded(READ_AHEAD);
        let body = move || {
            while let Some(batch) = self.batch() {
                if ahead.send(batch).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new().name("input".to_owned()).spawn(body)?;
        Ok(lines)
    }

    /// The next line, however long it is in coming, and those behind it that have come with it.
    fn batch(&mut self) -> Option<Batch> {
        let mut batch = vec![self.find(true)?];
        while batch.len() < BATCH
            && let Some(line) = self.find(false)
        {
            batch.push(line);
        }
        Some(batch)
    }

    /// The next line that is to be run; one that has come already, unless this may wait.
    fn find(&mut self, may_wait: bool) -> Option<Result<Line, String>> {
        while !self.failed && (may_wait || self.input.reader.buffer().contains(&b'\n')) {
            let line = match self.read() {
                Ok(line) => line?,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            };
            if self.is_to_run(&line) {
                self.sequence += 1;
                let sequence = self.sequence;
                let command = match &self.template {
                    Some(template) => template.fill(&line, sequence),
                    None => line,
                };
                return Some(Ok(Line { sequence, number: self.number, command }));
            }
        }
        None
    }

    fn read(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut line = Vec::new();
        let read = (&mut self.input.reader).take(LINE_MAX + 1).read_until(b'\n', &mut line);
        read.map_err(|error| format!("{} cannot be read on: {error}", self.input.name))?;
        self.number += 1;
        if line.is_empty() {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() as u64 > LINE_MAX {
            let (number, name) = (self.number, &self.input.name);
            return Err(format!("line {number} of {name} is longer than {} MiB: split it", LINE_MAX >> 20));
        }
        Ok(Some(line))
    }

    fn is_to_run(&self, line: &[u8]) -> bool {
        match self.template {
            Some(_) => !line.is_empty(),
            None => !matches!(line.trim_ascii_start(), [] | [b'#', ..]),
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Line, String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.find(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;

    use super::*;

    fn commands(batch: &Batch) -> Vec<&str> {
        let command = |line: &Result<Line, String>| {
            let command = &line.as_ref().expect("it can be read").command;
            std::str::from_utf8(command).expect("it is text").to_owned().leak() as &str
        };
        batch.iter().map(command).collect()
    }

    #[test]
    fn lines_that_have_come_together_are_one_batch_and_none_waits_for_the_next() {
        let (reader, mut writer) = io::pipe().expect("there are descriptors");
        let lines = Lines::new(Input::stdin(File::from(OwnedFd::from(reader))), None);
        let batches = lines.on_a_thread().expect("there is room for a thread");
        writer.write_all(b"a\nb\n# a comment\n\nhalf").expect("somebody reads");
        assert_eq!(commands(&batches.recv().expect("there are lines")), ["a", "b"]);
        writer.write_all(b" a line\nlast").expect("somebody reads");
        assert_eq!(commands(&batches.recv().expect("there are more")), ["half a line"]);
        drop(writer);
        assert_eq!(commands(&batches.recv().expect("there is one more")), ["last"]);
        assert!(batches.recv().is_err(), "that is all");
    }
}
