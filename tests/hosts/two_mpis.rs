//! Hosts in whose process two MPIs meet: the one that they are linked with, and another one that they load and initialize.
#![allow(unsafe_code, reason = "nobody loads a library without it")]

use std::env;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use anyhow::{Context, bail, ensure};
use mpi::environment::library_version;
use offshoot::{Isolation, Pool, TaskError};

use crate::support::result;
use crate::tasks::double;

const MPI_THREAD_SINGLE: c_int = 0;

/// An MPI that was loaded.
struct Loaded(*mut c_void);

impl Loaded {
    /// None if there is no such library.
    fn open(path: &str) -> anyhow::Result<Option<Self>> {
        let path = CString::new(path)?;
        // Its own symbols come first to it: those of the other MPI have the same names.
        // SAFETY: the path is terminated; what a library does when it is loaded is what this is about.
        let library =
            unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_DEEPBIND) };
        Ok((!library.is_null()).then_some(Self(library)))
    }

    fn find(&self, name: &CStr) -> anyhow::Result<*mut c_void> {
        // SAFETY: the library is never closed, and the name is terminated.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        ensure!(!found.is_null(), "it has no {name:?}");
        Ok(found)
    }

    fn version(&self) -> anyhow::Result<String> {
        let (mut text, mut length) = ([0_u8; 8192], 0);
        // SAFETY: this is its type in every MPI, and the text has room for MPI_MAX_LIBRARY_VERSION_STRING of all of them.
        let code = unsafe {
            let get: extern "C" fn(*mut c_char, *mut c_int) -> c_int =
                std::mem::transmute(self.find(c"MPI_Get_library_version")?);
            get(text.as_mut_ptr().cast(), &mut length)
        };
        ensure!(code == 0, "it has no version: {code}");
        Ok(CStr::from_bytes_until_nul(&text)?.to_string_lossy().into_owned())
    }

    fn initialize(&self) -> anyhow::Result<()> {
        let mut provided = 0;
        // SAFETY: this is its type in every MPI; null pointers stand for the arguments of `main`.
        let code = unsafe {
            let initialize: extern "C" fn(*mut c_int, *mut c_void, c_int, *mut c_int) -> c_int =
                std::mem::transmute(self.find(c"MPI_Init_thread")?);
            initialize(ptr::null_mut(), ptr::null_mut(), MPI_THREAD_SINGLE, &mut provided)
        };
        ensure!(code == 0, "it cannot be initialized: {code}");
        Ok(())
    }

    fn finalize(&self) -> anyhow::Result<()> {
        // SAFETY: this is its type in every MPI.
        let code = unsafe {
            let finalize: extern "C" fn() -> c_int = std::mem::transmute(self.find(c"MPI_Finalize")?);
            finalize()
        };
        ensure!(code == 0, "it cannot be finalized: {code}");
        Ok(())
    }
}

/// The host uses the MPI that the argument names. That of its pool is the one that it was built with, in a parent.
pub(crate) fn the_host_loads_another_mpi() -> anyhow::Result<()> {
    let path = env::args().nth(2).context("name a library")?;
    let Some(other) = Loaded::open(&path)? else {
        println!("skipped: `{path}` cannot be loaded");
        return Ok(());
    };
    let family = |version: &str| version.split([' ', '(']).next().unwrap_or_default().to_owned();
    let (own, theirs) = (library_version().map_err(anyhow::Error::msg)?, other.version()?);
    if family(&own) == family(&theirs) {
        bail!("they are one MPI: {own}, {theirs}");
    }
    other.initialize()?;
    let pool = Pool::builder().workers(0..=2).build()?;
    let stats = pool.stats();
    ensure!(stats.isolation() == Isolation::Isolated, "{stats:?}");
    ensure!(stats.isolation_reason().contains("two MPI libraries"), "{stats:?}");
    let sum: Result<i64, TaskError> = pool.map((0..500).map(double)).sum();
    ensure!(sum? == 500 * 499);
    other.finalize()?;
    ensure!(result(pool.submit(double(21))?)? == 42, "what the host finalizes is its own");
    Ok(())
}
