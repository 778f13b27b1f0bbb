//! What workers write, and where it goes.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use offshoot::{Output, Pool, TaskError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::{eventually, is_gone, result};
use crate::tasks::{double, guard, leave_a_writer_and_die, print_bytes, print_lines, print_who};

/// The test finds them in the host's streams.
pub(crate) fn lines_come_to_the_hosts_own_streams() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).build()?;
    result(pool.submit(print_lines("to out\nmore to out\n".to_owned(), "to err\n".to_owned()))?)?;
    result(pool.submit(print_lines("the last has no end".to_owned(), String::new()))?)?;
    Ok(())
}

pub(crate) fn lines_go_to_files() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let logs = folder.path().join("logs");
    let pool = Pool::builder().workers(0..=1).output(Output::Directory(logs.clone())).build()?;
    for round in 0..100 {
        result(pool.submit(print_lines(format!("{round}\n\n"), format!("err {round}")))?)?;
    }
    let begun = Instant::now();
    pool.shutdown();
    println!("shut down in {:?}", begun.elapsed());
    let expected: String = (0..100).map(|round| format!("{round}\n\n")).collect();
    ensure!(fs::read_to_string(logs.join("worker-0.out"))? == expected);
    let expected: String = (0..100).map(|round| format!("err {round}")).collect();
    let said = fs::read_to_string(logs.join("worker-0.err"))?;
    // An MPI may have something to say, too.
    ensure!(said.contains(&expected), "{said}");
    Ok(())
}

pub(crate) fn discarded_lines_are_last_words_all_the_same() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).attempts_max(1).output(Output::Discard).build()?;
    result(pool.submit(print_lines("unwanted\n".to_owned(), "unwanted, but kept\n".to_owned()))?)?;
    match result(pool.submit(crate::tasks::die("SIGKILL".to_owned()))?) {
        Err(TaskError::Lost { reason, .. }) => ensure!(reason.contains("unwanted, but kept"), "{reason}"),
        other => bail!("not lost, but {other:?}"),
    }
    Ok(())
}

/// Each line says by itself which task wrote it, and when that is short, the next one runs long before the guard
/// has read it.
pub(crate) fn each_line_is_of_its_task() -> anyhow::Result<()> {
    let secretary = Secretary::default();
    let pool = tracing::subscriber::with_default(secretary.clone(), || {
        Pool::builder().workers(0..=2).output(Output::Tracing).build()
    })?;
    let tasks: u32 = 3000;
    for told in pool.map((0..tasks).map(|number| print_who(number % 3))) {
        told?;
    }
    pool.shutdown();
    let noted = secretary.0.lock().map_err(|_| anyhow::anyhow!("the secretary panicked"))?;
    let ours: Vec<_> = noted.iter().filter(|line| line.message.starts_with("task ")).collect();
    let expected: u32 = (0..tasks).map(|number| number % 3).sum();
    let wrong = ours.iter().filter(|line| {
        let says = (line.task.as_deref(), line.worker.as_deref(), line.stream.as_deref());
        let expected = format!(
            "task {} worker {} {}",
            says.0.unwrap_or("?"),
            says.1.unwrap_or("?"),
            says.2.unwrap_or("?")
        );
        line.message != expected || line.host.is_none()
    });
    let wrong: Vec<_> = wrong.collect();
    ensure!(wrong.is_empty(), "{} of {} are somebody else's: {:?}", wrong.len(), ours.len(), wrong.first());
    ensure!(ours.len() == expected as usize, "{} of {expected}", ours.len());
    Ok(())
}

pub(crate) fn a_hundred_megabytes_blow_no_memory() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let pool = Pool::builder().workers(0..=1).output(Output::Directory(folder.path().to_owned())).build()?;
    let guard = result(pool.submit(guard())?)?;
    let before = peak_kib("self")?;
    let begun = Instant::now();
    result(pool.submit(print_bytes(100 << 20))?)?;
    pool.shutdown();
    println!("100 MiB in {:?}", begun.elapsed());
    let length = fs::metadata(folder.path().join("worker-0.out"))?.len();
    ensure!(length == 100 << 20, "{length} bytes have come");
    let grown = peak_kib("self")? - before;
    println!("the host has grown by {grown} KiB");
    ensure!(grown < 16 << 10, "the host has grown by {grown} KiB");
    eventually("the guard to leave", || is_gone(guard))
}

fn peak_kib(process: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Standard output is a pipe from which nobody reads: the worker waits for some seconds, and then goes on.
pub(crate) fn a_reader_that_stands_still_blocks_no_worker_for_ever() -> anyhow::Result<()> {
    let (mut reader, writer) = std::io::pipe()?;
    let own = rustix::io::dup(std::io::stdout())?;
    rustix::stdio::dup2_stdout(&writer)?;
    drop(writer);
    let pool = Pool::builder().workers(0..=1).build()?;
    let begun = Instant::now();
    result(pool.submit(print_bytes(4 << 20))?)?;
    let took = begun.elapsed();
    // All the while the worker is served, and its end is known.
    let begun = Instant::now();
    ensure!(result(pool.submit(double(21))?)? == 42);
    ensure!(begun.elapsed() < Duration::from_secs(2));
    let read = thread::spawn(move || {
        // Its end does not come as long as a daemon of the MPI has the pipe, too.
        let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
        while !text.ends_with(b"\nagain\n") {
            let length = reader.read(&mut bytes)?;
            text.extend_from_slice(&bytes[..length]);
        }
        std::io::Result::Ok(text)
    });
    while !read.is_finished() {
        ensure!(begun.elapsed() < Duration::from_secs(20), "its lines are not taken again");
        result(pool.submit(print_lines("again\n".to_owned(), String::new()))?)?;
        thread::sleep(Duration::from_millis(10));
    }
    pool.shutdown();
    rustix::stdio::dup2_stdout(&own)?;
    let text = read.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let text = String::from_utf8_lossy(&text);
    println!("it took {took:?}, and {} bytes came", text.len());
    ensure!(took > Duration::from_secs(4) && took < Duration::from_secs(15), "it took {took:?}");
    ensure!(text.len() < 2 << 20, "{} bytes came", text.len());
    let notice = text.lines().find(|line| line.starts_with("[offshoot: ")).context("nothing says so")?;
    ensure!(notice.contains("of stdout of worker 0 were dropped"), "{notice}");
    ensure!(text.ends_with("again\n"), "{}", &text[text.len() - 100..]);
    Ok(())
}

/// A process that holds the worker's pipes, and writes to them, delays nothing.
pub(crate) fn a_writer_that_outlives_its_worker_delays_no_news() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Output::Directory(folder.path().to_owned());
    let pool = Pool::builder().workers(0..=1).attempts_max(1).output(output).build()?;
    ensure!(result(pool.submit(double(21))?)? == 42);
    let begun = Instant::now();
    match result(pool.submit(leave_a_writer_and_die())?) {
        Err(TaskError::Lost { reason, .. }) => ensure!(reason.contains("code 3"), "{reason}"),
        other => bail!("not lost, but {other:?}"),
    }
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(2), "it took {took:?}");
    Ok(())
}

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Secretary(Arc<Mutex<Vec<Line>>>);

#[derive(Debug, Default)]
struct Line {
    message: String,
    worker: Option<String>,
    host: Option<String>,
    task: Option<String>,
    stream: Option<String>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        let text = text.trim_matches('"').to_owned();
        match field.name() {
            "message" => self.message = text,
            "worker" => self.worker = Some(text),
            "host" => self.host = Some(text),
            "task" => self.task = Some(text),
            "stream" => self.stream = Some(text),
            _ => {}
        }
    }
}

impl Subscriber for Secretary {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "offshoot::worker"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        if let Ok(mut lines) = self.0.lock() {
            lines.push(line);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
