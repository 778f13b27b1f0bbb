//! The start record: how a program's arguments and environment reach its worker.
//!
//! `MPI_Comm_spawn` has no portable way to set an environment, and its arguments would show up among
//! the worker's own. So what is spawned gets one record as its arguments, and the first thing that it
//! does ([`init`](crate::init)) is to replace itself by the worker as it was asked for: same process,
//! clean arguments, the environment set. A later guard starts the worker as its child at this point.
//!
//! The record is cut into arguments of bounded length, because process managers pass them through
//! lines of bounded length.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::Program;
use crate::process;
use crate::wire::codec;
use crate::wire::frame::PROTOCOL_VERSION;

/// First argument of a process that was spawned by us.
const START_FLAG: &str = "--offshoot-start";
/// Set in the environment of a worker, and taken out again before anything of the user's runs.
const ROLE_VARIABLE: &str = "OFFSHOOT_ROLE";
const ROLE_WORKER: &str = "worker";
/// Characters in one argument: well below the 1,024 of the shortest line that we know.
const PIECE: usize = 500;

/// Characters in all arguments together. MPICH's process manager takes requests of 64 KiB, what stands
/// around each argument included; at a longer one it fails, and ends the host with itself.
pub(super) const RECORD_MAX: usize = 60_000;

/// What a process was started as.
pub(crate) enum Role {
    /// By its user.
    Host,
    /// By `MPI_Comm_spawn`, and it is now to serve.
    Worker,
}

#[derive(Serialize, Deserialize)]
struct Record {
    arguments: Vec<Vec<u8>>,
    variables: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The arguments to spawn a program with.
pub(crate) fn arguments(program: &Program) -> Vec<String> {
    let bytes = |text: &OsStr| text.as_bytes().to_vec();
    let record = Record {
        arguments: program.arguments().iter().map(|argument| bytes(argument)).collect(),
        variables: program.variables().iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
    };
    let mut encoded = vec![PROTOCOL_VERSION];
    codec::encode_head(&record, &mut encoded).expect("byte strings encode");
    let hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
    let pieces = hex.as_bytes().chunks(PIECE).map(|piece| String::from_utf8_lossy(piece).into_owned());
    std::iter::once(START_FLAG.to_owned()).chain(pieces).collect()
}

/// What this process was started as. Where it was spawned by us, it is replaced by the worker as it was
/// asked for, which then comes here again; that does not return.
pub(crate) fn role() -> Result<Role, String> {
    if env::var_os(ROLE_VARIABLE).is_some_and(|role| role == ROLE_WORKER) {
        // So that the programs that a task starts are not taken for workers.
        process::remove_variable(ROLE_VARIABLE);
        return Ok(Role::Worker);
    }
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != START_FLAG) {
        return Ok(Role::Host);
    }
    Err(become_worker(&decode(arguments)?))
}

fn decode(pieces: impl Iterator<Item = OsString>) -> Result<Record, String> {
    let hex: Vec<u8> = pieces.flat_map(OsString::into_vec).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let encoded: Option<Vec<u8>> = hex
        .chunks(2)
        .map(|pair| match pair {
            &[high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
            _ => None,
        })
        .collect();
    match encoded.as_deref() {
        Some([PROTOCOL_VERSION, record @ ..]) => {
            codec::decode_head(record).map_err(|error| format!("the start record {error}"))
        }
        Some([theirs, ..]) => Err(format!(
            "the host speaks protocol version {theirs}, this worker {PROTOCOL_VERSION}: build both with the same offshoot"
        )),
        Some([]) | None => Err("the start record is not one: was this process started by hand?".to_owned()),
    }
}

/// Replaces this process by the worker. Returns only what went wrong.
fn become_worker(record: &Record) -> String {
    let executable = match env::current_exe() {
        Ok(path) => path,
        Err(error) => return format!("this executable's own path is not to be had: {error}"),
    };
    let text = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
    let error = Command::new(&executable)
        .args(record.arguments.iter().map(text))
        .envs(record.variables.iter().map(|(name, value)| (text(name), text(value))))
        .env(ROLE_VARIABLE, ROLE_WORKER)
        .exec();
    format!("`{}` could not be started again as a worker: {error}", executable.display())
}
