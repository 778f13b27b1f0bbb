//! One run on the host: a loop over three sources, which are lines that are read, lines that have ended,
//! and signals. All decisions are taken here, on one thread; nothing here makes an MPI call.

use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, never, select, unbounded};
use offshoot::{Handle, Pool, TaskError};
use serde_bytes::ByteBuf;

use super::input::{Batch, Input, Line, Lines};
use super::joblog::Joblog;
use super::order::{End, Report, Setting};
use super::output::{Block, Output, Streams};
use super::progress::Progress;
use super::tally::Tally;
use super::words::{append, words};
use super::{Arguments, BROKEN_PIPE, FAILED, NOTHING, PASSED, interrupt, say, shell};

/// Lines under way at once: enough for many workers with short lines, few enough to hold in memory.
const AHEAD_MIN: usize = 256;
const AHEAD_PER_WORKER: usize = 8;
/// Bytes of lines under way at once; a few lines are under way however long they are.
const AHEAD_BYTES: usize = 64 << 20;
const AHEAD_ANYWAY: usize = 2;
/// Longer than a worker takes to end a line with all its processes.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How long a run that is stopped goes on reading standard input, to say what was not run.
const COUNT_PATIENCE: Duration = Duration::from_millis(500);

/// Runs the lines of `input`, and returns the exit code.
pub(crate) fn run(arguments: &Arguments, input: Input, joblog: Option<Joblog>) -> Result<u8, String> {
    let no_thread = |error: io::Error| format!("a thread cannot be started: {error}");
    let signals = interrupt::signals().map_err(no_thread)?;
    let input_is_file = input.is_file;
    let again = input.again();
    let lines = Lines::new(input, arguments.template()).on_a_thread().map_err(no_thread)?;
    // MPI is started for something only.
    let first = select! {
        recv(lines) -> first => first,
        recv(signals) -> signal => return Ok(exit_code(signal.unwrap_or_default())),
    };
    let Ok(first) = first else {
        say(NOTHING);
        return Ok(PASSED);
    };
    let pool = pool(arguments)?;
    let count = again.map(|again| Lines::new(again, arguments.template()));
    let streams = Streams::new(Progress::start(!arguments.quiet, count))
        .map_err(|error| format!("standard output cannot be written: {error}"))?;
    let (tell, ended) = unbounded();
    let mut session = Session {
        arguments,
        input: SourceOfLines {
            lines,
            read: first.into(),
            is_filling: true,
            is_file: input_is_file,
            over: false,
            give_up: never(),
        },
        signals,
        tell,
        ended,
        under_way: BTreeMap::new(),
        under_way_bytes: 0,
        output: Output::new(!arguments.unordered, streams),
        joblog,
        tally: Tally::default(),
        stopped: None,
        complained: false,
        pool,
    };
    let begun = Instant::now();
    session.work();
    session.conclude(begun.elapsed());
    session.pool.shutdown();
    Ok(session.exit_code())
}

fn pool(arguments: &Arguments) -> Result<Pool, String> {
    let bytes = |text: std::ffi::OsString| ByteBuf::from(text.into_vec());
    let directory = env::current_dir().map_err(|error| format!("the current directory is gone: {error}"))?;
    let setting = Setting {
        environment: offshoot::user_environment()
            .into_iter()
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect(),
        directory: bytes(directory.into_os_string()),
        timeout: arguments.timeout,
        tries_max: arguments.retries.saturating_add(1),
    };
    // A line that is to stop has its own grace, in its own worker; that is the shorter one.
    let mut builder = Pool::builder().oversubscribe(arguments.oversubscribe).stop_grace(STOP_GRACE);
    if let Some((min, max)) = arguments.workers() {
        builder = builder.workers(min..=max);
    }
    if let Some(path) = &arguments.hostfile {
        builder = builder.hostfile(path);
    }
    builder
        .attempts_max(arguments.retries.saturating_add(1))
        .initializer(shell::prepare(setting))
        .build()
        .map_err(|error| error.to_string())
}

struct Session<'a> {
    arguments: &'a Arguments,
    input: SourceOfLines,
    signals: Receiver<i32>,
    /// Numbers of lines that have ended: into it from the pool's thread, out of it here.
    tell: Sender<u64>,
    ended: Receiver<u64>,
    under_way: BTreeMap<u64, UnderWay>,
    under_way_bytes: usize,
    output: Output<Streams>,
    joblog: Option<Joblog>,
    tally: Tally,
    stopped: Option<Stop>,
    /// Something went wrong that is no line's fault.
    complained: bool,
    pool: Pool,
}

struct SourceOfLines {
    lines: Receiver<Batch>,
    /// What has come from there, and is still to be started.
    read: VecDeque<Result<Line, String>>,
    /// Whether as many lines are being started as there may be under way. Then nothing is done about more until a part
    /// of them has ended: to start one whenever one ends would have three threads wake each other for each.
    is_filling: bool,
    is_file: bool,
    over: bool,
    /// Fires when nobody waits for more lines any longer.
    give_up: Receiver<Instant>,
}

struct UnderWay {
    line: Line,
    handle: Handle<Report>,
}

/// Why no more lines are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Signal(i32),
    /// `--halt-on-error`.
    Failure,
    /// Nobody reads standard output.
    Unread,
    /// No more can be done: no worker starts, or the output cannot be written.
    Stuck,
}

impl Session<'_> {
    /// Until all lines are settled.
    fn work(&mut self) {
        loop {
            self.fill();
            if self.input.over && self.input.read.is_empty() && self.under_way.is_empty() {
                return;
            }
            let nothing = never();
            let is_wanted = !self.input.over && self.input.read.is_empty() && self.has_room();
            let lines = if is_wanted { &self.input.lines } else { &nothing };
            select! {
                recv(lines) -> batch => match batch {
                    Ok(batch) => self.input.read.extend(batch),
                    Err(_) => self.input.over = true,
                },
                recv(self.ended) -> sequence => self.settle(sequence.expect("this session can tell")),
                recv(self.signals) -> signal => self.stop(Stop::Signal(signal.unwrap_or_default())),
                recv(self.input.give_up) -> _ => {
                    self.input.over = true;
                    self.tally.more_unread = true;
                }
            }
            self.output.printer().progress.show(self.tally.settled(), self.tally.failed.count);
        }
    }

    /// Starts what has been read, as far as there is room for it.
    fn fill(&mut self) {
        self.input.is_filling |= self.under_way.len() <= self.limit() * 3 / 4;
        while self.has_room()
            && let Some(line) = self.input.read.pop_front()
        {
            self.take(line);
        }
        self.input.is_filling &= self.under_way.len() < self.limit();
    }

    fn has_room(&self) -> bool {
        let count = self.under_way.len();
        let room = self.input.is_filling && count < self.limit() && self.under_way_bytes < AHEAD_BYTES;
        // A run that is stopped reads on to count.
        count < AHEAD_ANYWAY || room || self.stopped.is_some()
    }

    /// How many lines may be under way.
    fn limit(&self) -> usize {
        AHEAD_MIN.max(AHEAD_PER_WORKER * self.pool.workers_max() as usize)
    }

    /// A line has been read, or cannot be.
    fn take(&mut self, line: Result<Line, String>) {
        match line {
            Ok(line) if self.stopped.is_some() => self.leave_out(&line),
            Ok(line) => self.start(line),
            Err(error) => self.complain(&error),
        }
    }

    fn start(&mut self, line: Line) {
        // A line is not to run twice unless the user has said that it may.
        let call = shell::run_line(ByteBuf::from(line.command.clone()));
        match self.pool.submit(call.idempotent(self.arguments.retries > 0)) {
            Ok(handle) => {
                self.under_way_bytes += line.command.len();
                self.watch(line, handle);
            }
            Err(error) => {
                self.complain(&format!("line {} cannot be run: {}", line.number, error.reason));
                self.tally.failed.add(line.number);
                self.print(line.sequence, Block::default());
                self.after_failure(&line);
            }
        }
    }

    /// Has the pool tell when the line has ended.
    fn watch(&mut self, line: Line, mut handle: Handle<Report>) {
        let sequence = line.sequence;
        let waker = Waker::from(Arc::new(Bell { sequence, tell: self.tell.clone() }));
        match Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => self.note(&line, result),
            Poll::Pending => {
                self.under_way.insert(sequence, UnderWay { line, handle });
            }
        }
    }

    /// A line has ended.
    fn settle(&mut self, sequence: u64) {
        // A bell may ring twice.
        let Some(UnderWay { line, mut handle }) = self.under_way.remove(&sequence) else { return };
        match handle.try_result() {
            Some(result) => self.note(&line, result),
            None => self.watch(line, handle),
        }
    }

    fn note(&mut self, line: &Line, result: Result<Report, TaskError>) {
        self.under_way_bytes -= line.command.len();
        match result {
            Ok(report) => self.note_report(line, report),
            Err(TaskError::Cancelled { .. } | TaskError::ShutDown { .. }) if self.stopped.is_some() => {
                self.leave_out(line);
            }
            Err(error) => self.note_error(line, &error),
        }
    }

    fn note_report(&mut self, line: &Line, report: Report) {
        self.tally.workers.insert(report.worker);
        if let Some(Err(error)) = self.joblog.as_mut().map(|joblog| joblog.note_report(line, &report)) {
            self.give_up_joblog(&error);
        }
        let (passed, cancelled) = (report.passed(), matches!(report.end(), Some(End::Cancelled(_))));
        let words = words(line, &report, self.arguments);
        let mut block =
            Block { stdout: report.stdout.bytes.into_vec(), stderr: report.stderr.bytes.into_vec() };
        append(&mut block.stderr, &words);
        match (passed, cancelled) {
            (true, _) => self.tally.passed += 1,
            (false, true) => self.tally.ended.add(line.number),
            (false, false) => self.tally.failed.add(line.number),
        }
        self.print(line.sequence, block);
        if !passed && !cancelled {
            self.after_failure(line);
        }
    }

    /// A line has no result, through no fault of its own as a rule.
    fn note_error(&mut self, line: &Line, error: &TaskError) {
        if let Some(Err(error)) = self.joblog.as_mut().map(|joblog| joblog.note_error(line, error)) {
            self.give_up_joblog(&error);
        }
        self.tally.workers.extend(error.worker().map(|worker| worker.number()));
        self.tally.failed.add(line.number);
        let hopeless = matches!(error, TaskError::SpawnFailed { .. } | TaskError::PoolFailed { .. });
        let mut block = Block::default();
        if !(hopeless && self.stopped.is_some()) {
            append(&mut block.stderr, &[format!("line {} has no result: {error}", line.number)]);
        }
        self.print(line.sequence, block);
        if hopeless {
            self.stop(Stop::Stuck);
        }
        self.after_failure(line);
    }

    fn after_failure(&mut self, line: &Line) {
        if self.arguments.halt_on_error && self.stopped.is_none() {
            self.tell_user(&format!(
                "line {} failed: no more are started, and those that run are ended",
                line.number
            ));
            self.stop(Stop::Failure);
        }
    }

    /// A line that is not run.
    fn leave_out(&mut self, line: &Line) {
        self.tally.not_run.add(line.number);
        self.print(line.sequence, Block::default());
    }

    fn print(&mut self, sequence: u64, block: Block) {
        let Err(error) = self.output.put(sequence, block) else { return };
        if self.stopped == Some(Stop::Unread) || self.stopped == Some(Stop::Stuck) {
            return;
        }
        if error.kind() == io::ErrorKind::BrokenPipe {
            self.stop(Stop::Unread);
        } else {
            self.complain(&format!("standard output cannot be written: {error}"));
            self.stop(Stop::Stuck);
        }
    }

    /// Starts no more lines, and ends those that run. The first reason counts.
    fn stop(&mut self, reason: Stop) {
        if self.stopped.is_some() {
            return;
        }
        self.stopped = Some(reason);
        if let Stop::Signal(_) = reason {
            self.tell_user(
                "stopping: lines that run are ended, no more are started; once more to quit at once",
            );
        }
        self.under_way.values().for_each(|UnderWay { handle, .. }| handle.cancel());
        if !self.input.is_file {
            self.input.give_up = after(COUNT_PATIENCE);
        }
    }

    fn conclude(&mut self, took: Duration) {
        self.output.printer().progress.end();
        if self.stopped != Some(Stop::Unread) {
            self.tell_user(&self.tally.summary(took));
        }
    }

    fn exit_code(&self) -> u8 {
        match self.stopped {
            Some(Stop::Signal(signal)) => exit_code(signal),
            Some(Stop::Unread) => BROKEN_PIPE,
            Some(Stop::Failure | Stop::Stuck) => FAILED,
            None if self.tally.all_passed() && !self.complained => PASSED,
            None => FAILED,
        }
    }

    fn give_up_joblog(&mut self, error: &str) {
        self.joblog = None;
        self.complain(error);
    }

    fn complain(&mut self, text: &str) {
        self.complained = true;
        self.output.printer().progress.aside(|| say(text));
    }

    fn tell_user(&self, text: &str) {
        if !self.arguments.quiet {
            self.output.printer().progress.aside(|| say(text));
        }
    }
}

/// Rings in the session when a line has ended.
struct Bell {
    sequence: u64,
    tell: Sender<u64>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // The session may be over.
        let _ = self.tell.send(self.sequence);
    }
}

fn exit_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(FAILED)
}
