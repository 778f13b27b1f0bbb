//! Who watches the host: starts it, sees how it ends, and what it leaves behind.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::fire::FIGURES;
use super::ledger::now;
use super::report::Figures;
use super::victims::{self, CHAOS};
use super::{Arguments, Spare};

/// How much longer than the fire the host may take.
const HOST_LIMIT: Duration = Duration::from_secs(120);
/// How long after the host's end everything of it is gone.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// Has a host come under fire, and prints what came of it. Whether all was well.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    if arguments.mpi_info {
        say_which_mpi();
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let spared = match &arguments.spared()[..] {
        [] => vec![Spare::Nothing],
        spared => spared.to_vec(),
    };
    let token = format!("{}-{}", std::process::id(), now());
    // Not in the folder for temporary files of the host, which has to be empty in the end.
    let folder = tempfile::tempdir().context("there is no room for temporary files")?;
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary)?;
    let own = std::env::current_exe()?;
    let launcher = arguments.through.iter().flat_map(|through| through.split_whitespace()).map(OsStr::new);
    let mut words = launcher.chain([own.as_os_str()]);
    let mut host = Command::new(words.next().context("there is an executable")?)
        .args(words)
        .args(["chaos", "--seconds", &arguments.seconds.to_string(), "--seed", &seed.to_string()])
        .args(["--workers", &arguments.workers.to_string(), "--watched-in"])
        .arg(folder.path())
        .args(arguments.isolated.then_some("--isolated"))
        .args(spared.iter().flat_map(|spare| ["--spare".to_owned(), name(*spare)]))
        // Not what `init()` has set for this process: the host, or its launcher, is to find what a user has.
        .env_clear()
        .envs(offshoot::user_environment())
        .env(CHAOS, &token)
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        // What an MPI says there is nothing for whoever reads the figures.
        .stdout(std::io::stderr().as_fd().try_clone_to_owned()?)
        // Some launchers kill the host's group when they are upset.
        .process_group(0)
        .spawn()
        .context("the host cannot be started")?;
    end_with_this_process(host.id())?;
    let limit = Duration::from_secs(arguments.seconds.into()) + HOST_LIMIT;
    let mut shared = BTreeSet::new();
    let ended =
        await_end(&mut host, limit, || shared.extend(victims::shared_memory(&victims::with(CHAOS, &token))))?;
    let left = left_behind(&token, &temporary, &shared);
    left.processes.iter().for_each(|process| victims::kill(*process, libc::SIGKILL));
    let told = fs::read_to_string(folder.path().join(FIGURES)).ok();
    let told = told.and_then(|text| serde_json::from_str::<Figures>(&text).ok());
    let host_failed = match (ended, &told) {
        (Some(status), Some(_)) if status.success() => None,
        (Some(status), _) => Some(describe(status)),
        (None, _) => Some(format!("hung, and was killed after {limit:?}")),
    };
    let spared = spared.iter().filter(|spare| **spare != Spare::Nothing).map(|spare| name(*spare)).collect();
    let figures =
        Figures { spared, left_behind: left.count(), host_failed, seed, ..told.unwrap_or_default() };
    for process in &left.processes {
        eprintln!("offshoot: process {process} was left behind, and was killed");
    }
    for file in &left.files {
        eprintln!("offshoot: `{file}` was left behind");
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        figures.print();
    }
    Ok(figures.is_fine())
}

fn name(spare: Spare) -> String {
    format!("{spare:?}").to_lowercase()
}

fn say_which_mpi() {
    let Some(diagnosis) = offshoot::Diagnosis::make() else { return };
    let path = |path: Option<std::path::PathBuf>| {
        path.map_or("unknown".to_owned(), |path| path.display().to_string())
    };
    eprintln!("MPI          {}", diagnosis.mpi_version);
    eprintln!("library      {}", path(diagnosis.library));
    eprintln!("launcher     {}", path(diagnosis.launcher));
    eprintln!("containment  {}", diagnosis.containment);
}

/// Ctrl-C and SIGTERM end the host too, and with it its workers.
fn end_with_this_process(host: u32) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals cannot be watched")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            victims::kill(host, libc::SIGKILL);
            thread::sleep(LEAVE_LIMIT);
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// How the host ended; `None` if it did not in time, and was killed.
fn await_end(
    host: &mut Child,
    limit: Duration,
    mut meanwhile: impl FnMut(),
) -> anyhow::Result<Option<ExitStatus>> {
    let until = Instant::now() + limit;
    loop {
        meanwhile();
        if let Some(status) = host.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > until {
            host.kill()?;
            host.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "said nothing".to_owned(),
        (Some(code), _) => format!("exited with code {code}"),
        (None, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
    }
}

/// What was still there two seconds after the host's end.
struct Left {
    processes: Vec<i32>,
    files: Vec<String>,
}

impl Left {
    fn count(&self) -> u64 {
        (self.processes.len() + self.files.len()) as u64
    }
}

fn left_behind(token: &str, temporary: &std::path::Path, shared: &BTreeSet<String>) -> Left {
    let look = || {
        let processes = victims::with(CHAOS, token).iter().map(|process| process.id).collect();
        let files = names_in(temporary).into_iter();
        let shared = shared.iter().filter(|name| std::path::Path::new(name).exists()).cloned();
        Left { processes, files: files.chain(shared).collect() }
    };
    let until = Instant::now() + LEAVE_LIMIT;
    loop {
        let left = look();
        if left.count() == 0 || Instant::now() > until {
            return left;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn names_in(folder: impl AsRef<std::path::Path>) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}
