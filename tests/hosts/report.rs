//! What `worker.rs` can do; known to the hosts too.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a worker was started.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<Option<String>>,
    pub(crate) directory: PathBuf,
}

offshoot::tasks! {
    in "report";

    /// How the worker was started, as far as these variables go.
    pub(crate) fn start(names: Vec<String>) -> Start {
        Ok(Start {
            arguments: std::env::args().skip(1).collect(),
            variables: names.iter().map(|name| std::env::var(name).ok()).collect(),
            directory: std::env::current_dir()?,
        })
    }
}
