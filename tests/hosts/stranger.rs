//! MPI programs that are no workers of ours, or poor ones; the first argument says which. What
//! `tests/mpi_spawn.rs` has a pool start.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::process;
use std::thread;
use std::time::Duration;

use mpi::traits::*;
use rustix::process::{Signal, getpid, kill_process};

fn main() {
    let habit = env::args().nth(1).unwrap_or_default();
    match habit.as_str() {
        // As a program of somebody's that knows nothing of a parent.
        "finalizes" => drop(mpi::initialize()),
        "hangs" => {
            let _universe = mpi::initialize();
            rest();
        }
        "leaves" => {
            let _universe = mpi::initialize();
            process::exit(0);
        }
        // As one that nobody has spawned.
        "alone" => {
            let universe = mpi::initialize().expect("MPI was not initialized before");
            assert!(universe.world().size() == 1 && universe.world().parent().is_none());
        }
        // As one of two that somebody has spawned who is no pool.
        "greets" => {
            let universe = mpi::initialize().expect("MPI was not initialized before");
            let (world, parent) = (universe.world(), universe.world().parent().expect("it was spawned"));
            assert_eq!(world.size(), 2);
            parent.process_at_rank(0).send(&world.rank());
        }
        "speaks another version" => speak_another_version(),
        // Somewhere in MPI_Init, sooner or later.
        dies => match dies.strip_prefix("killed ") {
            Some(after) => die(after, || {
                let _ = kill_process(getpid(), Signal::KILL);
            }),
            None => die(dies, || process::abort()),
        },
    }
}

/// Initializes MPI, and ends so many microseconds after it has begun with that.
fn die(after: &str, end: fn()) -> ! {
    let after = after.parse().map(Duration::from_micros).expect("it is a number of microseconds");
    thread::spawn(move || {
        thread::sleep(after);
        end();
    });
    let _universe = mpi::initialize();
    rest();
}

/// A worker of the future: it says that it is one, and then what this version does not understand.
fn speak_another_version() {
    let news = env::var("OFFSHOOT_NEWS").expect("a guard has started this");
    let mut news =
        OpenOptions::new().write(true).open(format!("/proc/self/fd/{news}")).expect("it is a pipe");
    news.write_all(b"o").expect("the guard listens");
    let universe = mpi::initialize().expect("MPI was not initialized before");
    news.write_all(b"i").expect("the guard listens");
    let host = universe.world().parent().expect("it was spawned");
    let mut frame = [0_u8; 16];
    frame[..3].copy_from_slice(&[0xF5, 0x0F, 99]);
    host.process_at_rank(0).send_with_tag(&frame, 1);
    rest();
}

fn rest() -> ! {
    loop {
        thread::park();
    }
}
