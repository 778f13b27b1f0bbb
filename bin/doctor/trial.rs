//! Two workers, really spawned: a message to each, the death of one, the life of the other. And the times.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use offshoot::{Call, Pool, Task, TaskError};
use serde::{Deserialize, Serialize};

/// Where a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whereabouts {
    /// Its process.
    pub(crate) pid: u32,
    /// Its machine.
    pub(crate) host: String,
}

offshoot::tasks! {
    in "offshoot doctor";

    /// Says where the worker is, after a while in which others can be asked the same.
    fn whereabouts(context: &mut Context, millis: u64) -> Whereabouts {
        thread::sleep(Duration::from_millis(millis));
        Ok(Whereabouts { pid: std::process::id(), host: context.host().to_owned() })
    }

    /// The least that a worker can be asked.
    fn echo(x: u32) -> u32 {
        Ok(x)
    }

    /// Ends the worker as no worker should end.
    fn die() {
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::KILL)?;
        thread::sleep(Duration::from_secs(10));
        bail!("SIGKILL did not end it")
    }
}

/// What came of it, as far as it went.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Trial {
    /// Milliseconds until MPI was initialized.
    pub(crate) init_ms: Option<f64>,
    /// Milliseconds until the first of two workers had answered.
    pub(crate) first_answer_ms: Option<f64>,
    /// Milliseconds until both had.
    pub(crate) both_answers_ms: Option<f64>,
    /// The two workers.
    pub(crate) workers: Vec<Whereabouts>,
    /// Microseconds of a round trip, the median of some.
    pub(crate) round_trip_us: Option<f64>,
    /// Milliseconds from the order to die to the news that a worker is lost.
    pub(crate) death_noticed_ms: Option<f64>,
    /// The worker that lived on.
    pub(crate) survivor: Option<Whereabouts>,
    /// Milliseconds until the pool had ended.
    pub(crate) end_ms: Option<f64>,
    /// What went wrong, if something did.
    pub(crate) error: Option<String>,
}

/// How long one question about two workers may take, once they are there.
const MOMENT: u64 = 200;
/// How many round trips are measured.
const ROUND_TRIPS: u32 = 200;

/// Tries it.
pub(crate) fn run(spawn_timeout: Duration, host_file: Option<&Path>) -> Trial {
    let mut trial = Trial::default();
    trial.error = trial.go(spawn_timeout, host_file).err().map(|error| format!("{error:#}"));
    trial
}

impl Trial {
    fn go(&mut self, spawn_timeout: Duration, host_file: Option<&Path>) -> anyhow::Result<()> {
        let begun = Instant::now();
        // Two, even where there is room for one: it is a trial.
        let builder = Pool::builder().workers(2..=2).oversubscribe(true).attempts_max(1);
        let builder = host_file.into_iter().fold(builder, |builder, file| builder.hostfile(file));
        let pool = builder.spawn_timeout(spawn_timeout).build().context("there is no pool")?;
        self.init_ms = Some(millis(begun));
        let patience = 2 * spawn_timeout;

        let begun = Instant::now();
        self.workers.push(answer(&pool, whereabouts(0), patience).context("no worker answers")?);
        self.first_answer_ms = Some(millis(begun));
        while pool.stats().workers_ready() < 2 {
            ensure!(begun.elapsed() < patience, "the second worker did not come: {:?}", pool.stats());
            thread::sleep(Duration::from_millis(1));
        }
        self.workers = both(&pool, patience)?;
        self.both_answers_ms = Some(millis(begun));

        self.round_trip_us = Some(round_trip(&pool, patience)?);

        let begun = Instant::now();
        match pool.submit(die())?.wait_timeout(patience) {
            Err(TaskError::Lost { .. }) => self.death_noticed_ms = Some(millis(begun)),
            other => bail!("a worker was killed, and that was not noticed: {other:?}"),
        }
        let survivor = answer(&pool, whereabouts(0), patience).context("the other worker did not live on")?;
        ensure!(self.workers.contains(&survivor), "a worker was killed, and the other one died as well");
        self.survivor = Some(survivor);

        let begun = Instant::now();
        pool.shutdown();
        self.end_ms = Some(millis(begun));
        Ok(())
    }
}

/// What a task returns. It is asked where things hang, so nothing is waited for without a limit.
fn answer<T: Task>(pool: &Pool, call: Call<T>, patience: Duration) -> anyhow::Result<T::Output> {
    let mut handle = pool.submit(call).map_err(|error| error.reason)?;
    Ok(handle.wait_timeout(patience)?)
}

/// A message to each of the two workers, which are asked at the same time.
fn both(pool: &Pool, patience: Duration) -> anyhow::Result<Vec<Whereabouts>> {
    // On a busy machine one of them may answer twice.
    for attempt in 1..=5 {
        let asked = [(); 2].map(|()| pool.submit(whereabouts(MOMENT * attempt)));
        let mut answers = Vec::new();
        for handle in asked {
            answers.push(handle?.wait_timeout(patience).context("a worker does not answer")?);
        }
        answers.dedup();
        if answers.len() == 2 {
            return Ok(answers);
        }
    }
    bail!("only one of two workers answers")
}

fn round_trip(pool: &Pool, patience: Duration) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for x in 0..ROUND_TRIPS {
        let begun = Instant::now();
        ensure!(answer(pool, echo(x), patience)? == x, "a worker answers something else than it was asked");
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
