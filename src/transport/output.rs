//! What workers write, on its last way: from the control channel to where the user wants to have it.
//!
//! A thread for each pool writes, because whoever takes the lines may be slow or stand still, and nothing else is
//! to wait for that. What it has not written yet is bounded by what each guard may have under way
//! (`wire/control.rs`): room comes back to the guard when a piece has been written, or dropped.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing::Dispatch;

use super::Doorbell;
use crate::ids::{TaskId, WorkerId};
use crate::process;
use crate::wire::control::{self as wire, Dropped, StreamName};

/// Where what workers write to their standard output and standard error goes.
///
/// It is read by each worker's guard and comes to the host line by line, so that lines of different workers
/// never mix. A line that is longer than 64 KiB comes in pieces. If nobody takes the lines (a reader of the
/// host's standard output that stands still, say), a worker waits, for five seconds; after that its lines are
/// dropped until they are taken again, and a line says how many. When a pool is shut down, or dropped, it waits
/// a moment for what its workers wrote last.
///
/// The task that goes with a line is the
/// one that ran when the line *left its process*: a program that keeps lines in a buffer of its own, as C's
/// `printf` does in a worker, should flush it (`fflush`) at the end of a task. Rust's `println!` hands on each
/// line at once. What is written between two tasks has none.
///
/// A process that a task leaves behind may go on writing to the worker's streams for as long as the worker is
/// there; after that it finds them closed.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// use offshoot::Output;
///
/// # let folder = tempfile::tempdir()?;
/// # let logs = folder.path().join("logs");
/// let pool = offshoot::Pool::builder()
///     .output(Output::Directory(logs)) // logs/worker-0.out, logs/worker-0.err, …
///     .loopback() // in-memory workers write to the host's own streams
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// To the host's own standard output and standard error, as it is. The default.
    #[default]
    Inherit,
    /// To the host's [`tracing`], each line an event at level `INFO` of the target `offshoot::worker`, with the
    /// fields `worker`, `host`, `task` and `stream` (`stdout` or `stderr`). It goes to the subscriber that is the
    /// default of the thread that builds the pool.
    Tracing,
    /// To files in this folder, which is made if it is not there: `worker-0.out` and `worker-0.err` for worker 0,
    /// and so on. They are appended to, and made with the worker's first line.
    Directory(PathBuf),
    /// Nowhere. The last lines of standard error still are in the errors of lost workers.
    Discard,
}

/// The way to one pool's output.
pub(crate) struct Sink {
    pieces: Sender<Piece>,
    state: Arc<State>,
    /// Whom to wake when there is a piece, where that is no thread that waits for them.
    doorbell: Option<Arc<Doorbell>>,
}

/// Says to whoever has sent a piece of output that it is taken, when it is dropped.
pub(crate) type Receipt = Box<dyn Send>;

#[derive(Default)]
struct State {
    counts: Mutex<Counts>,
    changed: Condvar,
    thread: OnceLock<ThreadId>,
}

#[derive(Default)]
struct Counts {
    /// Workers that have not said goodbye.
    speaking: usize,
    /// Workers whose processes are there: their libraries may have last words.
    there: usize,
}

/// How long such words are waited for.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(200);

/// What workers write, and how far they have come.
pub(crate) enum Piece {
    Lines {
        worker: WorkerId,
        host: Arc<str>,
        output: wire::Output,
        receipt: Option<Receipt>,
    },
    /// The worker has said goodbye.
    Leaving {
        worker: WorkerId,
    },
    /// Nothing more comes of this worker.
    End {
        worker: WorkerId,
        was_speaking: bool,
    },
}

/// All sinks of this process, for its end.
static SINKS: Mutex<Vec<Weak<State>>> = Mutex::new(Vec::new());

impl Sink {
    /// Starts the thread that writes; none where nothing is to be written.
    ///
    /// # Errors
    /// If the folder cannot be made, or the thread not be started.
    pub(crate) fn start(output: Output) -> io::Result<Option<Arc<Self>>> {
        let writer = match output {
            Output::Discard => return Ok(None),
            Output::Inherit => Writer::Streams(Streams::default()),
            Output::Tracing => Writer::Tracing(tracing::dispatcher::get_default(Dispatch::clone)),
            Output::Directory(folder) => {
                fs::create_dir_all(&folder)?;
                Writer::Files(Files { folder, open: HashMap::new(), has_failed: false })
            }
        };
        let (pieces, inbox) = unbounded();
        let state = Arc::new(State::default());
        let written = Arc::clone(&state);
        let body = move || {
            process::block_pipe_signal();
            let _ = written.thread.set(thread::current().id());
            write_all(writer, &inbox, &written);
        };
        thread::Builder::new().name("offshoot output".to_owned()).spawn(body)?;
        let mut sinks = SINKS.lock().unwrap_or_else(PoisonError::into_inner);
        sinks.retain(|sink| sink.strong_count() > 0);
        sinks.push(Arc::downgrade(&state));
        Ok(Some(Arc::new(Self { pieces, state, doorbell: None })))
    }

    /// A way that ends in a queue, whose reader is woken, for whoever hands it on to another process.
    pub(crate) fn relay(doorbell: Arc<Doorbell>) -> (Arc<Self>, Receiver<Piece>) {
        let (pieces, inbox) = unbounded();
        (Arc::new(Self { pieces, state: Arc::default(), doorbell: Some(doorbell) }), inbox)
    }

    fn send(&self, piece: Piece) {
        // The thread goes on for as long as anybody can send it something.
        let _ = self.pieces.send(piece);
        self.doorbell.iter().for_each(|doorbell| doorbell.ring());
    }

    /// The way for what one worker writes. It is open until it is dropped.
    pub(crate) fn voice(self: &Arc<Self>, worker: WorkerId) -> Voice {
        let mut counts = self.state.counts();
        counts.speaking += 1;
        counts.there += 1;
        Voice { worker, sink: Arc::clone(self), is_speaking: AtomicBool::new(true) }
    }

    /// Waits until all that the workers wrote has been written, for so long at most.
    pub(crate) fn wait_until_written(&self, patience: Duration) {
        self.state.wait(Instant::now() + patience);
    }
}

/// Waits for all sinks, at the end of the process.
pub(crate) fn wait_until_written(patience: Duration) {
    let until = Instant::now() + patience;
    let sinks: Vec<_> =
        SINKS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    sinks.iter().for_each(|state| state.wait(until));
}

impl State {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, until: Instant) {
        // A subscriber of the user's may do anything, even end a pool.
        if self.thread.get() == Some(&thread::current().id()) {
            return;
        }
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let waited =
            self.changed.wait_timeout_while(self.counts(), left(until), |counts| counts.speaking > 0);
        let (counts, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // Some MPIs take seconds to finalize.
        let until = until.min(Instant::now() + LAST_WORDS_PATIENCE);
        drop(self.changed.wait_timeout_while(counts, left(until), |counts| counts.there > 0));
    }
}

/// The way for what one worker writes.
pub(crate) struct Voice {
    worker: WorkerId,
    sink: Arc<Sink>,
    is_speaking: AtomicBool,
}

impl Voice {
    /// The worker has said goodbye, and all that it wrote until then has been handed on.
    pub(crate) fn note_leaving(&self) {
        if self.is_speaking.swap(false, Ordering::Relaxed) {
            self.sink.send(Piece::Leaving { worker: self.worker });
        }
    }

    /// Hands on what the worker wrote. It never waits.
    pub(crate) fn say(&self, host: Arc<str>, output: wire::Output, receipt: Option<Receipt>) {
        self.sink.send(Piece::Lines { worker: self.worker, host, output, receipt });
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        let was_speaking = *self.is_speaking.get_mut();
        self.sink.send(Piece::End { worker: self.worker, was_speaking });
    }
}

fn write_all(mut writer: Writer, pieces: &Receiver<Piece>, state: &State) {
    for piece in pieces {
        match piece {
            Piece::Lines { worker, host, output, receipt } => {
                writer.write(worker, &host, &output);
                drop(receipt);
            }
            Piece::Leaving { .. } => {
                state.counts().speaking -= 1;
                state.changed.notify_all();
            }
            Piece::End { worker, was_speaking } => {
                writer.end(worker);
                let mut counts = state.counts();
                counts.speaking -= usize::from(was_speaking);
                counts.there -= 1;
                state.changed.notify_all();
            }
        }
    }
}

enum Writer {
    Streams(Streams),
    Tracing(Dispatch),
    Files(Files),
}

impl Writer {
    fn write(&mut self, worker: WorkerId, host: &str, output: &wire::Output) {
        let wire::Output { stream, task, dropped, bytes } = output;
        if *dropped != Dropped::default() {
            let notice = notice(worker, *stream, *dropped);
            match self {
                Self::Streams(streams) => streams.write(worker, *stream, notice.as_bytes()),
                Self::Tracing(dispatch) => trace(dispatch, worker, host, *stream, None, notice.as_bytes()),
                Self::Files(files) => files.write(worker, *stream, notice.as_bytes()),
            }
        }
        match self {
            Self::Streams(streams) => streams.write(worker, *stream, bytes),
            Self::Tracing(dispatch) => trace(dispatch, worker, host, *stream, *task, bytes),
            Self::Files(files) => files.write(worker, *stream, bytes),
        }
    }

    fn end(&mut self, worker: WorkerId) {
        match self {
            Self::Streams(_) | Self::Tracing(_) => {}
            Self::Files(files) => files.open.retain(|(of, _), _| *of != worker),
        }
    }
}

fn notice(worker: WorkerId, stream: StreamName, dropped: Dropped) -> String {
    let Dropped { lines, bytes } = dropped;
    let stream = name(stream);
    format!(
        "[offshoot: {lines} lines ({bytes} bytes) of {stream} of {worker} were dropped: nobody took them]\n"
    )
}

fn name(stream: StreamName) -> &'static str {
    match stream {
        StreamName::Stdout => "stdout",
        StreamName::Stderr => "stderr",
    }
}

/// The host's own streams.
#[derive(Default)]
struct Streams {
    /// For each stream, whose line has no end yet.
    begun: [Option<WorkerId>; 2],
}

impl Streams {
    fn write(&mut self, worker: WorkerId, stream: StreamName, bytes: &[u8]) {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let (fd, begun) = match stream {
            StreamName::Stdout => (stdout.as_fd(), &mut self.begun[0]),
            StreamName::Stderr => (stderr.as_fd(), &mut self.begun[1]),
        };
        let Some(last) = bytes.last() else { return };
        if begun.is_some_and(|other| other != worker) {
            write_to(fd, b"\n");
        }
        *begun = (*last != b'\n').then_some(worker);
        write_to(fd, bytes);
    }
}

/// Writes past the buffers of the standard library: a host that holds their lock must not hold up its workers.
fn write_to(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None)),
            // Where nobody reads, it is lost.
            Err(_) => return,
        }
    }
}

fn trace(
    dispatch: &Dispatch,
    worker: WorkerId,
    host: &str,
    stream: StreamName,
    task: Option<TaskId>,
    bytes: &[u8],
) {
    let (worker, task, stream) = (worker.number(), task.map(TaskId::number), name(stream));
    let emit = || {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
            tracing::info!(target: "offshoot::worker", worker, host, task, stream, "{line}");
        }
    };
    // A subscriber is the user's; that it panics is no reason to lose all further lines.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| tracing::dispatcher::with_default(dispatch, emit)));
}

struct Files {
    folder: PathBuf,
    open: HashMap<(WorkerId, StreamName), Option<File>>,
    has_failed: bool,
}

impl Files {
    fn write(&mut self, worker: WorkerId, stream: StreamName, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let path = || {
            let ending = match stream {
                StreamName::Stdout => "out",
                StreamName::Stderr => "err",
            };
            self.folder.join(format!("worker-{}.{ending}", worker.number()))
        };
        let file = self.open.entry((worker, stream)).or_insert_with(|| {
            File::options()
                .append(true)
                .create(true)
                .open(path())
                .inspect_err(|error| {
                    tracing::error!(
                        "what {worker} writes is lost, because `{}` cannot be opened: {error}",
                        path().display()
                    );
                })
                .ok()
        });
        let Some(Err(error)) = file.as_mut().map(|file| file.write_all(bytes)) else { return };
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::error!(
                "what workers write is lost, because `{}` cannot be written: {error}",
                path().display()
            );
        }
    }
}

#[cfg(test)]
mod tests;
