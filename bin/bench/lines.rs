//! `offshoot run` beside `xargs` and GNU parallel: so many lines of `/bin/true`, from the start of the command to its end.
//!
//! Two kinds of `xargs`: with a shell for each line, as `offshoot run` and GNU parallel have one, and without.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::figure::{Better, Sample};

const LINE: &str = "/bin/true";

pub(crate) fn measure(workers: u32, lines: u32) -> anyhow::Result<Vec<Sample>> {
    let folder = tempfile::tempdir().context("there is no room for temporary files")?;
    let file = folder.path().join("lines");
    File::create(&file)?.write_all(format!("{LINE}\n").repeat(lines as usize).as_bytes())?;

    let jobs = workers.to_string();
    let xargs = ["-P", &jobs, "-d", "\n", "-a", path(&file)?];
    let others: [(&str, &str, Vec<&str>); 3] = [
        ("xargs", "xargs", [&xargs[..], &["-n", "1", "sh", "-c"]].concat()),
        ("xargs-without-shell", "xargs", [&xargs[..], &["-n", "1", LINE]].concat()),
        ("parallel", "parallel", vec!["--will-cite", "-j", &jobs, "-a", path(&file)?]),
    ];
    let mut samples = Vec::new();
    for (name, command, arguments) in others {
        let sample = Sample::new(format!("run-{lines}-lines-to-{name}"), "ms", Better::Lower);
        let both = || {
            let other = time(command.as_ref(), &arguments)?;
            let own = env::current_exe().context("/proc is not there")?;
            let ours = time(own.as_os_str(), &["run", "--quiet", "--workers", &jobs, path(&file)?])?;
            Ok::<_, anyhow::Error>((other, ours))
        };
        samples.push(match both() {
            Ok((other, ours)) => sample.raw([other]).ours([ours]),
            Err(error) => sample.ours_or(Err(error)),
        });
    }
    Ok(samples)
}

fn path(file: &Path) -> anyhow::Result<&str> {
    file.to_str().context("the folder for temporary files has a name that is no text")
}

/// Milliseconds.
fn time(command: &std::ffi::OsStr, arguments: &[&str]) -> anyhow::Result<f64> {
    // What `init` has set in this process is no business of theirs, but which transport is wanted is.
    let marks = [super::child::TOKEN, super::child::CONTAINMENT];
    let marks: Vec<(&str, OsString)> =
        marks.iter().filter_map(|mark| Some((*mark, env::var_os(mark)?))).collect();
    let begun = Instant::now();
    let status = Command::new(command)
        .args(arguments)
        .env_clear()
        .envs(offshoot::user_environment())
        .envs(marks)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("`{}` cannot be started", command.display()))?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    ensure!(status.success(), "`{}` ended with {status}", command.display());
    Ok(took)
}
