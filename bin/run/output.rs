//! What lines wrote goes out: as it comes, or in the order of the lines. A line that is long in coming
//! holds back those behind it; up to a limit they wait in memory, beyond it in a temporary file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::progress::Progress;

/// Bytes that wait in memory.
const HELD_MAX: usize = 64 << 20;

/// What one line wrote.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

pub(crate) struct Output<W> {
    ordered: bool,
    /// The line that is printed next.
    next: u64,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    spool: Option<Spool>,
    printer: W,
}

enum Held {
    InMemory(Block),
    InFile { offset: u64, stdout: usize, stderr: usize },
}

/// Where blocks go in the end.
pub(crate) trait Print {
    fn print(&mut self, block: &Block) -> io::Result<()>;
}

impl<W: Print> Output<W> {
    pub(crate) fn new(ordered: bool, printer: W) -> Self {
        Self { ordered, next: 1, held: BTreeMap::new(), held_bytes: 0, spool: None, printer }
    }

    /// What line number `sequence`, counted from 1, wrote; nothing, if it was not run.
    pub(crate) fn put(&mut self, sequence: u64, block: Block) -> io::Result<()> {
        if !self.ordered {
            return self.printer.print(&block);
        }
        if sequence != self.next {
            let held = self.hold(block);
            self.held.insert(sequence, held);
            return Ok(());
        }
        self.printer.print(&block)?;
        self.next += 1;
        while let Some(held) = self.held.remove(&self.next) {
            let block = self.release(held)?;
            self.printer.print(&block)?;
            self.next += 1;
        }
        if self.held.is_empty() {
            self.spool = None;
        }
        Ok(())
    }

    fn hold(&mut self, block: Block) -> Held {
        let bytes = block.stdout.len() + block.stderr.len();
        if bytes > 0 && self.held_bytes + bytes > HELD_MAX {
            // A disk that is full is no reason to lose what memory can hold.
            if let Ok(held) = self.spool(&block) {
                return held;
            }
        }
        self.held_bytes += bytes;
        Held::InMemory(block)
    }

    fn spool(&mut self, block: &Block) -> io::Result<Held> {
        let spool = match &mut self.spool {
            Some(spool) => spool,
            none => none.insert(Spool { file: tempfile::tempfile()?, end: 0 }),
        };
        let offset = spool.end;
        spool.file.write_all_at(&block.stdout, offset)?;
        spool.file.write_all_at(&block.stderr, offset + block.stdout.len() as u64)?;
        spool.end += (block.stdout.len() + block.stderr.len()) as u64;
        Ok(Held::InFile { offset, stdout: block.stdout.len(), stderr: block.stderr.len() })
    }

    fn release(&mut self, held: Held) -> io::Result<Block> {
        match held {
            Held::InMemory(block) => {
                self.held_bytes -= block.stdout.len() + block.stderr.len();
                Ok(block)
            }
            Held::InFile { offset, stdout, stderr } => {
                let mut block = Block { stdout: vec![0; stdout], stderr: vec![0; stderr] };
                let spool = self.spool.as_ref().expect("the file stays as long as something is held");
                spool.file.read_exact_at(&mut block.stdout, offset)?;
                spool.file.read_exact_at(&mut block.stderr, offset + stdout as u64)?;
                Ok(block)
            }
        }
    }
}

/// A temporary file without a name: it is gone when it is closed.
struct Spool {
    file: File,
    end: u64,
}

/// Standard output and standard error, unbuffered, so that a block is out when it is printed.
pub(crate) struct Streams {
    stdout: File,
    stderr: File,
    pub(crate) progress: Progress,
}

impl Streams {
    pub(crate) fn new(progress: Progress) -> io::Result<Self> {
        let stdout = File::from(rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?);
        let stderr = File::from(rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?);
        Ok(Self { stdout, stderr, progress })
    }
}

impl Print for Streams {
    fn print(&mut self, block: &Block) -> io::Result<()> {
        if block.stdout.is_empty() && block.stderr.is_empty() {
            return Ok(());
        }
        let Self { stdout, stderr, progress } = self;
        progress.aside(|| {
            // Whoever closes standard error does not want to know; standard output is the result.
            let _ = stderr.write_all(&block.stderr);
            stdout.write_all(&block.stdout)
        })
    }
}

impl<W> Output<W> {
    pub(crate) fn printer(&self) -> &W {
        &self.printer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Paper(Vec<u8>);

    impl Print for Paper {
        fn print(&mut self, block: &Block) -> io::Result<()> {
            self.0.extend_from_slice(&block.stdout);
            Ok(())
        }
    }

    fn block(text: &[u8]) -> Block {
        Block { stdout: text.to_vec(), stderr: Vec::new() }
    }

    fn printed(ordered: bool, sequences: &[u64]) -> String {
        let mut output = Output::new(ordered, Paper::default());
        for sequence in sequences {
            output.put(*sequence, block(sequence.to_string().as_bytes())).expect("paper is patient");
        }
        String::from_utf8(output.printer.0).expect("they are numbers")
    }

    #[test]
    fn blocks_wait_for_those_before_them() {
        assert_eq!(printed(true, &[3, 1, 5, 2, 4]), "12345");
        assert_eq!(printed(true, &[2, 3]), "", "the first has not come");
        assert_eq!(printed(false, &[3, 1, 2]), "312");
    }

    #[test]
    fn what_memory_does_not_hold_waits_in_a_file() {
        let mut output = Output::new(true, Paper::default());
        let large = HELD_MAX / 2 + 1;
        for (sequence, byte) in [(4, b'd'), (3, b'c'), (2, b'b'), (1, b'a')] {
            output.put(sequence, block(&vec![byte; large])).expect("there is room in the temporary folder");
            assert!(output.held_bytes <= HELD_MAX);
        }
        assert!(output.spool.is_none() && output.held.is_empty() && output.held_bytes == 0);
        let expected: Vec<u8> = b"abcd".iter().flat_map(|byte| vec![*byte; large]).collect();
        assert!(output.printer.0 == expected);
    }
}
