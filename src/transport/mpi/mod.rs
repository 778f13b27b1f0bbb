//! Frames over MPI point-to-point, on intercommunicators that `MPI_Comm_spawn` made.
//!
//! `runtime` owns MPI in this process, `host` is the driver's end, `worker` the worker's, `traffic` what both do with
//! messages. `starts` has workers started: by calls of its own, of `spawner`, the thread for that, or, where the process
//! manager is ours, in the steps of `birth`; `places` knows which worker is on which host, `words` what to say of one that
//! has ended; `farewell` meets the end of an MPI that is the host's. `ffi` has the checked calls, and is the only file that
//! names `mpi::ffi`; `pmix` has what MPI has no call for.
//!
//! Nothing here uses `COMM_WORLD`, and no receive blocks: messages are probed for, received into
//! buffers of our own, and tested.

mod birth;
mod farewell;
mod ffi;
mod host;
mod nagle;
mod places;
mod pmix;
mod runtime;
mod spawner;
mod starts;
mod traffic;
mod words;
mod worker;

pub(crate) use farewell::{GRACE as FINALIZE_GRACE, Guest, is_finalized};
pub(crate) use host::MpiTransport;
pub(crate) use runtime::{Runtime, facts, finish_standing_in, initialize_worker, stand_in, why_unfit};
pub(crate) use starts::Terms;
pub(crate) use worker::MpiLink;
