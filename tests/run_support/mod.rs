//! Runs the `offshoot` command as a user would, within a hard time limit, and proves that no process of
//! it is left. In a process group of its own: on MPICH a host that dies badly takes its group with it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// What every process of a run has in its environment: daemons of the MPI, workers, commands.
const MARK: &str = "OFFSHOOT_RUN_TEST";
/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long its other processes may stay: Open MPI's orted does for a second or two.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(10);

/// `offshoot`, about to be started.
pub(crate) struct Offshoot {
    folder: TempDir,
    command: &'static str,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    stdin: Stdio,
    stdout: Option<Stdio>,
}

/// A run under way.
pub(crate) struct Running {
    folder: TempDir,
    child: Child,
    mark: String,
}

/// A run that has ended and left nothing.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    /// Where it ran.
    pub(crate) folder: TempDir,
}

/// `offshoot run` with these arguments, and nothing on standard input, in an empty folder.
pub(crate) fn offshoot<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Offshoot {
    subcommand("run", arguments)
}

/// Another subcommand of `offshoot`, as [`offshoot`].
pub(crate) fn subcommand<A: Into<OsString>>(
    command: &'static str,
    arguments: impl IntoIterator<Item = A>,
) -> Offshoot {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("there is room for a folder");
    let arguments = arguments.into_iter().map(Into::into).collect();
    Offshoot { folder, command, arguments, variables: Vec::new(), stdin: Stdio::null(), stdout: None }
}

impl Offshoot {
    /// Gives it a file of lines.
    pub(crate) fn file(mut self, lines: impl AsRef<[u8]>) -> Self {
        self.arguments.push("lines".into());
        fs::write(self.folder.path().join("lines"), lines).expect("the folder is ours");
        self
    }

    /// Sets a variable of its environment.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Gives it lines on standard input, through a file.
    pub(crate) fn lines_on_stdin(self, lines: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join("stdin");
        fs::write(&path, lines).expect("the folder is ours");
        self.stdin(File::open(path).expect("it was just written"))
    }

    pub(crate) fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    pub(crate) fn start(self) -> Running {
        let Self { folder, command, arguments, variables, stdin, stdout } = self;
        let mark = format!("{}-{}", process::id(), folder.path().display());
        let create = |name| File::create(folder.path().join(name)).expect("the folder is ours");
        let child = Command::new(env!("CARGO_BIN_EXE_offshoot"))
            .arg(command)
            .args(arguments)
            .envs(variables)
            .current_dir(folder.path())
            .env(MARK, &mark)
            .stdin(stdin)
            .stdout(stdout.unwrap_or_else(|| create("stdout").into()))
            .stderr(create("stderr"))
            .process_group(0)
            .spawn()
            .expect("cargo has built the command");
        Running { folder, child, mark: format!("{MARK}={mark}") }
    }

    pub(crate) fn finish(self) -> Ended {
        self.start().finish()
    }
}

impl Running {
    /// Where it runs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs, and is ours");
    }

    /// Waits until its lines have made so many of these files.
    pub(crate) fn wait_for_files(&self, names: &[&str]) {
        let there = wait(LIMIT, || names.iter().all(|name| self.folder().join(name).exists()).then_some(()));
        assert!(there.is_some(), "{names:?} did not appear: {}", self.read("stderr"));
    }

    /// Waits for its end, and until none of its processes is left.
    pub(crate) fn finish(mut self) -> Ended {
        let status = wait(LIMIT, || self.child.try_wait().expect("it is our child"));
        let left = wait(PATIENCE, || self.processes().is_empty().then_some(()));
        let processes = self.processes();
        if status.is_none() || left.is_none() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            processes.iter().for_each(|(id, _)| {
                let _ = kill_process(*id, Signal::KILL);
            });
            let _ = self.child.wait();
        }
        let stderr = self.read("stderr");
        assert!(left.is_some(), "left behind: {processes:#?}\n{stderr}");
        let status = status.unwrap_or_else(|| panic!("it did not end within {LIMIT:?}\n{stderr}"));
        let stdout = fs::read(self.folder.path().join("stdout")).unwrap_or_default();
        Ended { status, stdout, stderr, folder: self.folder }
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The processes that carry its mark and live.
    fn processes(&self) -> Vec<(Pid, String)> {
        let ids = fs::read_dir("/proc").expect("/proc is there").flatten();
        let ids = ids.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
        ids.filter_map(|id| {
            let folder = PathBuf::from(format!("/proc/{}", id.as_raw_nonzero()));
            let environment = fs::read(folder.join("environ")).ok()?;
            let ours = environment.split(|byte| *byte == 0).any(|entry| entry == self.mark.as_bytes());
            let command = fs::read(folder.join("cmdline")).ok()?;
            // A zombie has no environment, but one may become a zombie right here.
            (ours && !command.is_empty()).then(|| (id, String::from_utf8_lossy(&command).replace('\0', " ")))
        })
        .collect()
    }
}

impl Ended {
    /// Checks its exit code.
    pub(crate) fn code(self, code: i32) -> Self {
        let Self { status, stderr, .. } = &self;
        assert_eq!(status.code(), Some(code), "signal {:?}\n{stderr}", status.signal());
        self
    }

    /// Checks all that it wrote to standard output.
    pub(crate) fn wrote(self, stdout: impl AsRef<[u8]>) -> Self {
        let (expected, found) = (stdout.as_ref(), &self.stdout);
        let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
        assert!(
            found == expected,
            "expected {:?}\nfound {:?}\n{}",
            shown(expected),
            shown(found),
            self.stderr
        );
        self
    }

    /// Checks that these texts are on standard error.
    pub(crate) fn said(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "nobody said {text:?}, but\n{}", self.stderr);
        }
        self
    }

    /// A file that it wrote, as text.
    pub(crate) fn read(&self, name: impl AsRef<OsStr>) -> String {
        fs::read_to_string(self.folder.path().join(name.as_ref())).expect("it wrote this file")
    }
}

/// Asks again and again, until there is an answer or the time is over.
fn wait<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || begun.elapsed() > limit {
            return answer;
        }
        thread::sleep(STEP);
    }
}
