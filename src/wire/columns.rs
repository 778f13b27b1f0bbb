//! The heads of many messages in one frame, close together: what neighbours have in common is said once for all of them,
//! and numbers take as many bytes as they need.
//!
//! ```text
//! tasks    run: first task, kind, attempt, count      then of each: length of the arguments
//! answers  run: first task, count                     then of each: nanoseconds, end; of a failure, its length and itself
//! end      0: skipped, 1: failed, else the length of the result and two
//! ```
//!
//! The tasks of a run are numbered one after the other. Numbers are written in groups of seven bits, the lowest first.

use std::time::Duration;

use super::WireError;
use super::codec;
use super::message::{AnswerMessage, Failure, Outcome, TaskMessage, WireKind};
use super::payload::Payload;
use crate::ids::TaskId;

const SKIPPED: u64 = 0;
const FAILED: u64 = 1;
const DONE: u64 = 2;

/// The heads of these tasks.
pub(super) fn of_tasks(tasks: &[TaskMessage]) -> Vec<u8> {
    let mut columns = Vec::with_capacity(32 + 2 * tasks.len());
    let is_next = |one: &TaskMessage, next: &TaskMessage| {
        one.task.0.checked_add(1) == Some(next.task.0) && one.kind == next.kind && one.attempt == next.attempt
    };
    for run in tasks.chunk_by(is_next) {
        let TaskMessage { task, kind, attempt, .. } = &run[0];
        for number in [task.0, kind.0.into(), (*attempt).into(), run.len() as u64] {
            put(&mut columns, number);
        }
        run.iter().for_each(|message| put(&mut columns, message.arguments.len() as u64));
    }
    columns
}

/// The tasks of these heads, with what `take` gives of so many bytes.
pub(super) fn to_tasks(
    mut columns: &[u8],
    mut take: impl FnMut(u64) -> Result<Payload, WireError>,
) -> Result<Vec<TaskMessage>, WireError> {
    let mut tasks = Vec::new();
    while !columns.is_empty() {
        let first = get(&mut columns)?;
        let (kind, attempt) = (WireKind(get_small(&mut columns)?), get_small(&mut columns)?);
        for task in run(first, &mut columns, &mut tasks)? {
            let arguments = take(get(&mut columns)?)?;
            tasks.push(TaskMessage { task, kind, attempt, arguments });
        }
    }
    Ok(tasks)
}

/// The heads of these answers.
pub(super) fn of_answers(answers: &[AnswerMessage]) -> Vec<u8> {
    let mut columns = Vec::with_capacity(32 + 4 * answers.len());
    let is_next = |one: &AnswerMessage, next: &AnswerMessage| one.task.0.checked_add(1) == Some(next.task.0);
    for run in answers.chunk_by(is_next) {
        put(&mut columns, run[0].task.0);
        put(&mut columns, run.len() as u64);
        for AnswerMessage { ran, outcome, .. } in run {
            put(&mut columns, u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX));
            match outcome {
                Outcome::Done(result) => put(&mut columns, (result.len() as u64).saturating_add(DONE)),
                Outcome::Skipped => put(&mut columns, SKIPPED),
                Outcome::Failed(failure) => {
                    put(&mut columns, FAILED);
                    put_failure(&mut columns, failure);
                }
            }
        }
    }
    columns
}

/// The answers of these heads, with what `take` gives of so many bytes.
pub(super) fn to_answers(
    mut columns: &[u8],
    mut take: impl FnMut(u64) -> Result<Payload, WireError>,
) -> Result<Vec<AnswerMessage>, WireError> {
    let mut answers = Vec::new();
    while !columns.is_empty() {
        let first = get(&mut columns)?;
        for task in run(first, &mut columns, &mut answers)? {
            let ran = Duration::from_nanos(get(&mut columns)?);
            let outcome = match get(&mut columns)? {
                SKIPPED => Outcome::Skipped,
                FAILED => Outcome::Failed(get_failure(&mut columns)?),
                length => Outcome::Done(take(length - DONE)?),
            };
            answers.push(AnswerMessage { task, ran, outcome });
        }
    }
    Ok(answers)
}

/// How many tasks follow the first one, and room for them: each takes a byte at least of what is left.
fn run<M>(
    first: u64,
    columns: &mut &[u8],
    room: &mut Vec<M>,
) -> Result<impl Iterator<Item = TaskId> + use<M>, WireError> {
    let count = get(columns)?;
    let end = first.checked_add(count).ok_or(WireError::Columns)?;
    if count == 0 || count > columns.len() as u64 {
        return Err(WireError::Columns);
    }
    room.reserve(count as usize);
    Ok((first..end).map(TaskId))
}

fn put_failure(columns: &mut Vec<u8>, failure: &Failure) {
    let mut encoded = Vec::new();
    codec::encode_head(failure, &mut encoded).expect("our own message heads encode");
    put(columns, encoded.len() as u64);
    columns.extend_from_slice(&encoded);
}

fn get_failure(columns: &mut &[u8]) -> Result<Failure, WireError> {
    let length = usize::try_from(get(columns)?).map_err(|_| WireError::Columns)?;
    let (encoded, rest) = columns.split_at_checked(length).ok_or(WireError::Columns)?;
    *columns = rest;
    codec::decode_head(encoded).map_err(|_| WireError::Columns)
}

#[inline]
fn put(columns: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        columns.push(number as u8 | 0x80);
        number >>= 7;
    }
    columns.push(number as u8);
}

#[inline]
fn get(columns: &mut &[u8]) -> Result<u64, WireError> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (&byte, rest) = columns.split_first().ok_or(WireError::Columns)?;
        *columns = rest;
        let group = u64::from(byte & 0x7f);
        if shift > 63 || group << shift >> shift != group {
            return Err(WireError::Columns);
        }
        number |= group << shift;
        if byte < 0x80 {
            return Ok(number);
        }
        shift += 7;
    }
}

fn get_small(columns: &mut &[u8]) -> Result<u32, WireError> {
    u32::try_from(get(columns)?).map_err(|_| WireError::Columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let numbers = (0..64).flat_map(|shift| [1 << shift, (1 << shift) - 1, u64::MAX >> shift]);
        for number in numbers {
            let mut columns = Vec::new();
            put(&mut columns, number);
            let mut rest = &columns[..];
            assert_eq!(get(&mut rest).ok(), Some(number));
            assert!(rest.is_empty());
            assert!(get(&mut &columns[..columns.len() - 1]).is_err(), "{number} is cut short");
        }
    }

    #[test]
    fn numbers_beyond_64_bits_are_refused() {
        assert!(get(&mut &[0xff; 10][..]).is_err());
        assert!(get(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02][..]).is_err());
        assert!(get(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00][..]).is_err());
    }

    #[test]
    fn neighbours_take_little() {
        let task = |task| {
            let task = TaskId(task);
            TaskMessage { task, kind: WireKind(3), attempt: 1, arguments: Payload::default() }
        };
        let tasks: Vec<_> = (1_000_000..1_001_000).map(task).collect();
        assert!(of_tasks(&tasks).len() < 1_010);
    }

    #[test]
    fn more_than_came_is_refused_before_there_is_room_for_it() {
        let mut columns = Vec::new();
        for number in [7, 1 << 40] {
            put(&mut columns, number);
        }
        assert!(matches!(to_answers(&columns, |_| Ok(Payload::default())), Err(WireError::Columns)));
        let mut columns = Vec::new();
        for number in [u64::MAX, 2, 0, 0, 0, 0] {
            put(&mut columns, number);
        }
        assert!(to_answers(&columns, |_| Ok(Payload::default())).is_err(), "there are no such tasks");
    }
}
