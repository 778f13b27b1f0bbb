//! Checked calls of MPI: the only file that names `mpi::ffi`.
//!
//! rsmpi initializes MPI and lends its types; what it lacks (error handlers, `MPI_Info`, spawning
//! with errors, receives into owned buffers, `MPI_Testsome` over a set that shrinks,
//! `MPI_Comm_disconnect`) is here. Every call checks its return code and asserts that it is made on
//! the one thread that owns MPI, or, where it has to do with spawning, on the spawn thread. No call here blocks
//! on another process, except [`Comm::spawn`], [`Comm::accept`], [`Comm::disconnect`] and [`finalize`], which say so.
#![allow(unsafe_code)]

use std::cmp::Reverse;
use std::ffi::{CStr, CString, c_char, c_int};
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::os::raw::c_void;
use std::ptr;
use std::sync::OnceLock;
use std::thread::{self, ThreadId};

use bytes::Bytes;
use mpi::ffi;

use crate::process;

/// A failed MPI call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{call} failed: {text} (code {code})")]
pub(crate) struct MpiError {
    pub(crate) call: &'static str,
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl MpiError {
    /// Whether it is MPICH's `MPIX_ERR_EAGAIN`: nothing was begun, and another time it may be. Its number differs
    /// between MPICH's own binary interface and the standard's; its text does not.
    pub(super) fn is_momentary(&self) -> bool {
        self.text.contains("(EAGAIN)")
    }
}

/// The thread that owns MPI in this process.
static MPI_THREAD: OnceLock<ThreadId> = OnceLock::new();

/// Makes the calling thread the one that owns MPI. Once per process.
pub(crate) fn claim_thread() {
    let owner = MPI_THREAD.get_or_init(|| thread::current().id());
    assert_eq!(*owner, thread::current().id(), "MPI has one owning thread, for the life of the process");
}

/// The thread that spawns beside it, if there is one.
static SPAWN_THREAD: OnceLock<ThreadId> = OnceLock::new();

/// Makes the calling thread the one that spawns beside the MPI thread. Once per process.
pub(crate) fn claim_spawn_thread() {
    let owner = SPAWN_THREAD.get_or_init(|| thread::current().id());
    assert_eq!(*owner, thread::current().id(), "one thread spawns, for the life of the process");
}

fn on_spawning_thread() {
    if SPAWN_THREAD.get() != Some(&thread::current().id()) {
        on_mpi_thread();
    }
}

pub(super) fn on_mpi_thread() {
    assert_eq!(
        MPI_THREAD.get(),
        Some(&thread::current().id()),
        "every MPI call of offshoot is made on its MPI thread",
    );
}

/// Turns a return code into a result.
fn check(call: &'static str, code: c_int) -> Result<(), MpiError> {
    if code == ffi::MPI_SUCCESS as c_int {
        return Ok(());
    }
    let mut text = [0 as c_char; ffi::MPI_MAX_ERROR_STRING as usize + 1];
    let mut length = 0;
    // SAFETY: the buffer has MPI_MAX_ERROR_STRING characters, as MPI-4.1 §9.3 asks.
    let described = unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr(), &mut length) };
    let text = if described == ffi::MPI_SUCCESS as c_int {
        // SAFETY: MPI_Error_string wrote a terminated string; the last byte is ours and zero.
        unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().trim().to_owned()
    } else {
        "an error without a description".to_owned()
    };
    Err(MpiError { call, code, text })
}

/// The class of an error code, which is what the standard's constants name.
fn class_of(code: c_int) -> c_int {
    let mut class = code;
    // SAFETY: it takes any code and writes an integer; on failure the code stays what it is.
    unsafe { ffi::MPI_Error_class(code, &mut class) };
    class
}

/// Has calls that belong to no communicator of ours (`MPI_Info_set`, `MPI_Testsome`) return their errors,
/// which MPI raises on a predefined communicator. Only where MPI is ours: a host may want it otherwise.
pub(crate) fn return_errors() -> Result<(), MpiError> {
    on_mpi_thread();
    const CALL: &str = "MPI_Comm_set_errhandler";
    // SAFETY: both communicators are valid while MPI is initialized, as is the predefined handler.
    unsafe {
        check(CALL, ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_SELF, ffi::RSMPI_ERRORS_RETURN))?;
        check(CALL, ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_WORLD, ffi::RSMPI_ERRORS_RETURN))
    }
}

/// Has the host's `MPI_Finalize` call this first, on the thread that called it: as the callback of an attribute of
/// `MPI_COMM_SELF` that is deleted (MPI-4.1 §11.2.4). Once per process.
pub(crate) fn call_before_finalize(act: fn()) -> Result<(), MpiError> {
    on_mpi_thread();
    let mut key = 0;
    // SAFETY: both callbacks have the signatures that MPI-4.1 §7.7.2 asks for; the key is written through the pointer.
    check("MPI_Comm_create_keyval", unsafe {
        ffi::MPI_Comm_create_keyval(Some(copy_nothing), Some(call_value), &mut key, ptr::null_mut())
    })?;
    // SAFETY: the key is new, and the value, a function, outlives everything.
    check("MPI_Comm_set_attr", unsafe {
        ffi::MPI_Comm_set_attr(ffi::RSMPI_COMM_SELF, key, act as *mut c_void)
    })
}

/// Duplicates of the communicator get no such attribute.
unsafe extern "C" fn copy_nothing(
    _comm: ffi::MPI_Comm,
    _key: c_int,
    _state: *mut c_void,
    _value: *mut c_void,
    _copy: *mut c_void,
    is_copied: *mut c_int,
) -> c_int {
    // SAFETY: MPI asks for an answer there (MPI-4.1 §7.7.2).
    unsafe { *is_copied = 0 };
    ffi::MPI_SUCCESS as c_int
}

/// Calls the function that is the attribute's value.
unsafe extern "C" fn call_value(
    _comm: ffi::MPI_Comm,
    _key: c_int,
    value: *mut c_void,
    _state: *mut c_void,
) -> c_int {
    // SAFETY: `call_before_finalize` has stored a `fn()` there, and nothing else has this key.
    unsafe { mem::transmute::<*mut c_void, fn()>(value)() };
    ffi::MPI_SUCCESS as c_int
}

/// How many processes MPI thinks that there could be (MPI-4.1 §11.10.1); it need not say.
pub(crate) fn universe_size() -> Result<Option<i32>, MpiError> {
    on_mpi_thread();
    let mut value = ptr::null_mut::<c_int>();
    let mut is_set = 0;
    // SAFETY: COMM_WORLD is valid while MPI is initialized; the attribute is a pointer to an integer, which is
    // written through the second pointer where `is_set` is (MPI-4.1 §11.10.1, §7.7.4).
    check("MPI_Comm_get_attr", unsafe {
        ffi::MPI_Comm_get_attr(
            ffi::RSMPI_COMM_WORLD,
            ffi::MPI_UNIVERSE_SIZE as c_int,
            (&raw mut value).cast::<c_void>(),
            &mut is_set,
        )
    })?;
    if is_set == 0 || value.is_null() {
        return Ok(None);
    }
    // SAFETY: it is set, so it points to an integer of the library's that lives as long as MPI does.
    Ok(Some(unsafe { *value }))
}

/// Publishes a port under a service name (MPI-4.1 §11.9.4). This call and the next are made beside the MPI thread:
/// that one may be in a spawn that waits for it, and MPI was initialized with `MPI_THREAD_MULTIPLE`.
pub(crate) fn publish(service: &CStr, port: &CStr) -> Result<(), MpiError> {
    // SAFETY: both strings are terminated and only read; MPI is initialized and allows several threads, or there
    // would be nothing spawned that asks for this.
    check("MPI_Publish_name", unsafe {
        ffi::MPI_Publish_name(service.as_ptr(), ffi::RSMPI_INFO_NULL, port.as_ptr())
    })
}

/// Takes back what was published under a service name (MPI-4.1 §11.9.4). Where nothing was, whoever keeps the names says
/// so, or not; it has been asked in any case.
pub(crate) fn unpublish(service: &CStr, port: &CStr) -> Result<(), MpiError> {
    // SAFETY: as for `publish`; and MPI is not finalized before those who call this have been told not to.
    check("MPI_Unpublish_name", unsafe {
        ffi::MPI_Unpublish_name(service.as_ptr(), ffi::RSMPI_INFO_NULL, port.as_ptr())
    })
}

/// The name of a port of this process, which is closed again.
pub(crate) fn port_name() -> Result<String, MpiError> {
    let port = Port::open()?;
    let name = port.name().to_string_lossy().into_owned();
    port.close()?;
    Ok(name)
}

/// A port of this process (MPI-4.1 §11.9.1), open until it is closed.
pub(crate) struct Port {
    name: [c_char; ffi::MPI_MAX_PORT_NAME as usize + 1],
    _here: PhantomData<*const ()>,
}

impl Port {
    pub(crate) fn open() -> Result<Self, MpiError> {
        on_mpi_thread();
        let mut name = [0 as c_char; ffi::MPI_MAX_PORT_NAME as usize + 1];
        // SAFETY: the buffer has MPI_MAX_PORT_NAME characters, as MPI-4.1 §11.9.1 asks, and the last byte is ours.
        check("MPI_Open_port", unsafe { ffi::MPI_Open_port(ffi::RSMPI_INFO_NULL, name.as_mut_ptr()) })?;
        Ok(Self { name, _here: PhantomData })
    }

    pub(crate) fn name(&self) -> &CStr {
        // SAFETY: the library has written a terminated string there, or our own last byte ends it.
        unsafe { CStr::from_ptr(self.name.as_ptr()) }
    }

    /// From now on the library may give its number to another one.
    pub(crate) fn close(self) -> Result<(), MpiError> {
        on_mpi_thread();
        // SAFETY: it is the name of an open port; a terminated string.
        check("MPI_Close_port", unsafe { ffi::MPI_Close_port(self.name.as_ptr()) })
    }
}

/// Ends MPI in this process. Collective over everything still connected: only call it when every
/// communicator that was made is disconnected.
pub(crate) fn finalize() -> Result<(), MpiError> {
    on_mpi_thread();
    // SAFETY: MPI is initialized (the caller owns a `Comm` or did) and this is the thread that did it.
    check("MPI_Finalize", unsafe { ffi::MPI_Finalize() })
}

/// Keys and values for MPI calls that take hints.
pub(crate) struct Info {
    raw: ffi::MPI_Info,
    _here: PhantomData<*const ()>,
}

impl Info {
    pub(crate) fn new() -> Result<Self, MpiError> {
        on_spawning_thread();
        let mut raw = MaybeUninit::uninit();
        // SAFETY: MPI_Info_create writes a handle where it succeeds (MPI-4.1 §10).
        check("MPI_Info_create", unsafe { ffi::MPI_Info_create(raw.as_mut_ptr()) })?;
        // SAFETY: it succeeded.
        Ok(Self { raw: unsafe { raw.assume_init() }, _here: PhantomData })
    }

    pub(crate) fn set(&mut self, key: &CStr, value: &CStr) -> Result<(), MpiError> {
        on_spawning_thread();
        // SAFETY: both are terminated strings, which MPI copies (MPI-4.1 §10).
        check("MPI_Info_set", unsafe { ffi::MPI_Info_set(self.raw, key.as_ptr(), value.as_ptr()) })
    }
}

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: `raw` is a live handle of ours; freeing it twice is impossible.
        let _ = unsafe { ffi::MPI_Info_free(&mut self.raw) };
    }
}

/// A communicator of our own: the duplicate of `COMM_SELF`, or an intercommunicator. Never
/// `COMM_WORLD`. Dropping it does nothing: freeing and disconnecting are collective.
pub(crate) struct Comm {
    raw: ffi::MPI_Comm,
    _here: PhantomData<*const ()>,
}

impl Comm {
    fn own(raw: ffi::MPI_Comm) -> Result<Self, MpiError> {
        let comm = Self { raw, _here: PhantomData };
        // SAFETY: `raw` is a live communicator; the predefined handler is valid on any (MPI-4.1 §9.3).
        check("MPI_Comm_set_errhandler", unsafe {
            ffi::MPI_Comm_set_errhandler(comm.raw, ffi::RSMPI_ERRORS_RETURN)
        })?;
        Ok(comm)
    }

    /// A duplicate of `COMM_SELF`, from which workers are spawned.
    pub(crate) fn duplicate_self() -> Result<Self, MpiError> {
        on_mpi_thread();
        let mut raw = MaybeUninit::uninit();
        // SAFETY: COMM_SELF is valid while MPI is initialized; duplicating it involves nobody else.
        check("MPI_Comm_dup", unsafe { ffi::MPI_Comm_dup(ffi::RSMPI_COMM_SELF, raw.as_mut_ptr()) })?;
        // SAFETY: it succeeded.
        Self::own(unsafe { raw.assume_init() })
    }

    /// The intercommunicator to the process that spawned this one, if one did. Call it once: each
    /// call returns the same communicator, and each owner would disconnect it.
    pub(crate) fn parent() -> Result<Option<Self>, MpiError> {
        on_mpi_thread();
        let mut raw = MaybeUninit::uninit();
        // SAFETY: MPI_Comm_get_parent writes a handle where it succeeds (MPI-4.1 §11.8).
        check("MPI_Comm_get_parent", unsafe { ffi::MPI_Comm_get_parent(raw.as_mut_ptr()) })?;
        // SAFETY: it succeeded, and RSMPI_COMM_NULL is a constant of the C shim.
        let (raw, null) = unsafe { (raw.assume_init(), ffi::RSMPI_COMM_NULL) };
        if raw == null { Ok(None) } else { Self::own(raw).map(Some) }
    }

    /// Starts one process and returns the intercommunicator to it. Blocks until the process has
    /// initialized MPI.
    pub(crate) fn spawn(&self, command: &CStr, arguments: &[CString], info: &Info) -> Result<Self, MpiError> {
        on_spawning_thread();
        const CALL: &str = "MPI_Comm_spawn";
        let mut argv: Vec<*mut c_char> =
            arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        argv.push(ptr::null_mut());
        let mut raw = MaybeUninit::uninit();
        let mut spawned: c_int = 0;
        // SAFETY: command and arguments are terminated and outlive the call, the argument array ends
        // with a null pointer, one error code is asked for one process (MPI-4.1 §11.8); MPI writes
        // to none of the strings, `*mut` is the C binding's lack of const.
        let code = unsafe {
            ffi::MPI_Comm_spawn(
                command.as_ptr(),
                argv.as_mut_ptr(),
                1,
                info.raw,
                0,
                self.raw,
                raw.as_mut_ptr(),
                &mut spawned,
            )
        };
        check(CALL, code)?;
        check(CALL, spawned)?;
        // SAFETY: both codes say that it succeeded.
        Self::own(unsafe { raw.assume_init() })
    }

    /// Waits for one process that connects to this port, and returns the intercommunicator to it (MPI-4.1 §11.9.2).
    pub(crate) fn accept(&self, port: &CStr, info: &Info) -> Result<Self, MpiError> {
        on_mpi_thread();
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the name is a terminated string, which is only read; the communicator has one process, which is its root.
        check("MPI_Comm_accept", unsafe {
            ffi::MPI_Comm_accept(port.as_ptr(), info.raw, 0, self.raw, raw.as_mut_ptr())
        })?;
        // SAFETY: it succeeded.
        Self::own(unsafe { raw.assume_init() })
    }

    /// Number of processes on the other side; 0 if this is no intercommunicator.
    pub(crate) fn remote_size(&self) -> Result<i32, MpiError> {
        on_mpi_thread();
        let (mut inter, mut size) = (0, 0);
        // SAFETY: `raw` is a live communicator.
        check("MPI_Comm_test_inter", unsafe { ffi::MPI_Comm_test_inter(self.raw, &mut inter) })?;
        if inter == 0 {
            return Ok(0);
        }
        // SAFETY: `raw` is a live intercommunicator.
        check("MPI_Comm_remote_size", unsafe { ffi::MPI_Comm_remote_size(self.raw, &mut size) })?;
        Ok(size)
    }

    /// This process's rank on its own side.
    pub(crate) fn rank(&self) -> Result<i32, MpiError> {
        on_mpi_thread();
        let mut rank = 0;
        // SAFETY: `raw` is a live communicator.
        check("MPI_Comm_rank", unsafe { ffi::MPI_Comm_rank(self.raw, &mut rank) })?;
        Ok(rank)
    }

    /// The next message from rank 0 of the other side, whatever its tag, if one has arrived. It stays where it is until
    /// [`Operations::receive`] takes it.
    ///
    /// Not a matched probe (`MPI_Improbe`): on Intel MPI 2021.17 each of those keeps a reference to the
    /// communicator, which can then never be disconnected. This thread alone receives here, so what is
    /// found is what the next receive matches (MPI-4.1 §3.5, order).
    pub(crate) fn probe(&self) -> Result<Option<Arrived>, MpiError> {
        on_mpi_thread();
        let mut found = 0;
        let mut status = MaybeUninit::<ffi::MPI_Status>::uninit();
        // SAFETY: `raw` is live; the status is written where `found` is set (MPI-4.1 §3.8.1); RSMPI_ANY_TAG is a
        // constant of the C shim.
        check("MPI_Iprobe", unsafe {
            ffi::MPI_Iprobe(0, ffi::RSMPI_ANY_TAG, self.raw, &mut found, status.as_mut_ptr())
        })?;
        if found == 0 {
            return Ok(None);
        }
        let mut length: c_int = 0;
        // SAFETY: a message was found, so the status is set.
        check("MPI_Get_count", unsafe {
            ffi::MPI_Get_count(status.as_ptr(), ffi::RSMPI_UINT8_T, &mut length)
        })?;
        // SAFETY: as above.
        let tag = unsafe { status.assume_init_ref() }.MPI_TAG;
        Ok(Some(Arrived { tag, length: usize::try_from(length).unwrap_or(0) }))
    }

    /// Closes the connection. Collective and blocking: the other side must do the same, and nothing
    /// may be in flight. Never for a worker that is lost.
    pub(crate) fn disconnect(mut self) -> Result<(), MpiError> {
        on_mpi_thread();
        // SAFETY: `raw` is a live communicator, given up here.
        check("MPI_Comm_disconnect", unsafe { ffi::MPI_Comm_disconnect(&mut self.raw) })
    }

    /// Frees a duplicate of `COMM_SELF`, which concerns nobody else.
    pub(crate) fn free(mut self) -> Result<(), MpiError> {
        on_spawning_thread();
        // SAFETY: `raw` is a live communicator, given up here.
        check("MPI_Comm_free", unsafe { ffi::MPI_Comm_free(&mut self.raw) })
    }

    /// Gives it to another thread.
    pub(crate) fn hand_over(self) -> Transferred {
        Transferred { raw: self.raw }
    }
}

/// A communicator on its way from one thread to another.
pub(crate) struct Transferred {
    raw: ffi::MPI_Comm,
}

// SAFETY: a handle is good in every thread of a process whose MPI has MPI_THREAD_MULTIPLE (MPI-4.1 §11.6), without
// which nothing spawns beside the MPI thread; and this one is in one place at a time.
unsafe impl Send for Transferred {}

impl Transferred {
    pub(crate) fn take(self) -> Comm {
        Comm { raw: self.raw, _here: PhantomData }
    }
}

/// A message that a probe has found: the next one of its communicator.
pub(crate) struct Arrived {
    pub(crate) tag: i32,
    length: usize,
}

/// Operations under way, each with its buffer and a label that says what it is for.
///
/// A buffer stays here until MPI says that it is done with it; those of operations that can no
/// longer end (their peer is lost) are leaked, because MPI may still touch them.
pub(crate) struct Operations<L> {
    raw: Vec<ffi::MPI_Request>,
    owned: Vec<(L, Memory)>,
    indices: Vec<c_int>,
    statuses: Vec<ffi::MPI_Status>,
    _here: PhantomData<*const ()>,
}

/// What an operation reads or writes.
enum Memory {
    /// What is sent. Others may have it, too, and nobody changes it.
    Out(Bytes),
    /// What is received, behind the bytes that are there already, and how long it is.
    In(Vec<u8>, usize),
}

/// An operation that ended: its label, and what was received, which is nothing if something was sent.
pub(crate) struct Completed<L> {
    pub(crate) label: L,
    pub(crate) result: Result<Received, MpiError>,
}

impl Memory {
    fn bytes(&self) -> usize {
        match self {
            Self::Out(bytes) => bytes.len(),
            Self::In(_, coming) => *coming,
        }
    }

    /// What has come, when the operation has ended well.
    fn into_received(self) -> Received {
        match self {
            Self::Out(bytes) => {
                drop(bytes);
                Received::default()
            }
            Self::In(mut memory, came) => {
                // SAFETY: MPI has written so many bytes behind those that were there, where there is room for them.
                unsafe { memory.set_len(memory.len() + came) };
                Received { memory, came }
            }
        }
    }
}

/// What was received: the last `came` bytes of this memory.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) memory: Vec<u8>,
    pub(crate) came: usize,
}

impl<L: PartialEq> Operations<L> {
    pub(crate) fn new() -> Self {
        Self {
            raw: Vec::new(),
            owned: Vec::new(),
            indices: Vec::new(),
            statuses: Vec::new(),
            _here: PhantomData,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// How many bytes are to be moved by what is under way.
    pub(crate) fn bytes(&self) -> usize {
        self.owned.iter().map(|(_, memory)| memory.bytes()).sum()
    }

    /// Starts to send `bytes` to rank 0 of the other side, or gives them back if that cannot be done now.
    pub(crate) fn send(
        &mut self,
        comm: &Comm,
        tag: i32,
        bytes: Bytes,
        label: L,
    ) -> Result<Option<Bytes>, MpiError> {
        on_mpi_thread();
        let count = c_int::try_from(bytes.len()).map_err(|_| MpiError {
            call: "MPI_Isend",
            code: 0,
            text: format!("a frame of {} bytes is more than one message may have", bytes.len()),
        })?;
        let mut request = MaybeUninit::uninit();
        // SAFETY: the bytes do not move when their handle does, and one is kept in `owned` until the request ends
        // (MPI-4.1 §3.7).
        let started = check("MPI_Isend", unsafe {
            ffi::MPI_Isend(
                bytes.as_ptr().cast::<c_void>(),
                count,
                ffi::RSMPI_UINT8_T,
                0,
                tag,
                comm.raw,
                request.as_mut_ptr(),
            )
        });
        match started {
            Ok(()) => {}
            Err(error) if error.is_momentary() => return Ok(Some(bytes)),
            Err(error) => {
                mem::forget(bytes);
                return Err(error);
            }
        }
        // SAFETY: it succeeded.
        self.keep(unsafe { request.assume_init() }, Memory::Out(bytes), label);
        Ok(None)
    }

    /// Starts to receive the message that a probe of this communicator has found, behind what is in `memory`.
    pub(crate) fn receive(
        &mut self,
        comm: &Comm,
        message: &Arrived,
        mut memory: Vec<u8>,
        label: L,
    ) -> Result<(), MpiError> {
        on_mpi_thread();
        let count = c_int::try_from(message.length).expect("the length came from an MPI count");
        memory.reserve_exact(message.length);
        let free = memory.spare_capacity_mut();
        process::prefer_large_pages(free);
        let mut request = MaybeUninit::uninit();
        // SAFETY: there is room for `count` bytes, which the probe promised; it does not move when the vector does, which
        // is kept in `owned`, untouched, until the request ends (MPI-4.1 §3.7).
        check("MPI_Irecv", unsafe {
            ffi::MPI_Irecv(
                free.as_mut_ptr().cast::<c_void>(),
                count,
                ffi::RSMPI_UINT8_T,
                0,
                message.tag,
                comm.raw,
                request.as_mut_ptr(),
            )
        })?;
        // SAFETY: it succeeded.
        self.keep(unsafe { request.assume_init() }, Memory::In(memory, message.length), label);
        Ok(())
    }

    fn keep(&mut self, request: ffi::MPI_Request, memory: Memory, label: L) {
        self.raw.push(request);
        self.owned.push((label, memory));
    }

    /// Makes progress and takes out the operations that ended.
    pub(crate) fn test_some(&mut self, mut ended: impl FnMut(Completed<L>)) -> Result<(), MpiError> {
        on_mpi_thread();
        if self.raw.is_empty() {
            return Ok(());
        }
        let count = c_int::try_from(self.raw.len()).expect("far fewer than 2^31 operations are under way");
        self.indices.resize(self.raw.len(), 0);
        // SAFETY: an all-zero status is a valid value of this C structure of integers.
        self.statuses.resize(self.raw.len(), unsafe { mem::zeroed() });
        let mut ended_count: c_int = 0;
        // SAFETY: all three arrays have `count` elements, the requests are live (MPI-4.1 §3.7.5).
        let code = unsafe {
            ffi::MPI_Testsome(
                count,
                self.raw.as_mut_ptr(),
                &mut ended_count,
                self.indices.as_mut_ptr(),
                self.statuses.as_mut_ptr(),
            )
        };
        let each_has_a_status = class_of(code) == ffi::MPI_ERR_IN_STATUS as c_int;
        if !each_has_a_status {
            check("MPI_Testsome", code)?;
        }
        // MPI_UNDEFINED, a negative number, means that no request was active.
        let ended_count = usize::try_from(ended_count).unwrap_or(0);
        let mut finished: Vec<(usize, c_int)> = (0..ended_count)
            .map(|at| {
                let code =
                    if each_has_a_status { self.statuses[at].MPI_ERROR } else { ffi::MPI_SUCCESS as c_int };
                (usize::try_from(self.indices[at]).expect("MPI returns indices into our array"), code)
            })
            .collect();
        // From the last to the first, so that removing one does not move those still to be removed.
        finished.sort_unstable_by_key(|&(index, _)| Reverse(index));
        for (index, code) in finished {
            self.raw.swap_remove(index);
            let (label, memory) = self.owned.swap_remove(index);
            let result = match check("MPI_Testsome", code) {
                Ok(()) => Ok(memory.into_received()),
                Err(error) => {
                    // It failed, but the library may not be done with its memory.
                    mem::forget(memory);
                    Err(error)
                }
            };
            ended(Completed { label, result });
        }
        Ok(())
    }

    /// Gives up the operations with this label. MPI may still touch their buffers: they are leaked.
    pub(crate) fn abandon(&mut self, label: &L) {
        let mut index = 0;
        while index < self.owned.len() {
            if self.owned[index].0 == *label {
                self.raw.swap_remove(index);
                let (_, buffer) = self.owned.swap_remove(index);
                mem::forget(buffer);
            } else {
                index += 1;
            }
        }
    }
}

impl<L> Drop for Operations<L> {
    fn drop(&mut self) {
        // Whatever has not ended may still be read or written by MPI.
        self.owned.drain(..).for_each(|(_, buffer)| mem::forget(buffer));
    }
}
