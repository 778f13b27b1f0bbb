//! Programs other than the host's own executable: good ones, wrong ones, and what reaches them.

#[path = "report.rs"]
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure};
use offshoot::{Pool, Program, TaskError};
use report::Start;

use crate::support::result;
use crate::tasks::{double, pid};

/// The worker executable, which lies beside this one.
fn worker() -> anyhow::Result<Program> {
    Ok(Program::new(std::env::current_exe()?.with_file_name("scenario_worker")))
}

pub(crate) fn a_task_that_another_program_lacks() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).program(worker()?).build()?;
    match result(pool.submit(double(1))?) {
        Err(TaskError::Unknown { origin, hint }) => {
            ensure!(origin.name.ends_with("::double") && origin.place.is_some(), "{origin}");
            ensure!(hint.contains("scenario_worker") && hint.contains("report::start"), "{hint}");
        }
        other => bail!("not unknown, but {other:?}"),
    }
    result(pool.submit(report::start(vec![]))?)?;
    Ok(())
}

pub(crate) fn a_worker_without_tasks() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).program(worker()?.arg("--without-tasks")).build()?;
    match result(pool.submit(report::start(vec![]))?) {
        Err(TaskError::SpawnFailed { reason, .. }) => {
            ensure!(reason.contains("scenario_worker") && reason.contains("has no tasks"), "{reason}");
        }
        other => bail!("no failed spawn, but {other:?}"),
    }
    Ok(())
}

pub(crate) fn arguments_environment_and_directory_arrive() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let elsewhere = fs::canonicalize(folder.path())?;
    let arguments = ["--steps=100", "", "two words", "a\nnewline", "\"quotes\" and $signs", "Grüße, 世界"];
    let variables = [("PLAIN", "yes"), ("EMPTY", ""), ("LINES", "one\ntwo\n"), ("GREETING", "Grüße, 世界=")];
    check_start(&arguments.map(str::to_owned), &variables.map(|(n, v)| (n, v.to_owned())), Some(&elsewhere))?;
    check_start(&[], &[], None)
}

pub(crate) fn long_arguments_arrive() -> anyhow::Result<()> {
    let arguments: Vec<String> = ('a'..='t').map(|letter| letter.to_string().repeat(2048)).collect();
    check_start(&arguments, &[("LONG", "ü\n".repeat(10_000))], None)
}

pub(crate) fn arguments_beyond_the_system_limit_are_a_failed_spawn() -> anyhow::Result<()> {
    // Linux passes 128 KiB in one argument.
    fails_to_start(worker()?.arg("x".repeat(200_000)), &["Argument list too long"])
}

pub(crate) fn shell(script: &str) -> Program {
    Program::new("/bin/sh").arg("-c").arg(script)
}

/// A program whose start fails leaves its pool, and its host, as they were.
fn fails_to_start(program: Program, words: &[&str]) -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).spawn_timeout(Duration::from_secs(2)).build()?;
    let bystander = result(pool.submit(pid())?)?;
    let wrong = pool.add_program(program)?;
    match result(pool.submit_to(wrong, double(1))?) {
        Err(TaskError::SpawnFailed { reason, .. }) => {
            for word in words {
                ensure!(reason.contains(word), "no `{word}`: {reason}");
            }
        }
        other => bail!("no failed spawn, but {other:?}"),
    }
    ensure!(result(pool.submit(pid())?)? == bystander, "the worker that was there has gone");
    Ok(())
}

/// Starts a worker so, and has it tell how it was started.
fn check_start(
    arguments: &[String],
    variables: &[(&str, String)],
    directory: Option<&Path>,
) -> anyhow::Result<()> {
    let mut program = worker()?.args(arguments);
    for (name, value) in variables {
        program = program.env(name, value);
    }
    if let Some(directory) = directory {
        program = program.current_dir(directory);
    }
    let pool = Pool::builder().workers(0..=1).program(program).build()?;
    let ours = ["OFFSHOOT_SCENARIO", "OFFSHOOT_ROLE"];
    let names = variables.iter().map(|(name, _)| *name).chain(ours).map(str::to_owned).collect();

    let started = result(pool.submit(report::start(names))?)?;
    let set = variables.iter().map(|(_, value)| Some(value.clone()));
    // All else is the host's, and nothing of ours is left.
    let inherited = [std::env::var(ours[0]).ok(), None];
    let here = std::env::current_dir()?;
    let expected = Start {
        arguments: arguments.to_vec(),
        variables: set.chain(inherited).collect(),
        directory: directory.map_or(here, PathBuf::from),
    };
    ensure!(started == expected, "started {started:?}\nnot     {expected:?}");
    Ok(())
}
