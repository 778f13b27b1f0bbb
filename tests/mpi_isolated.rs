//! Isolated mode on real MPI: what becomes of a pool when its parent dies, that neither disturbs a host's own MPI, and what is
//! left in the end. `tests/hosts/isolated.rs` has the hosts.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::Scenario;
use mpi::environment::library_version;

macro_rules! scenarios {
    ($($name:ident $(.$setting:ident($value:expr))*;)*) => {
        $(#[test]
        fn $name() {
            println!("{}", Scenario::new(stringify!($name))$(.$setting($value))*.run());
        })*
    };
}

scenarios! {
    the_parent_is_killed_in_mid_work;
    the_parent_dies_again_and_again;
    the_parent_cannot_be_started;
    the_host_stands_still;
    signals_of_a_terminal_pass_the_parent_by;
    each_pool_has_its_own_parent;
    the_parent_stands_still;
    the_parent_talks_nonsense;
    nobody_else_has_the_socket;
}

/// A rank of a job has an isolated pool unless it asks for another.
#[test]
fn the_main_thread_waits_in_a_collective() {
    wait_in_a_collective("auto");
}

#[test]
fn the_main_thread_waits_in_a_collective_beside_an_embedded_pool() {
    wait_in_a_collective("embedded");
}

/// Long enough for any time-out to pass. Once is enough: on other MPIs the wait is shorter.
fn wait_in_a_collective(mode: &str) {
    let is_first = library_version().is_ok_and(|version| version.starts_with("Open MPI v4"));
    let waits = Scenario::new("the_main_thread_waits_in_a_collective").launched(&["mpiexec", "-n", "2"]);
    println!("{}", waits.argument(mode).argument(if is_first { "10" } else { "3" }).run());
}

/// The MPI of another family than this one's, as the loader or a folder of the project has it.
fn other_library() -> PathBuf {
    let is_open_mpi = library_version().is_ok_and(|version| version.starts_with("Open MPI"));
    if is_open_mpi {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".mpi/mpich-5.0/lib/libmpi.so.12")
    } else {
        PathBuf::from("libmpi.so.40")
    }
}

/// The process has both then, and its own pool is isolated.
#[test]
fn the_host_loads_another_mpi() {
    let library = other_library();
    let host = Scenario::new("the_host_loads_another_mpi").argument(library.to_str().expect("it is plain"));
    let told = host.run();
    told.lines().filter(|line| line.starts_with("skipped")).for_each(|line| eprintln!("{line}"));
}

/// Two seconds after the host was killed there is nothing of it.
#[test]
fn an_isolated_host_is_killed() {
    let told = Scenario::new("an_isolated_host_is_killed").any_code().patience(2).run();
    assert!(told.contains("the end is near"), "{told}");
}

#[test]
fn a_pool_chooses_its_mode() {
    for case in ["plain", "multiple", "funneled", "finalized"] {
        Scenario::new("a_pool_chooses_its_mode").argument(case).run();
    }
}

/// No message of theirs is lost, and none is foreign.
#[test]
fn ranks_talk_while_an_isolated_pool_works() {
    let ranks = Scenario::new("ranks_talk_while_a_pool_works").launched(&["mpiexec", "-n", "2"]);
    println!("{}", ranks.argument("isolated").limit(90).run());
}

#[test]
fn ranks_talk_while_an_embedded_pool_works() {
    let ranks = Scenario::new("ranks_talk_while_a_pool_works").launched(&["mpiexec", "-n", "2"]);
    println!("{}", ranks.argument("embedded").limit(90).run());
}

/// An executable of the other family, built before, and its environment.
fn other_mpi() -> Option<(PathBuf, &'static str, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let own = std::env::var("OFFSHOOT_MPI").ok()?;
    let (other, word) = if own.starts_with("openmpi") {
        ("mpich-5.0", "libmpi.so.12")
    } else {
        ("openmpi-4.1", "libmpi.so.40")
    };
    let targets = std::env::var("CARGO_TARGET_DIR").ok()?;
    let executable = PathBuf::from(targets).parent()?.join(other).join("debug/examples/scenario_host");
    if !executable.exists() {
        return None;
    }
    // It may be older than this one, and speak another protocol.
    if std::env::var_os("OFFSHOOT_EXAMPLES_BUILT").is_none() {
        let build = ["cargo", "build", "--quiet", "--example", "scenario_host"];
        let script = root.join("scripts/with-mpi.sh");
        let status = Command::new(script).arg(other).args(build).status().expect("bash starts");
        assert!(status.success(), "the scenarios do not build for {other}");
    }
    Some((executable, word, root.join(".mpi").join(other).display().to_string()))
}

/// A host that has one MPI loaded, and a parent with another.
#[test]
fn the_parent_has_another_mpi() {
    let Some((executable, word, folder)) = other_mpi() else {
        return eprintln!(
            "skipped: the scenarios are not built for the other MPI (`make test` with it first)"
        );
    };
    // The parent finds its library by a wrapper, as the host is not to have it in its own path.
    let script = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("other-mpi");
    let text = format!(
        "#!/bin/sh\nPATH='{folder}/bin':$PATH\nLD_LIBRARY_PATH='{folder}/lib'\nexport PATH LD_LIBRARY_PATH\n\
         unset OPAL_PREFIX I_MPI_ROOT\nexec '{}' \"$@\"\n",
        executable.display()
    );
    std::fs::write(&script, text).expect("the folder can be written");
    let status = Command::new("chmod").arg("+x").arg(&script).status().expect("chmod is there");
    assert!(status.success());
    let scenario =
        Scenario::new("the_parent_has_another_mpi").argument(script.to_str().expect("it is plain"));
    scenario.argument(word).run();
}

/// What any thread may ask an MPI at any time.
const INQUIRIES: [&str; 4] =
    ["MPI_Get_library_version", "MPI_Initialized", "MPI_Finalized", "MPI_Query_thread"];

/// A library that stands before each MPI function that the scenarios call, and writes down who does.
fn interposer(folder: &Path) -> Option<PathBuf> {
    let own = std::env::current_exe().expect("/proc is there");
    let host = own.ancestors().nth(2)?.join("examples/scenario_host");
    let names = Command::new("nm").args(["-D", "--undefined-only"]).arg(host).output().ok()?;
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    // One gives a floating-point number, and is the only one.
    let functions = names.split_whitespace().map(|name| name.split('@').next().unwrap_or_default());
    let functions = functions.filter(|name| name.starts_with("MPI_") && *name != "MPI_Wtime");
    // All arguments of the others are integers or pointers, ten at most.
    let wrap = |name| {
        format!(
            "long {name}(long a,long b,long c,long d,long e,long f,long g,long h,long i,long j){{\
             static __thread int known;static long(*real)(long,long,long,long,long,long,long,long,long,long);\
             if(!known){{known=1;note(\"{name}\");}}if(!real)real=dlsym(RTLD_NEXT,\"{name}\");\
             return real(a,b,c,d,e,f,g,h,i,j);}}\n"
        )
    };
    let wrappers: String = functions.map(wrap).collect();
    let text = format!(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <fcntl.h>\n#include <stdio.h>\n#include <stdlib.h>\n\
         #include <sys/syscall.h>\n#include <unistd.h>\n\
         static void note(const char*name){{const char*file=getenv(\"OFFSHOOT_CALLS\");char line[128];if(!file)return;\
         int length=snprintf(line,128,\"%d %ld %s\\n\",getpid(),syscall(SYS_gettid),name);\
         int fd=open(file,O_WRONLY|O_APPEND|O_CREAT|O_CLOEXEC,0600);if(write(fd,line,length)<0)abort();close(fd);}}\n{wrappers}"
    );
    let (source, library) = (folder.join("calls.c"), folder.join("calls.so"));
    std::fs::write(&source, text).expect("the folder can be written");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").status();
    assert!(compiled.expect("there is a compiler").success());
    Some(library)
}

/// By which thread, and what.
type Called = (String, String);

/// The calls of a host in this mode, but for inquiries: by whom, and what; and which threads are the application's.
fn calls(mode: &str) -> Option<(Vec<Called>, Vec<String>)> {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    // Builds the host, too.
    Scenario::new("--list").run();
    let library = interposer(folder.path())?;
    let log = folder.path().join("calls");
    let text = |path: &Path| path.to_str().expect("it is plain").to_owned();
    let scenario = Scenario::new("threads_of_the_application").argument(mode);
    let told = scenario.env("LD_PRELOAD", text(&library)).env("OFFSHOOT_CALLS", text(&log)).run();
    let application: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("application ")).collect();
    assert_eq!(application.len(), 5, "{told}");
    let host = application[0].split(' ').next().unwrap_or_default();
    let log = std::fs::read_to_string(&log).expect("somebody has called MPI");
    let of_host = log.lines().filter_map(|line| {
        let (thread, name) = line.rsplit_once(' ')?;
        let is_of_host = thread.split(' ').next() == Some(host) && !INQUIRIES.contains(&name);
        is_of_host.then(|| (thread.to_owned(), name.to_owned()))
    });
    Some((of_host.collect(), application.iter().map(|line| (*line).to_owned()).collect()))
}

/// By a library that stands between host and MPI.
#[test]
fn no_thread_of_the_application_calls_mpi() {
    let Some((calls, application)) = calls("embedded") else { return eprintln!("skipped: there is no `nm`") };
    // On MPICH a host with a process manager of its own accepts what it has started itself.
    let is_meeting = |name: &String| ["MPI_Comm_spawn", "MPI_Comm_accept"].contains(&&**name);
    assert!(calls.iter().any(|(_, name)| is_meeting(name)), "nothing was seen: {calls:?}");
    let guilty: Vec<_> = calls.iter().filter(|(thread, _)| application.contains(thread)).collect();
    assert!(guilty.is_empty(), "{guilty:?}");
}

#[test]
fn an_isolated_host_does_not_call_mpi() {
    let Some((calls, _)) = calls("isolated") else { return eprintln!("skipped: there is no `nm`") };
    assert!(calls.is_empty(), "{calls:?}");
}

/// A host in Python with an MPI of its own (mpi4py): its traffic, its `MPI_Finalize` at exit, and a pool beside it.
const PYTHON: &str = r#"
import ctypes, os, sys
from mpi4py import MPI
world = MPI.COMM_WORLD
shim = ctypes.CDLL(os.environ["OFFSHOOT_SHIM"])
shim.offshoot_count.restype = ctypes.c_longlong
shim.offshoot_count.argtypes = [ctypes.c_longlong]
def talk():
    for round in range(100):
        request = world.isend(("mine", round), dest=0, tag=round)
        status = MPI.Status()
        came = world.recv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG, status=status)
        request.wait()
        assert came == ("mine", round) and status.Get_tag() == round, came
        assert world.allreduce(round) == round
talk()
assert shim.offshoot_count(500) == 500
talk()
print("Python is done:", MPI.Get_library_version().splitlines()[0])
"#;

#[test]
fn a_host_in_python_has_its_own_mpi() {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let text = |path: &Path| path.to_str().expect("it is plain").to_owned();
    let modules = folder.path().join("modules");
    let install = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
        .arg(&modules)
        .arg("mpi4py")
        .output();
    match install {
        Ok(done) if done.status.success() => {}
        other => return eprintln!("skipped: mpi4py cannot be installed: {other:?}"),
    }
    // Builds the shim and the worker, too.
    Scenario::new("--list").run();
    let own = std::env::current_exe().expect("/proc is there");
    let examples = own.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").join("examples");
    let script = folder.path().join("host.py");
    std::fs::write(&script, PYTHON).expect("the folder can be written");
    // What follows the script in the command is nothing to it.
    let host = Scenario::new("--list").launched(&["python3", &text(&script)]);
    let host =
        host.env("PYTHONPATH", text(&modules)).env("OFFSHOOT_SHIM", text(&examples.join("libshim.so")));
    let told = host.env("OFFSHOOT_SHIM_WORKER", text(&examples.join("scenario_worker"))).run();
    assert!(told.contains("Python is done"), "{told}");
    println!("{told}");
}
