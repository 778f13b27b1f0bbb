//! The codec: how values become bytes and come back. The only file that knows `bincode`.
//!
//! Two configurations: *heads* (our own protocol structures: small integers, packed) and *values*
//! (users' arguments and results: integers as they lie in memory, which is several times faster for
//! numeric arrays). Both are decoded with a limit that grows with the message, because one of ten bytes that claims a huge
//! string would otherwise abort the process, and both refuse bytes left over after the value.
//!
//! No type of our own protocol is recursive: a recursive one could overflow the stack, limit or not.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Names the encoding of heads and values; host and worker compare it in the hello.
pub(crate) const CODEC_ID: &str = "bincode-2/le/heads-varint/values-fixint";

/// Decodes under a limit of some sixteen times what came. `bincode` counts the bytes that it reads, integers of one byte as
/// eight, and makes room for as many bytes as a string says that it has; and its limits are constants.
macro_rules! decode_within_limit {
    ($bytes:expr, $config:expr) => {
        match $bytes.len() {
            0..=0x1_0000 => bincode::serde::decode_from_slice($bytes, $config.with_limit::<0x10_0000>()),
            0..=0x10_0000 => bincode::serde::decode_from_slice($bytes, $config.with_limit::<0x100_0000>()),
            0..=0x100_0000 => bincode::serde::decode_from_slice($bytes, $config.with_limit::<0x1000_0000>()),
            0..=0x1000_0000 => {
                bincode::serde::decode_from_slice($bytes, $config.with_limit::<0x1_0000_0000>())
            }
            _ => bincode::serde::decode_from_slice($bytes, $config.with_limit::<0x4_0000_0000>()),
        }
    };
}

/// A value could not be turned into bytes, or bytes were not the value that they should be.
#[derive(Debug, Error)]
pub(crate) enum CodecError {
    #[error("cannot be encoded: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    #[error("cannot be decoded: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    #[error("cannot be decoded: {left} of {total} bytes are left over after the value")]
    Trailing { left: usize, total: usize },
}

/// Encodes a structure of our own protocol at the end of `buffer`.
pub(crate) fn encode_head<T: Serialize>(head: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(head, buffer, bincode::config::standard())?;
    Ok(())
}

/// Decodes a structure of our own protocol, which must fill `bytes` exactly.
pub(crate) fn decode_head<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let decoded = decode_within_limit!(bytes, bincode::config::standard());
    exactly(decoded?, bytes)
}

/// Encodes a user's value.
pub(crate) fn encode_value<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let config = bincode::config::standard().with_fixed_int_encoding();
    Ok(bincode::serde::encode_to_vec(value, config)?)
}

/// Decodes a user's value, which must fill `bytes` exactly.
pub(crate) fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let decoded = decode_within_limit!(bytes, bincode::config::standard().with_fixed_int_encoding());
    exactly(decoded?, bytes)
}

fn exactly<T>((value, used): (T, usize), bytes: &[u8]) -> Result<T, CodecError> {
    if used == bytes.len() {
        Ok(value)
    } else {
        Err(CodecError::Trailing { left: bytes.len() - used, total: bytes.len() })
    }
}
