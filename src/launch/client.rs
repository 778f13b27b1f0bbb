//! What is left of `launch` in a program without MPI (the feature `client` alone): it describes what to spawn, counts slots,
//! and starts parents, which have an MPI.

mod hosts;
mod isolated;
mod program;
mod roles;

pub(crate) use hosts::own_name;
pub(crate) use isolated::{parent_environment, remove_daemons_folders, remove_launchers_folders};
pub(crate) use program::Initializer;
pub use program::Program;
pub(crate) use roles::ROLE_VARIABLE;
pub use roles::user_environment;
