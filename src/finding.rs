//! What a check found: about this machine, or about an executable.

use std::fmt;

use serde::Serialize;

/// One thing that was looked at before anything is spawned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at, in a word or two: `launcher`, `temporary directory`.
    pub check: &'static str,
    /// How it is.
    pub status: Status,
    /// What was there.
    pub found: String,
    /// What to do about it, with a command to type where there is one.
    pub remedy: Option<String>,
}

/// How something is that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Workers can be spawned, but perhaps not as they should.
    Warning,
    /// Workers cannot be spawned.
    Failure,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, found: found.into(), remedy: None }
    }

    pub(crate) fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    pub(crate) fn failure(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Failure, found: found.into(), remedy: Some(remedy.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.found)?;
        self.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}
