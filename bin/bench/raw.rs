//! Raw MPI for comparison: what a C programmer would write, on the intercommunicator of one `MPI_Comm_spawn`, in
//! the process tree that the library is measured in. Nothing of the library is in it, and no guard.
//!
//! Errors, but for those of a library that is only busy, are left to MPI, which ends the process; whoever has started it
//! says so.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int};
use std::mem::MaybeUninit;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use mpi::ffi;

/// First argument of a process that answers [`Workers`]; the second is the process that it answers.
pub(crate) const FLAG: &str = "--raw-worker";

/// Answer with the same eight bytes.
const PING: c_int = 1;
/// Take so many bytes so many times, and send each back.
const ECHO: c_int = 2;
/// The bytes themselves.
const BULK: c_int = 3;
/// Block in the next receive.
const BLOCK: c_int = 4;
const LEAVE: c_int = 5;
/// Of one message: counts are C integers. As many C programs do it.
const PIECE: usize = 1 << 30;
/// Messages under way to one worker when many are sent: more did not make it faster.
const IN_FLIGHT: u64 = 64;
/// How long a library may have no room for a message.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// In a process that was started as a raw worker: does what its host asks for until it is told to leave.
pub(crate) fn serve() {
    initialize();
    let mut parent = MaybeUninit::uninit();
    // SAFETY: MPI is initialized, and it writes a handle (MPI-4.1 §11.8.2).
    let mut parent = unsafe {
        ffi::MPI_Comm_get_parent(parent.as_mut_ptr());
        parent.assume_init()
    };
    return_errors(parent);
    let mut small = [0_u8; 16];
    loop {
        await_message(0, parent);
        match receive(&mut small, 0, parent) {
            PING => send(&small[..8], 0, PING, parent),
            ECHO => answer_echoes(&small, parent),
            BLOCK => {
                receive(&mut small, 0, parent);
            }
            LEAVE => break,
            tag => panic!("a host of this file sends no message with tag {tag}"),
        }
    }
    // SAFETY: the host disconnects as well, and nothing is under way (MPI-4.1 §11.10.4).
    unsafe {
        ffi::MPI_Comm_disconnect(&mut parent);
        ffi::MPI_Finalize();
    }
}

fn answer_echoes(order: &[u8; 16], parent: ffi::MPI_Comm) {
    let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("it is eight bytes"));
    let (length, times) = (number(&order[..8]), number(&order[8..]));
    let mut bulk = vec![1_u8; usize::try_from(length).expect("this is a machine of 64 bits")];
    send(&order[..8], 0, PING, parent);
    for _ in 0..times {
        receive_bulk(&mut bulk, parent);
        send_bulk(&bulk, parent);
    }
}

/// Initializes MPI for all threads, and leaves it to the process's end or to [`finalize`].
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

/// Spawned processes that answer.
pub(crate) struct Workers {
    comm: ffi::MPI_Comm,
    count: c_int,
}

impl Workers {
    /// Spawns so many processes in one call.
    pub(crate) fn spawn(count: u32) -> Self {
        let text = |text: &str| CString::new(text).expect("there is no zero byte in it");
        let executable = std::env::current_exe().expect("/proc is there");
        let command = text(&executable.to_string_lossy());
        let (flag, host) = (text(FLAG), text(&std::process::id().to_string()));
        let mut argv = [flag.as_ptr().cast_mut(), host.as_ptr().cast_mut(), ptr::null_mut()];
        let count = c_int::try_from(count).expect("workers are few");
        let mut codes: Vec<c_int> = (0..count).collect();
        let mut comm = MaybeUninit::uninit();
        // SAFETY: the strings are terminated, their array ends with null, there is an error code for each process
        // (MPI-4.1 §11.8.2), and without an error the handle is written.
        let comm = unsafe {
            ffi::MPI_Comm_spawn(
                command.as_ptr(),
                argv.as_mut_ptr(),
                count,
                ffi::RSMPI_INFO_NULL,
                0,
                ffi::RSMPI_COMM_SELF,
                comm.as_mut_ptr(),
                codes.as_mut_ptr(),
            );
            comm.assume_init()
        };
        return_errors(comm);
        Self { comm, count }
    }

    /// The time from a send of eight bytes to the return of eight.
    pub(crate) fn ping(&self, rank: u32) -> Duration {
        let rank = c_int::try_from(rank).expect("workers are few");
        let mut buffer = [7_u8; 8];
        let begun = Instant::now();
        send(&buffer, rank, PING, self.comm);
        await_message(rank, self.comm);
        receive(&mut buffer, rank, self.comm);
        begun.elapsed()
    }

    /// The time in which so many messages of eight bytes are answered, [`IN_FLIGHT`] under way to each worker.
    pub(crate) fn pings(&self, messages: u64) -> Duration {
        let mut buffer = [7_u8; 8];
        let mut sent_to = vec![0_u64; self.count as usize];
        let (mut sent, mut answered) = (0, 0);
        let begun = Instant::now();
        while answered < messages {
            for (rank, in_flight) in (0..).zip(&mut sent_to) {
                while *in_flight < IN_FLIGHT && sent < messages {
                    send(&buffer, rank, PING, self.comm);
                    *in_flight += 1;
                    sent += 1;
                }
            }
            let before = answered;
            for (rank, in_flight) in (0..).zip(&mut sent_to) {
                if find_message(rank, self.comm) {
                    receive(&mut buffer, rank, self.comm);
                    *in_flight -= 1;
                    answered += 1;
                }
            }
            if answered == before {
                thread::yield_now();
            }
        }
        begun.elapsed()
    }

    /// The times of so many echoes of these bytes.
    pub(crate) fn echoes(&self, bytes: &mut [u8], times: u64) -> Vec<Duration> {
        let mut order = [0; 16];
        order[..8].copy_from_slice(&(bytes.len() as u64).to_ne_bytes());
        order[8..].copy_from_slice(&times.to_ne_bytes());
        send(&order, 0, ECHO, self.comm);
        // It has its memory now.
        await_message(0, self.comm);
        receive(&mut order, 0, self.comm);
        let echo = |_| {
            let begun = Instant::now();
            send_bulk(bytes, self.comm);
            receive_bulk(bytes, self.comm);
            begun.elapsed()
        };
        (0..times).map(echo).collect()
    }

    /// Has each worker block in a receive, until it is told to leave.
    pub(crate) fn block(&self) {
        (0..self.count).for_each(|rank| send(&[0; 8], rank, BLOCK, self.comm));
    }

    /// Ends a [`block`](Self::block).
    pub(crate) fn unblock(&self) {
        (0..self.count).for_each(|rank| send(&[0; 8], rank, PING, self.comm));
    }

    /// Has all workers leave.
    pub(crate) fn leave(mut self) {
        (0..self.count).for_each(|rank| send(&[0; 8], rank, LEAVE, self.comm));
        // SAFETY: the communicator is live, and the workers disconnect as well.
        unsafe { ffi::MPI_Comm_disconnect(&mut self.comm) };
    }
}

/// Polls, and yields between two looks: with more processes than cores a blocking receive, which spins, would measure
/// the operating system's time slices.
fn await_message(rank: c_int, comm: ffi::MPI_Comm) {
    while !find_message(rank, comm) {
        thread::yield_now();
    }
}

fn find_message(rank: c_int, comm: ffi::MPI_Comm) -> bool {
    let mut found = 0;
    // SAFETY: the communicator is live; the status is not asked for.
    unsafe { ffi::MPI_Iprobe(rank, ffi::RSMPI_ANY_TAG, comm, &mut found, ffi::RSMPI_STATUS_IGNORE) };
    found != 0
}

/// Receives the next small message, and returns its tag. From a rank that is named: on MPICH 5.0.2 a receive from
/// any source on the intercommunicator did not see a message that a probe had found.
fn receive(buffer: &mut [u8], rank: c_int, comm: ffi::MPI_Comm) -> c_int {
    let count = c_int::try_from(buffer.len()).expect("it is small");
    let mut status = MaybeUninit::<ffi::MPI_Status>::uninit();
    // SAFETY: the communicator is live, and the buffer has room for `count` bytes, as no small message has more.
    unsafe {
        ffi::MPI_Recv(
            buffer.as_mut_ptr().cast(),
            count,
            ffi::RSMPI_UINT8_T,
            rank,
            ffi::RSMPI_ANY_TAG,
            comm,
            status.as_mut_ptr(),
        );
        status.assume_init_ref().MPI_TAG
    }
}

fn send(bytes: &[u8], rank: c_int, tag: c_int, comm: ffi::MPI_Comm) {
    let count = c_int::try_from(bytes.len()).expect("it is small");
    again_while_busy(|| {
        // SAFETY: the communicator is live, and the buffer has `count` bytes.
        unsafe { ffi::MPI_Send(bytes.as_ptr().cast(), count, ffi::RSMPI_UINT8_T, rank, tag, comm) }
    });
}

fn send_bulk(bytes: &[u8], comm: ffi::MPI_Comm) {
    for piece in bytes.chunks(PIECE) {
        let count = c_int::try_from(piece.len()).expect("a piece is at most 2^30 bytes");
        let mut request = MaybeUninit::uninit();
        // SAFETY: the communicator is live, and the buffer stays until the request has ended, just below.
        unsafe {
            again_while_busy(|| {
                ffi::MPI_Isend(
                    piece.as_ptr().cast(),
                    count,
                    ffi::RSMPI_UINT8_T,
                    0,
                    BULK,
                    comm,
                    request.as_mut_ptr(),
                )
            });
            end(request.assume_init());
        }
    }
}

fn receive_bulk(bytes: &mut [u8], comm: ffi::MPI_Comm) {
    for piece in bytes.chunks_mut(PIECE) {
        let count = c_int::try_from(piece.len()).expect("a piece is at most 2^30 bytes");
        let mut request = MaybeUninit::uninit();
        // SAFETY: as in `send_bulk`.
        unsafe {
            ffi::MPI_Irecv(
                piece.as_mut_ptr().cast(),
                count,
                ffi::RSMPI_UINT8_T,
                0,
                BULK,
                comm,
                request.as_mut_ptr(),
            );
            end(request.assume_init());
        }
    }
}

/// Starts a send, again and again while the library has no room for it: MPICH over TCP says so with an error, and
/// any other one would be the same the next time.
fn again_while_busy(mut send: impl FnMut() -> c_int) {
    let begun = Instant::now();
    while send() != ffi::MPI_SUCCESS as c_int {
        assert!(begun.elapsed() < BUSY_LIMIT, "raw MPI cannot send");
        thread::yield_now();
    }
}

/// Has errors on this communicator returned, for [`again_while_busy`].
fn return_errors(comm: ffi::MPI_Comm) {
    // SAFETY: the communicator is live, and the handler is a predefined one (MPI-4.1 §9.3).
    unsafe { ffi::MPI_Comm_set_errhandler(comm, ffi::RSMPI_ERRORS_RETURN) };
}

/// Polls until a request has ended.
fn end(mut request: ffi::MPI_Request) {
    let mut ended = 0;
    loop {
        // SAFETY: the request is live until it has ended, and the status is not asked for.
        unsafe { ffi::MPI_Test(&mut request, &mut ended, ffi::RSMPI_STATUS_IGNORE) };
        if ended != 0 {
            return;
        }
        thread::yield_now();
    }
}
