//! The wire: what travels between host and worker, as bytes. No I/O happens here, but that large arrays are read from the memory of
//! the process that lends them.
//!
//! `codec` turns values into bytes, and `payload` is what these lie in; `array` is what is lent, and `memory` what it lies in. `frame` is
//! the unit that travels, `flow` in what portions, `message` is what is said, with the heads of many in `columns`; `control` is what guards and their parent say to each other, and `marker` what a worker's output has in it
//! for its guard. Whatever comes from the other side is the world: each decoder returns an error, none panics.

mod array;
mod bulk;
pub(crate) mod codec;
mod columns;
pub(crate) mod control;
pub(crate) mod flow;
pub(crate) mod frame;
mod input;
pub(crate) mod marker;
mod memory;
pub(crate) mod message;
pub(crate) mod owned;
pub(crate) mod parent;
pub(crate) mod payload;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

pub(crate) use array::Array;
pub(crate) use frame::WireError;
pub(crate) use memory::{Memory, tidy};

#[cfg(test)]
pub(crate) mod tests;
