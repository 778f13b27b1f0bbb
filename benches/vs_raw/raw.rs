//! Raw MPI for comparison: what a C programmer would write, on an intercommunicator made by
//! `MPI_Comm_spawn`, in the process that the library is measured in.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int};
use std::mem::MaybeUninit;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use mpi::ffi;

/// First argument of a process that answers [`Peer`].
pub(crate) const FLAG: &str = "--raw-worker";
const PING: c_int = 1;
const LEAVE: c_int = 2;

/// Returns every message to rank 0 of the parent until it is told to leave.
pub(crate) fn serve() {
    initialize();
    let mut parent = MaybeUninit::uninit();
    let mut buffer = [0_u8; 8];
    // SAFETY: MPI is initialized, this process was spawned, and the buffer has room for each message.
    unsafe {
        assert_eq!(ffi::MPI_Comm_get_parent(parent.as_mut_ptr()), 0);
        let mut parent = parent.assume_init();
        loop {
            let mut status = MaybeUninit::<ffi::MPI_Status>::uninit();
            wait_for_message(parent);
            ffi::MPI_Recv(
                buffer.as_mut_ptr().cast(),
                8,
                ffi::RSMPI_UINT8_T,
                0,
                ffi::RSMPI_ANY_TAG,
                parent,
                status.as_mut_ptr(),
            );
            if status.assume_init().MPI_TAG == LEAVE {
                break;
            }
            ffi::MPI_Send(buffer.as_ptr().cast(), 8, ffi::RSMPI_UINT8_T, 0, PING, parent);
        }
        ffi::MPI_Comm_disconnect(&mut parent);
        ffi::MPI_Finalize();
    }
}

/// Initializes MPI for all threads, and leaves it to the process's end.
pub(crate) fn initialize() {
    let (universe, provided) =
        mpi::initialize_with_threading(mpi::Threading::Multiple).expect("it is the first time");
    assert_eq!(provided, mpi::Threading::Multiple, "this MPI was built without MPI_THREAD_MULTIPLE");
    std::mem::forget(universe);
}

/// Ends MPI.
pub(crate) fn finalize() {
    // SAFETY: `initialize` was called, and everything is disconnected.
    unsafe { ffi::MPI_Finalize() };
}

/// A spawned process that returns messages.
pub(crate) struct Peer(ffi::MPI_Comm);

impl Peer {
    pub(crate) fn spawn() -> Self {
        let text = |text: &str| CString::new(text).expect("there is no zero byte in it");
        let executable = std::env::current_exe().expect("the executable has a path");
        let (command, flag) = (text(&executable.to_string_lossy()), text(FLAG));
        let mut argv = [flag.as_ptr().cast_mut(), ptr::null_mut()];
        let (mut comm, mut code) = (MaybeUninit::uninit(), 0);
        // SAFETY: the strings are terminated, the array ends with null, one error code is for one process.
        unsafe {
            let spawned = ffi::MPI_Comm_spawn(
                command.as_ptr(),
                argv.as_mut_ptr(),
                1,
                ffi::RSMPI_INFO_NULL,
                0,
                ffi::RSMPI_COMM_SELF,
                comm.as_mut_ptr(),
                &mut code,
            );
            assert_eq!((spawned, code), (0, 0));
            Self(comm.assume_init())
        }
    }

    /// The time from a send of eight bytes to the return of eight.
    pub(crate) fn ping(&self) -> Duration {
        let mut buffer = [0_u8; 8];
        let begun = Instant::now();
        // SAFETY: the communicator is live, and the buffer has room for each message.
        unsafe {
            ffi::MPI_Send(buffer.as_ptr().cast(), 8, ffi::RSMPI_UINT8_T, 0, PING, self.0);
            wait_for_message(self.0);
            ffi::MPI_Recv(
                buffer.as_mut_ptr().cast(),
                8,
                ffi::RSMPI_UINT8_T,
                0,
                PING,
                self.0,
                ffi::RSMPI_STATUS_IGNORE,
            );
        }
        begun.elapsed()
    }

    pub(crate) fn leave(mut self) {
        // SAFETY: the communicator is live, and the other side disconnects as well.
        unsafe {
            ffi::MPI_Send(ptr::null(), 0, ffi::RSMPI_UINT8_T, 0, LEAVE, self.0);
            ffi::MPI_Comm_disconnect(&mut self.0);
        }
    }
}

/// Polls, and yields between two looks: with more processes than cores a blocking receive, which
/// spins, would measure the operating system's time slices.
fn wait_for_message(comm: ffi::MPI_Comm) {
    let mut found = 0;
    loop {
        // SAFETY: the communicator is live; the status is not asked for.
        unsafe { ffi::MPI_Iprobe(0, ffi::RSMPI_ANY_TAG, comm, &mut found, ffi::RSMPI_STATUS_IGNORE) };
        if found != 0 {
            return;
        }
        thread::yield_now();
    }
}
