//! What Open MPI does through its PMIx, and MPI has no call for: values that are no texts, and the news that a launcher has
//! ended. A process whose MPI has no PMIx has none of these functions, so they are looked up by name.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::mem;
use std::os::raw::c_void;
use std::ptr;

use super::ffi::on_mpi_thread;

/// What PMIx calls the loss of the connection to its server, and what says that an event needs nobody else's care
/// (PMIx standard 4.1, §3.1.1 and §9.1).
const PMIX_ERR_LOST_CONNECTION: c_int = -61;
const PMIX_EVENT_ACTION_COMPLETE: c_int = -334;

/// How long a key of PMIx may be, its end included, and what it calls bytes (PMIx standard 4.1, §3.2 and §3.3).
const PMIX_KEY_BYTES: usize = 512;
const PMIX_BYTE_OBJECT: u16 = 27;

/// A key and its value, as PMIx 3 and 4 have them (PMIx standard 4.1, §3.2.8 and §3.2.10).
#[repr(C)]
struct PmixInfo {
    key: [u8; PMIX_KEY_BYTES],
    flags: u32,
    value: PmixValue,
}

/// The largest that may stand in one is two pointers and a character.
#[repr(C)]
struct PmixValue {
    kind: u16,
    bytes: *const u8,
    length: usize,
    _rest: usize,
}

/// A function of PMIx that this process has, if it has one of this name.
fn pmix_function(name: &CStr) -> *mut c_void {
    // SAFETY: a name that is looked for among the libraries that this process has.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if !found.is_null() {
        return found;
    }
    // MPI may have loaded it for itself alone.
    // SAFETY: nothing is loaded that is not there already; the handle is kept for ever.
    unsafe {
        let library = libc::dlopen(c"libpmix.so.2".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if library.is_null() { ptr::null_mut() } else { libc::dlsym(library, name.as_ptr()) }
    }
}

/// Publishes bytes under a name, which MPI cannot: `MPI_Publish_name` knows texts. Called beside the MPI thread, as
/// `publish` is.
pub(crate) fn publish_bytes(name: &CStr, bytes: &[u8]) -> Result<(), String> {
    type Publish = unsafe extern "C" fn(*const PmixInfo, usize) -> c_int;
    let publish = pmix_function(c"PMIx_Publish");
    if publish.is_null() {
        return Err("this process has no PMIx of its own".to_owned());
    }
    let name = name.to_bytes();
    let mut key = [0; PMIX_KEY_BYTES];
    key.get_mut(..name.len()).ok_or("the name is too long")?.copy_from_slice(name);
    if name.len() == PMIX_KEY_BYTES {
        return Err("the name is too long".to_owned());
    }
    let value = PmixValue { kind: PMIX_BYTE_OBJECT, bytes: bytes.as_ptr(), length: bytes.len(), _rest: 0 };
    let info = PmixInfo { key, flags: 0, value };
    // SAFETY: the PMIx standard (4.1, §6.2) gives the function of this name this signature. It only reads what it is given,
    // and returns when that is published. MPI has initialized PMIx, which allows any thread to call it.
    let status = unsafe { mem::transmute::<*mut c_void, Publish>(publish)(&raw const info, 1) };
    if status == 0 { Ok(()) } else { Err(format!("PMIx_Publish failed with status {status}")) }
}

/// What a handler of PMIx events calls at its end: what came of it, results and what frees them, of which there are none
/// here, and what the handler was given with it.
type Done = unsafe extern "C" fn(c_int, *mut c_void, usize, *const c_void, *mut c_void, *mut c_void);

/// A handler of PMIx events: number of its registration, what happened, to whom, what is told of it, and what handlers
/// before it had to say.
type Handler = unsafe extern "C" fn(
    usize,
    c_int,
    *const c_void,
    *mut c_void,
    usize,
    *mut c_void,
    usize,
    Option<Done>,
    *mut c_void,
);

/// Takes an event of PMIx: whoever would be asked next is not.
unsafe extern "C" fn take_event(
    _registration: usize,
    _status: c_int,
    _source: *const c_void,
    _info: *mut c_void,
    _info_length: usize,
    _results: *mut c_void,
    _results_length: usize,
    done: Option<Done>,
    data: *mut c_void,
) {
    if let Some(done) = done {
        // SAFETY: PMIx wants to be called back so, with what it has handed over.
        unsafe { done(PMIX_EVENT_ACTION_COMPLETE, ptr::null_mut(), 0, ptr::null(), ptr::null_mut(), data) };
    }
}

/// Has this process live on when the launcher ends to which its PMIx is connected: the handler that MPI has for all
/// events ends the process from within any later call. False if there is no PMIx in this process.
pub(crate) fn outlive_launcher() -> bool {
    on_mpi_thread();
    type Register = unsafe extern "C" fn(
        *mut c_int,
        usize,
        *mut c_void,
        usize,
        Handler,
        *const c_void,
        *mut c_void,
    ) -> c_int;
    let register = pmix_function(c"PMIx_Register_event_handler");
    if register.is_null() {
        return false;
    }
    let mut codes = [PMIX_ERR_LOST_CONNECTION];
    // SAFETY: the PMIx standard (4.1, §9.1) gives the function of this name this signature; without a callback it
    // returns when the handler is registered, so that the codes need not outlive the call. MPI has initialized PMIx.
    let registered = unsafe {
        let register = mem::transmute::<*mut c_void, Register>(register);
        register(codes.as_mut_ptr(), 1, ptr::null_mut(), 0, take_event, ptr::null(), ptr::null_mut())
    };
    registered >= 0
}
