//! Runs a host program as a test: in a process group of its own, within a hard time limit, and with
//! proof that nothing of it is left afterwards.
//!
//! Each scenario gets a process of its own, because MPI is initialized once per process and because a
//! host that dies badly must not take the tests with it: on MPICH, hydra then kills its process group.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What every process of a scenario has in its environment, daemons of the MPI included.
const MARK: &str = "OFFSHOOT_SCENARIO";

const COMMAND: &str = "offshoot";

/// A host program, what it is expected to do, and within what time.
pub(crate) struct Scenario {
    program: &'static str,
    arguments: Vec<String>,
    /// What starts the host, if not the test itself.
    launcher: Vec<String>,
    /// Variables to set, or to take out.
    variables: Vec<(&'static str, Option<String>)>,
    /// None: any will do.
    code: Option<i32>,
    limit: Duration,
    patience: Duration,
}

impl Scenario {
    /// A scenario of `tests/hosts/`.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { arguments: vec![name.to_owned()], ..Self::example("scenario_host") }
    }

    /// One of `examples/`.
    pub(crate) fn example(program: &'static str) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            launcher: Vec::new(),
            variables: Vec::new(),
            code: Some(0),
            limit: Duration::from_secs(60),
            // The orted of Open MPI stays for a second or two after a clean end.
            patience: Duration::from_secs(5),
        }
    }

    /// The `offshoot` command.
    pub(crate) fn command() -> Self {
        Self::example(COMMAND)
    }

    /// One more argument.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Has the host started by this command, to which its own is added.
    pub(crate) fn launched(mut self, launcher: &[&str]) -> Self {
        self.launcher = launcher.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Sets a variable of the host's environment.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, Some(value.into())));
        self
    }

    /// Takes a variable out of the host's environment.
    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.variables.push((name, None));
        self
    }

    /// Expects no certain exit code.
    pub(crate) fn any_code(mut self) -> Self {
        self.code = None;
        self
    }

    /// The exit code to expect, instead of 0.
    pub(crate) fn code(mut self, code: i32) -> Self {
        self.code = Some(code);
        self
    }

    /// Seconds that the host may take, instead of 60.
    pub(crate) fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Seconds that its other processes may stay after the host has ended, instead of 5.
    pub(crate) fn patience(mut self, seconds: u64) -> Self {
        self.patience = Duration::from_secs(seconds);
        self
    }

    /// Runs the host and returns what it printed.
    ///
    /// # Panics
    /// If it does not end in time, ends otherwise than expected, or leaves a process behind. All of its
    /// processes are killed then.
    pub(crate) fn run(self) -> String {
        let executable = match self.program {
            COMMAND => PathBuf::from(env!("CARGO_BIN_EXE_offshoot")),
            example => built(example),
        };
        let mut run = Run::start(&executable, &self);
        let ended = run.wait(self.limit);
        let left = run.wait_for_all(if ended.is_some() { self.patience } else { Duration::ZERO });
        left.iter().for_each(Process::kill);

        let output = run.output();
        let shown = format!("{} {}", self.program, self.arguments.join(" "));
        match ended {
            None => panic!("`{shown}` did not end within its time limit of {:?}{output}", self.limit),
            Some(status) if self.code.is_some_and(|code| status.code() != Some(code)) => {
                panic!("`{shown}` ended with {status}, not with code {:?}{output}", self.code)
            }
            Some(_) if !left.is_empty() => {
                panic!("`{shown}` left behind after {:?}: {left:#?}{output}", self.patience)
            }
            Some(_) => output.stdout,
        }
    }
}

/// The path of an example, after cargo has built all of them (some start others), so that no test runs a
/// stale one.
///
/// `cargo nextest run` alone has built them; `cargo nextest run --test mpi_scenarios` has not.
fn built(example: &str) -> PathBuf {
    let tests = env::current_exe().expect("/proc is there");
    let profile = tests.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
    // Whoever runs the tests while he edits may want those that were built with the tests.
    let is_built = env::var_os("OFFSHOOT_EXAMPLES_BUILT").is_some();
    if let Some(cargo) = env::var_os("CARGO").filter(|_| !is_built) {
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--examples"]);
        if profile.ends_with("release") {
            command.arg("--release");
        }
        let status = command.status().expect("cargo starts");
        assert!(status.success(), "the examples do not build");
    }
    profile.join("examples").join(example)
}

/// A host that runs, and the mark by which its processes are known.
struct Run {
    host: Child,
    mark: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Run {
    fn start(executable: &Path, scenario: &Scenario) -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        // Files, not pipes: nobody has to read them meanwhile, and no daemon can hold them open.
        let file = |stream| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{id}.{stream}"));
        let (stdout, stderr) = (file("stdout"), file("stderr"));
        let create = |path| File::create(path).expect("the folder for temporary files is there");
        let mut words = scenario.launcher.iter().map(OsStr::new).chain([executable.as_os_str()]);
        let mut command = Command::new(words.next().expect("there is an executable"));
        command.args(words).args(&scenario.arguments).env(MARK, &id);
        if scenario.launcher.first().is_some_and(|launcher| launcher == "mpiexec") {
            // Open MPI's refuses root otherwise. What a host needs itself it is to set itself.
            for name in ["OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT"] {
                command.env(name, "1").env(format!("{name}_CONFIRM"), "1");
            }
        }
        for (name, value) in &scenario.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let host = command
            .stdin(Stdio::null())
            .stdout(create(&stdout))
            .stderr(create(&stderr))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("`{}` does not start: {error}", executable.display()));
        Self { host, mark: format!("{MARK}={id}"), stdout, stderr }
    }

    /// How the host ended, if it did within the limit.
    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        poll(limit, || self.host.try_wait().expect("the host is our child"))
    }

    /// Waits until no process of this run is left; returns those that stay.
    fn wait_for_all(&self, patience: Duration) -> Vec<Process> {
        match poll(patience, || self.processes().is_empty().then_some(())) {
            Some(()) => Vec::new(),
            None => self.processes(),
        }
    }

    /// The processes of this run, whatever became of their parents, sessions and process groups.
    fn processes(&self) -> Vec<Process> {
        let folders = fs::read_dir("/proc").expect("/proc is there").flatten();
        let pids = folders.filter_map(|folder| Pid::from_raw(folder.file_name().to_str()?.parse().ok()?));
        pids.filter_map(|pid| Process::look(pid, &self.mark)).collect()
    }

    fn output(mut self) -> Output {
        // It has ended or was killed: no zombie is to stay.
        let _ = self.host.wait();
        let take = |path| {
            let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let _ = fs::remove_file(path);
            text.unwrap_or_else(|error| format!("(lost: {error})"))
        };
        Output { stdout: take(&self.stdout), stderr: take(&self.stderr) }
    }
}

struct Output {
    stdout: String,
    stderr: String,
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\n--- its stdout\n{}--- its stderr\n{}---", self.stdout, self.stderr)
    }
}

/// A process of a run, for a message about it and for its end.
#[derive(Debug)]
struct Process {
    pid: Pid,
    command: String,
}

impl Process {
    /// A process, if it carries the mark and lives. One that ends meanwhile does not.
    fn look(pid: Pid, mark: &str) -> Option<Self> {
        let read = |file| fs::read(format!("/proc/{pid}/{file}")).ok();
        let environment = read("environ")?;
        environment.split(|byte| *byte == 0).find(|variable| *variable == mark.as_bytes())?;
        // The state follows the name, which is in parentheses. Zombies have ended and do not count.
        let stat = String::from_utf8_lossy(&read("stat")?).into_owned();
        let state = stat.rsplit(") ").next()?.chars().next()?;
        if matches!(state, 'Z' | 'X') {
            return None;
        }
        let command = String::from_utf8_lossy(&read("cmdline")?).replace('\0', " ");
        Some(Self { pid, command: command.chars().take(160).collect() })
    }

    fn kill(&self) {
        // It may have ended by itself.
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

/// Looks every few milliseconds until there is something, or the time is over.
fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + limit;
    loop {
        match look() {
            Some(found) => return Some(found),
            None if Instant::now() >= until => return None,
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}
