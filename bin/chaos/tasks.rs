//! What workers do under fire. Each execution enters itself into the journal before anything else.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use mpi::traits::*;
use serde_bytes::ByteBuf;

use super::ledger::{Entry, now};

/// The worker's journal.
#[derive(Default)]
struct Journal(Option<File>);

offshoot::tasks! {
    /// The initializer: from here on executions are entered into this file.
    pub(crate) fn open_journal(context: &mut Context, path: PathBuf) {
        let file = File::options().append(true).open(path).context("the journal cannot be opened")?;
        context.state::<Journal>().0 = Some(file);
        Ok(())
    }

    /// Looks whether the bytes have come as they were sent, and sends others back.
    pub(crate) fn translate(context: &mut Context, id: u64, checksum: u64, bytes: ByteBuf) -> ByteBuf {
        enter(context, id)?;
        ensure!(checksum == self::checksum(&bytes), "the payload of {id} is damaged");
        let mut bytes = bytes.into_vec();
        flip(&mut bytes);
        Ok(ByteBuf::from(bytes))
    }

    /// Takes a while.
    pub(crate) fn nap(context: &mut Context, id: u64, millis: u64) -> u64 {
        enter(context, id)?;
        thread::sleep(Duration::from_millis(millis));
        Ok(id)
    }

    /// Fails, and says so.
    pub(crate) fn fail(context: &mut Context, id: u64) -> u64 {
        enter(context, id)?;
        bail!("as intended: {id}")
    }

    /// Never ends, and does not look whether it should.
    pub(crate) fn stall(context: &mut Context, id: u64) -> u64 {
        enter(context, id)?;
        loop {
            thread::park();
        }
    }

    /// Ends its worker the first time, in one of many ways.
    pub(crate) fn die(context: &mut Context, id: u64, way: Way) -> u64 {
        enter(context, id)?;
        if context.attempt() == 1 {
            way.go();
        }
        Ok(id)
    }
}

/// A way in which a process ends itself.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Way {
    Exit(i32),
    Abort,
    MpiAbort,
    Signal(i32),
}

impl Way {
    pub(crate) const ALL: [Self; 7] = [
        Self::Exit(0),
        Self::Exit(3),
        Self::Abort,
        Self::MpiAbort,
        Self::Signal(libc::SIGKILL),
        Self::Signal(libc::SIGSEGV),
        Self::Signal(libc::SIGBUS),
    ];

    fn go(self) -> ! {
        match self {
            Self::Exit(code) => process::exit(code),
            Self::Abort => process::abort(),
            Self::MpiAbort => mpi::topology::SimpleCommunicator::world().abort(3),
            Self::Signal(signal) => loop {
                // Handlers of Rust and of some MPIs let a fault that did not really happen pass once.
                super::victims::kill(process::id(), signal);
                thread::sleep(Duration::from_millis(1));
            },
        }
    }
}

fn enter(context: &mut offshoot::Context, task: u64) -> anyhow::Result<()> {
    let entry = Entry { task, process: process::id(), attempt: context.attempt(), at: now() };
    let journal = context.state::<Journal>();
    let file = journal.0.as_mut().context("this worker has no journal")?;
    // One write of a few bytes at the end of a file is never torn.
    Ok(file.write_all(&entry.to_bytes())?)
}

/// What the host expects of `translate`.
pub(crate) fn flip(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
}

pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
