//! Which mode a pool gets, embedded or isolated, and why.

use std::env;

use super::embedded;
use crate::error::BuildError;
use crate::isolation::{Isolation, VARIABLE};

/// What was decided: never `Auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) isolation: Isolation,
    pub(crate) reason: &'static str,
}

/// Decides for a pool that was asked to be so.
///
/// # Errors
/// If the environment variable says what makes no sense.
pub(crate) fn decide(asked: Isolation) -> Result<Decision, BuildError> {
    let chosen = match env::var(VARIABLE) {
        Ok(name) if asked == Isolation::Auto && !name.is_empty() => Some(
            name.parse().map_err(|error| BuildError::Setting(format!("the variable {VARIABLE}: {error}")))?,
        ),
        _ => None,
    };
    let (isolation, reason) = match (asked, chosen) {
        (Isolation::Auto, None | Some(Isolation::Auto)) => return Ok(decide_alone()),
        (Isolation::Auto, Some(chosen)) => (chosen, "the variable OFFSHOOT_ISOLATION says so"),
        (asked, _) => (asked, "the pool was built so"),
    };
    Ok(Decision { isolation, reason })
}

/// What is safe in this process.
pub(crate) fn decide_alone() -> Decision {
    match embedded::why_isolated() {
        Some(reason) => Decision { isolation: Isolation::Isolated, reason },
        None => Decision {
            isolation: Isolation::Embedded,
            reason: "nothing in this process speaks against its having the MPI",
        },
    }
}
