//! The codec: how values become bytes and come back. The only file that knows `bincode`.
//!
//! Two configurations: *heads* (our own protocol structures: small integers, packed) and *values*
//! (users' arguments and results: integers as they lie in memory, which is several times faster for
//! numeric arrays). Both are decoded with a limit that grows with the message, because one of ten bytes that claims a huge
//! string would otherwise abort the process, and both refuse bytes left over after the value.
//!
//! No type of our own protocol is recursive: a recursive one could overflow the stack, limit or not.

use bincode::de::read::Reader;
use bincode::error::DecodeError;
use bincode::serde::OwnedSerdeDecoder;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::bulk::{self, Apart, Outgoing, Output};
use super::input::{Input, ReadError};
use super::memory::Memory;
use super::owned::{self, Show};
use super::payload::{Payload, Piece};

/// Names the encoding of heads and values; host and worker compare it in the hello.
pub(crate) const CODEC_ID: &str = "bincode-2/le/heads-varint/values-fixint";

/// Decodes under a limit of some sixteen times what came. `bincode` counts the bytes that it reads, integers of one byte as
/// eight, and makes room for as many bytes as a string says that it has; and its limits are constants.
macro_rules! within_limit {
    ($length:expr, $LIMIT:ident => $decode:block) => {
        match $length {
            0..=0x1_0000 => within_limit!(@ 0x10_0000, $LIMIT => $decode),
            0..=0x10_0000 => within_limit!(@ 0x100_0000, $LIMIT => $decode),
            0..=0x100_0000 => within_limit!(@ 0x1000_0000, $LIMIT => $decode),
            0..=0x1000_0000 => within_limit!(@ 0x1_0000_0000, $LIMIT => $decode),
            _ => within_limit!(@ 0x4_0000_0000, $LIMIT => $decode),
        }
    };
    (@ $bytes:literal, $LIMIT:ident => $decode:block) => {{
        const $LIMIT: usize = $bytes;
        $decode
    }};
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
    let config = bincode::config::standard();
    let decoded = within_limit!(bytes.len(), LIMIT => {
        bincode::serde::decode_from_slice(bytes, config.with_limit::<LIMIT>())
    });
    exactly(decoded?, bytes.len())
}

/// Encodes a user's value.
pub(crate) fn encode_value<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let output = Output::default();
    write_value(value, &output)?;
    Ok(output.into_parts().0)
}

fn write_value<T: Serialize>(value: &T, output: &Output) -> Result<(), CodecError> {
    let config = bincode::config::standard().with_fixed_int_encoding();
    bincode::serde::encode_into_std_write(Outgoing::new(value, output), &mut &*output, config)?;
    Ok(())
}

/// Encodes a user's value that is not needed any more: large arrays that it owns are not copied. The parts of the value that
/// may be one are shown.
pub(crate) fn encode_owned<T: Serialize>(mut value: T, show: Show<T>) -> Result<Payload, CodecError> {
    Ok(Draft::of(&mut value, show)?.finish(&mut value, show))
}

/// A value's encoding, from which large arrays may be missing that still lie in the value.
pub(crate) struct Draft {
    bytes: Vec<u8>,
    apart: Vec<Apart>,
}

impl Draft {
    /// Encodes a value, and leaves it as it is.
    pub(crate) fn of<T: Serialize>(value: &mut T, show: Show<T>) -> Result<Self, CodecError> {
        let output = Output::without_arrays();
        write_value(value, &output)?;
        let (bytes, apart) = output.into_parts();
        if apart.is_empty() {
            return Ok(Self { bytes, apart });
        }
        let mut owned = 0;
        show(value, &mut |part| {
            let memory = owned::memory_of(part).unwrap_or_default();
            owned += usize::from(apart.iter().any(|apart| apart.is(memory)));
        });
        if owned == apart.len() {
            return Ok(Self { bytes, apart });
        }
        // What cannot be taken out of the value is copied, and then everything is.
        Ok(Self { bytes: encode_value(value)?, apart: Vec::new() })
    }

    /// How many bytes it has, with what is missing.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.apart.iter().map(|apart| apart.length).sum::<usize>()
    }

    /// Takes what is missing out of the value.
    pub(crate) fn finish<T>(self, value: &mut T, show: Show<T>) -> Payload {
        let Self { bytes, apart } = self;
        if apart.is_empty() {
            return bytes.into();
        }
        let mut rest = Bytes::from(bytes);
        let mut arrays: Vec<Option<Memory>> = apart.iter().map(|_| None).collect();
        show(value, &mut |part| {
            let memory = owned::memory_of(part).unwrap_or_default();
            if let Some(index) = apart.iter().position(|apart| apart.is(memory)) {
                arrays[index] = owned::take(part);
            }
        });
        let mut begun = 0;
        let mut pieces = Vec::with_capacity(2 * apart.len());
        for (Apart { at, .. }, array) in apart.into_iter().zip(arrays) {
            pieces.push(Piece::Bytes(rest.split_to(at - begun)));
            pieces.push(Piece::array(array.expect("a value shows the same parts each time")));
            begun = at;
        }
        pieces.extend((!rest.is_empty()).then_some(Piece::Bytes(rest)));
        Payload::of(pieces)
    }
}

/// Decodes a user's value, which must fill `bytes` exactly.
#[cfg(any(test, fuzzing))]
pub(crate) fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_input(&Input::new(bytes, Vec::new()))
}

/// Decodes a user's value, which must fill the payload exactly. Large arrays are taken out of it where that is possible, and
/// fetched where they are.
pub(crate) fn decode_payload<T: DeserializeOwned>(payload: Payload) -> Result<T, CodecError> {
    let Payload { first, others } = payload;
    decode_input(&Input::new(&first, others.into_vec()))
}

fn decode_input<T: DeserializeOwned>(input: &Input<'_>) -> Result<T, CodecError> {
    let total = input.left();
    let config = bincode::config::standard().with_fixed_int_encoding();
    let value = within_limit!(total, LIMIT => {
        let mut decoder = OwnedSerdeDecoder::from_reader(Source(input), config.with_limit::<LIMIT>());
        bulk::decode(decoder.as_deserializer(), input)
    });
    // Whatever came of what was not there any more, that is why.
    input.check().map_err(|error| DecodeError::OtherString(error.to_string()))?;
    exactly((value?, total - input.left()), total)
}

/// What `bincode` reads from, while others do, too.
struct Source<'a, 'b>(&'a Input<'b>);

impl Reader for Source<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), DecodeError> {
        self.0.read(bytes).map_err(|error| match error {
            ReadError::Short { .. } => {
                DecodeError::UnexpectedEnd { additional: bytes.len().saturating_sub(self.0.left()) }
            }
            ReadError::Remote(_) => DecodeError::OtherString(error.to_string()),
        })
    }

    fn peek_read(&mut self, count: usize) -> Option<&[u8]> {
        self.0.peek(count)
    }

    fn consume(&mut self, count: usize) {
        // Only what was seen is consumed.
        self.0.skip(count);
    }
}

fn exactly<T>((value, used): (T, usize), total: usize) -> Result<T, CodecError> {
    if used == total { Ok(value) } else { Err(CodecError::Trailing { left: total - used, total }) }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;
    use serde::de::{SeqAccess, Visitor};
    use serde::ser::SerializeSeq;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_bytes::ByteBuf;

    use super::*;

    /// As `bincode` alone has it.
    fn plainly<T: Serialize>(value: &T) -> Vec<u8> {
        let config = bincode::config::standard().with_fixed_int_encoding();
        bincode::serde::encode_to_vec(value, config).expect("it encodes")
    }

    fn plainly_back<T: DeserializeOwned>(bytes: &[u8]) -> T {
        let config = bincode::config::standard().with_fixed_int_encoding();
        bincode::serde::decode_from_slice(bytes, config).expect("it decodes").0
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, proptest_derive::Arbitrary)]
    struct Newtype(Vec<i16>);

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, proptest_derive::Arbitrary)]
    enum Shape {
        Unit,
        One(Vec<u128>),
        Two(Vec<i8>, Box<[u64]>),
        Named { wide: Vec<i128>, few: Option<Vec<f32>> },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, proptest_derive::Arbitrary)]
    struct Everything {
        bytes: Vec<u8>,
        floats: Vec<f64>,
        newtype: Newtype,
        shapes: Vec<Shape>,
        map: BTreeMap<String, Vec<u32>>,
        deque: VecDeque<i64>,
        words: Vec<String>,
        flags: Vec<bool>,
        letters: Vec<char>,
        nested: Vec<Vec<u16>>,
        array: [Vec<i32>; 2],
    }

    /// Not-a-number is not itself, so what is compared are bytes.
    fn agree(value: &Everything) {
        let encoded = encode_value(value).expect("it encodes");
        assert_eq!(encoded, plainly(value));
        let ours: Everything = decode_value(&encoded).expect("it is whole");
        assert_eq!(plainly(&ours), encoded);
        let theirs: Everything = plainly_back(&encoded);
        assert_eq!(plainly(&theirs), encoded);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn arrays_of_numbers_change_nothing_in_what_travels(value in any::<Everything>()) {
            agree(&value);
        }

        #[test]
        fn a_part_of_an_array_is_an_error(value in any::<(Vec<f64>, Vec<u8>)>(), cut in any::<prop::sample::Index>()) {
            let encoded = encode_value(&value).expect("it encodes");
            let part = &encoded[..cut.index(encoded.len())];
            prop_assert!(decode_value::<(Vec<f64>, Vec<u8>)>(part).is_err());
        }
    }

    #[test]
    fn large_arrays_that_a_value_owns_travel_from_where_they_lie() {
        let mut value = (vec![1.5_f64; 100_000], 7_u8, ByteBuf::from(vec![3; 1 << 20]), vec![1_u16, 2]);
        let show: Show<_> = |(numbers, _, bytes, few): &mut (Vec<f64>, u8, ByteBuf, Vec<u16>), show| {
            show(numbers);
            show(bytes);
            show(few);
        };
        let plain = plainly(&value);
        let places = [value.0.as_ptr().cast::<u8>(), value.2.as_ptr()];
        let draft = Draft::of(&mut value, show).expect("it encodes");
        assert_eq!((draft.len(), value.0.len()), (plain.len(), 100_000), "it is left as it is");
        let payload = draft.finish(&mut value, show);
        assert_eq!(payload.len(), plain.len());
        for place in places {
            assert!(payload.parts().any(|part| part.as_slice().as_ptr() == place), "an array was copied");
        }
        assert_eq!(payload.into_bytes(), plain);
    }

    #[test]
    fn large_arrays_that_cannot_be_taken_out_are_copied() {
        let value = Newtype(vec![-1; 1 << 20]);
        let payload = encode_owned(value.clone(), |value, show| show(value)).expect("it encodes");
        assert_eq!(
            (payload.arrays().count(), payload.len()),
            (1, plainly(&value).len()),
            "it is all one array"
        );
        assert_eq!(payload.into_bytes(), plainly(&value));
        let payload = encode_owned((value.0, 1), |(_, one), show| show(one)).expect("it encodes");
        assert_eq!(
            payload.arrays().map(|array| array.bytes().len()).collect::<Vec<_>>(),
            [payload.len()],
            "it was not shown"
        );
    }

    type Mixed = (u8, Vec<f64>, String, Vec<u16>, VecDeque<i64>);

    fn mixed() -> (Mixed, Payload) {
        let value: Mixed = (
            7,
            (0..100_000).map(f64::from).collect(),
            "é".repeat(300_000),
            vec![1, 2],
            (0..100_000).collect(),
        );
        let payload = encode_owned(value.clone(), |(_, numbers, text, few, _): &mut Mixed, show| {
            show(numbers);
            show(text);
            show(few);
        });
        (value, payload.expect("it encodes"))
    }

    #[test]
    fn large_arrays_are_taken_out_of_a_payload_as_they_are() {
        let (value, payload) = mixed();
        let places: Vec<_> = payload.arrays().map(|array| array.bytes().as_ptr().addr()).collect();
        assert_eq!(places.len(), 2);
        let again: Mixed = decode_payload(payload).expect("it is whole");
        assert_eq!(again, value);
        assert_eq!(again.1.as_ptr().addr(), places[0], "it was copied");
        // Of what somebody else has too, a copy is made.
        let (value, payload) = mixed();
        let other = payload.clone();
        assert_eq!(decode_payload::<Mixed>(payload).expect("it is whole"), value);
        assert_eq!(decode_payload::<Mixed>(other).expect("it is whole"), value);
    }

    #[test]
    fn arrays_are_read_as_what_they_are_not_too() {
        let numbers: Vec<u64> = (0..100_000).collect();
        let payload = || encode_owned(numbers.clone(), |value, show| show(value)).expect("it encodes");
        assert_eq!(decode_payload::<VecDeque<u64>>(payload()).expect("it is whole"), numbers);
        let halves = bytemuck::cast_slice::<u64, u32>(&numbers);
        // The length counts numbers, so a value of another type does not fill it.
        let error = decode_payload::<Vec<u32>>(payload()).expect_err("half of it is left");
        assert!(error.to_string().contains("left over"), "{error}");
        assert!(decode_payload::<Vec<u128>>(payload()).is_err());
        let twice = (2 * numbers.len() as u64).to_le_bytes().to_vec();
        let array = Piece::array(Memory::of(numbers.clone()));
        let payload = Payload::of(vec![Piece::Bytes(twice.into()), array]);
        assert_eq!(decode_payload::<Vec<u32>>(payload).expect("it is whole"), halves);
    }

    #[test]
    fn what_is_lent_is_read_where_it_is() {
        let (value, payload) = mixed();
        let remote = payload.lent();
        assert!(remote.is_remote() && remote.len() == payload.len());
        assert_eq!(decode_payload::<Mixed>(remote.clone()).expect("it is whole"), value);
        // All of a value that could not be taken apart, numbers and what is between them.
        let whole = Payload::from(plainly(&value));
        assert_eq!(decode_payload::<Mixed>(whole.lent()).expect("it is whole"), value);
        drop(payload);
        let error = decode_payload::<Mixed>(remote).expect_err("it was given back");
        assert!(error.to_string().contains("could not be read where they are"), "{error}");
    }

    #[test]
    fn a_length_that_nothing_follows_takes_no_memory() {
        for claim in [1, 1 << 40, u64::MAX / 8, u64::MAX] {
            let refused = decode_value::<Vec<f64>>(&claim.to_le_bytes()).expect_err("there are no numbers");
            assert!(refused.to_string().contains("longer than what came"), "{refused}");
        }
    }

    /// Something that comes by its numbers in its own way, out and in.
    #[derive(Debug, PartialEq)]
    struct Own(Vec<f64>);

    impl Serialize for Own {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut sequence = serializer.serialize_seq(Some(self.0.len()))?;
            self.0.iter().try_for_each(|number| sequence.serialize_element(number))?;
            sequence.end()
        }
    }

    impl<'de> Deserialize<'de> for Own {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            /// Makes the same type as serde's own visitor does, of other elements.
            struct Doubling;

            impl<'de> Visitor<'de> for Doubling {
                type Value = Vec<f64>;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("numbers")
                }

                fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<f64>, A::Error> {
                    let mut doubled = Vec::new();
                    while let Some(number) = elements.next_element::<f64>()? {
                        doubled.push(2.0 * number);
                    }
                    Ok(doubled)
                }
            }

            deserializer.deserialize_seq(Doubling).map(Self)
        }
    }

    #[test]
    fn what_goes_another_way_is_left_to_it() {
        let numbers = vec![1.0, 2.5, -3.0];
        let as_vector = encode_value(&numbers).expect("it encodes");
        let as_own = encode_value(&Own(numbers.clone())).expect("it encodes");
        assert_eq!(as_own, as_vector, "both sides need not go the same way");
        assert_eq!(decode_value::<Vec<f64>>(&as_own).expect("it is whole"), numbers);
        assert_eq!(decode_value::<Own>(&as_vector).expect("it is whole"), Own(vec![2.0, 5.0, -6.0]));
        assert_eq!(decode_value::<VecDeque<f64>>(&as_vector).expect("it is whole"), VecDeque::from(numbers));
    }
}
