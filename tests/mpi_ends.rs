//! What is left two seconds after the end of a host, however that comes: no process, no segment of shared memory, and
//! nothing in the folder for temporary files. `tests/hosts/lifecycle.rs` has the host, which ends itself.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::Scenario;

/// How long things may stay.
const PATIENCE: u64 = 2;

/// Ends a host in this way, with so many workers.
fn ends(way: &str, workers: u32) {
    if mpi::environment::library_version().is_ok_and(|version| version.starts_with("Intel")) {
        return eprintln!("skipped: what Intel MPI leaves is not looked at yet");
    }
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let told = Scenario::new("ends")
        .argument(way)
        .argument(&workers.to_string())
        .env("TMPDIR", folder.path().to_str().expect("it is plain"))
        .any_code()
        .patience(PATIENCE)
        .run();
    assert!(told.contains("the end is near"), "the host did not come so far: {told}");
    let segments = told.lines().filter(|line| line.starts_with("/dev/shm/")).map(PathBuf::from);
    let segments: Vec<_> = segments.collect();
    // Its processes have just gone.
    let until = Instant::now() + Duration::from_secs(PATIENCE);
    loop {
        let left: Vec<_> = segments.iter().filter(|file| file.exists()).cloned().collect();
        let left = [left, files(folder.path())].concat();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "after `{way}` with {workers} worker(s) there is {left:#?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Everything in a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| [vec![path.clone()], files(&path)].concat()).collect()
}

#[test]
fn the_pool_is_dropped() {
    ends("drop", 0);
}

/// Then MPI cannot be finalized.
#[test]
fn the_pool_is_dropped_and_its_workers_have_to_be_killed() {
    ends("drop", 2);
}

#[test]
fn the_host_exits() {
    ends("exit", 2);
}

#[test]
fn the_host_panics() {
    ends("panic", 2);
}

#[test]
fn the_host_is_told_to_end() {
    ends("SIGTERM", 2);
}

#[test]
fn the_host_is_killed() {
    ends("SIGKILL", 2);
}

#[test]
fn a_host_without_workers_is_killed() {
    ends("SIGKILL", 0);
}

#[test]
fn the_launcher_is_killed() {
    ends("launcher", 2);
}

#[test]
fn the_launcher_and_the_host_are_killed() {
    ends("launcher and host", 2);
}
