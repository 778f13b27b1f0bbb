//! Grow MPI workers on demand from any ordinary process, and get their results back as futures.
//!
//! A process that nobody started with `mpirun` builds a [`Pool`], submits calls of functions that
//! [`tasks!`] declared, and holds [`Handle`]s. Behind the pool one thread spawns workers with
//! `MPI_Comm_spawn` when there is work for them, and retires them when there is none. The threads that
//! submit never make an MPI call.
//!
//! ```no_run
//! offshoot::tasks! {
//!     /// Sum of a vector.
//!     pub fn sum(values: Vec<f64>) -> f64 {
//!         Ok(values.iter().sum())
//!     }
//! }
//!
//! fn main() -> anyhow::Result<()> {
//!     offshoot::init(); // in a spawned worker, this does not return
//!     let pool = offshoot::Pool::builder().workers(0..=8).build()?;
//!     let one = pool.submit(sum(vec![1.0, 2.0]))?;
//!     println!("{}", one.wait()?);
//!     let chunks = (0..100).map(|i| vec![f64::from(i); 1000]);
//!     for total in pool.map(chunks.map(sum)) {
//!         println!("{}", total?);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! ARCHITECTURE.md in the repository is the map of what is inside.

// A client has no use for what is for workers.
#![cfg_attr(not(feature = "mpi"), allow(dead_code, unused_imports))]

#[doc(hidden)]
pub mod bench_support;
mod containment;
mod core;
#[cfg(feature = "mpi")]
mod diagnosis;
mod driver;
mod error;
mod finding;
#[cfg(all(test, feature = "mpi", not(fuzzing)))]
mod fuzzing;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "mpi")]
mod guard;
mod ids;
mod isolation;
#[cfg(feature = "mpi")]
mod launch;
#[cfg(not(feature = "mpi"))]
#[path = "launch/client.rs"]
mod launch;
#[cfg(feature = "mpi")]
mod parent;
mod pool;
mod process;
mod slots;
mod task;
mod transport;
mod wire;
pub mod worker;

pub use containment::Containment;
#[cfg(feature = "mpi")]
pub use diagnosis::{Diagnosis, Origin as VariableOrigin, Variable};
pub use error::{BuildError, Limit, Origin, Place, RejectReason, SpawnCause, SubmitError, TaskError};
pub use finding::{Finding, Status};
pub use ids::{ProgramId, TaskId, WorkerId};
pub use isolation::Isolation;
pub use launch::{Program, user_environment};
pub use pool::{AsCompleted, Builder, Handle, Indexed, Map, Pool, Stats, Unordered, as_completed};
pub use slots::{HostSlots, Slots, SlotsError, Source};
pub use task::{Call, Context, Definition, Registry, Task};
pub use transport::Output;
pub use worker::{init, init_with};

/// What the macros of this crate expand to. Not part of its interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::task::Linked;
    pub use anyhow;
    pub use inventory;
}
