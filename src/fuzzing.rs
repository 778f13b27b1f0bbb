//! Every decoder of bytes that another process has sent, for the tests and for the fuzzer (`fuzz/`): what is to hold of
//! it, by name, and how much memory it may take. The properties themselves stand beside the decoders.
//!
//! Not here, because there is nothing to decode: news of a worker to its guard (single bytes, each of which is one or
//! means nothing), the page that a worker shares with its guard (words that are only compared), beats and credits
//! (frames like others, or empty).

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::{guard, launch, transport, wire};

/// A property of a decoder: it panics if it does not hold.
type Property = fn(&[u8]);

/// One for each decoder.
pub(crate) const DECODERS: &[(&str, Property)] = &[
    ("to_worker", wire::properties::to_worker),
    ("from_worker", wire::properties::from_worker),
    ("to_guard", wire::properties::to_guard),
    ("from_guard", wire::properties::from_guard),
    ("to_parent", wire::properties::to_parent),
    ("from_parent", wire::properties::from_parent),
    ("packet", wire::properties::packet),
    ("value", wire::properties::value),
    ("control_stream", wire::properties::control_stream),
    ("portions", wire::properties::portions),
    ("frames_in_portions", wire::properties::frames_in_portions),
    ("marks", wire::properties::marks),
    ("output", guard::output_property),
    ("address", transport::stream::address_property),
    ("record", launch::record_property),
];

/// Bytes of memory for each byte that came. The least that an answer takes on the wire are three bytes, and in memory
/// some 160, as what was decoded and as what is made of it; and a list that grows has up to twice the room it needs.
const MEMORY_PER_BYTE: u64 = 512;
/// Bytes that are fine in any case: a list for which its sender claims a great length begins with a mebibyte at most.
const MEMORY_AT_LEAST: u64 = 4 << 20;

/// Gives these bytes to a decoder, and counts what memory it takes.
///
/// # Panics
/// If its property does not hold, or if it takes more memory than these bytes justify.
pub(crate) fn check(property: Property, bytes: &[u8]) {
    // What counts does not take it well if a panic comes through.
    let mut ended = Ok(());
    let taken =
        allocation_counter::measure(|| ended = catch_unwind(AssertUnwindSafe(|| property(bytes)))).bytes_max;
    ended.unwrap_or_else(|panic| resume_unwind(panic));
    let justified = MEMORY_AT_LEAST + MEMORY_PER_BYTE * bytes.len() as u64;
    assert!(taken <= justified, "{} bytes made it take {taken} bytes of memory", bytes.len());
}

/// Gives these bytes to the decoder of this name, or to all.
///
/// # Panics
/// As `check` does, and if there is no such decoder.
#[cfg(fuzzing)]
pub fn try_decoders(name: Option<&str>, bytes: &[u8]) {
    let mut chosen = DECODERS.iter().filter(|(known, _)| name.is_none_or(|name| name == *known)).peekable();
    assert!(chosen.peek().is_some(), "no decoder has this name: {name:?}");
    chosen.for_each(|(_, property)| check(*property, bytes));
}

#[cfg(test)]
mod tests;
