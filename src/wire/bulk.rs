//! Arrays of numbers inside values, copied in one piece, or taken as they are.
//!
//! serde hands over an array number by number, which takes as long as a network does. In the encoding of values
//! (`codec.rs`) numbers are as they lie in memory, so that an array is its length and its memory. A serializer and a
//! deserializer of this file stand before those of the codec: they pass everything on but vectors and slices of
//! numbers, wherever in a value these are, which they copy whole. What travels is the same as without them.
//!
//! What is such a vector is told by types: on the way out by that of the iterator that serde's `Vec<f64>` and `[f64]` hand
//! over, on the way in by that of the visitor with which its `Vec<f64>` asks for elements. Types of users that go through
//! them inherit it; those that do not are encoded as ever, and understood by the other side all the same.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::ptr;
use std::sync::OnceLock;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::frame::APART;
use super::input::Input;
use super::memory::Number;
use crate::process;

/// Calls a macro with every type of number whose encoding is its memory. On machines that have it the other way round
/// there is none.
macro_rules! for_each_number {
    ($call:ident $($argument:tt)*) => {
        #[cfg(target_endian = "little")]
        {
            $call!(u8 $($argument)*); $call!(i8 $($argument)*);
            $call!(u16 $($argument)*); $call!(i16 $($argument)*);
            $call!(u32 $($argument)*); $call!(i32 $($argument)*);
            $call!(u64 $($argument)*); $call!(i64 $($argument)*);
            $call!(u128 $($argument)*); $call!(i128 $($argument)*);
            $call!(f32 $($argument)*); $call!(f64 $($argument)*);
        }
    };
}

pub(super) use for_each_number;

/// The bytes that a value is encoded to. The codec writes into it, and so does this file, in turns.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: RefCell<Vec<u8>>,
    /// What was left out of them, if that is wanted.
    apart: Option<RefCell<Vec<Apart>>>,
}

/// An array that was left out.
#[derive(Debug)]
pub(super) struct Apart {
    /// Before which byte it belongs.
    pub(super) at: usize,
    /// Where it lay. It may not any more, so this is to be compared, and nothing else.
    pub(super) address: usize,
    pub(super) length: usize,
}

impl Output {
    /// One that leaves out large arrays.
    pub(super) fn without_arrays() -> Self {
        Self { bytes: RefCell::default(), apart: Some(RefCell::default()) }
    }

    /// The bytes, and what was left out of them, in its order.
    pub(super) fn into_parts(self) -> (Vec<u8>, Vec<Apart>) {
        (self.bytes.into_inner(), self.apart.map(RefCell::into_inner).unwrap_or_default())
    }

    fn append(&self, more: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        if let Some(apart) = self.apart.as_ref().filter(|_| more.len() >= APART) {
            let (address, length) = (more.as_ptr().addr(), more.len());
            return apart.borrow_mut().push(Apart { at: bytes.len(), address, length });
        }
        if bytes.capacity() - bytes.len() < more.len() {
            bytes.reserve(more.len());
            process::prefer_large_pages(bytes.spare_capacity_mut());
        }
        bytes.extend_from_slice(more);
    }
}

impl Apart {
    /// Whether it is this.
    pub(super) fn is(&self, memory: &[u8]) -> bool {
        self.address == memory.as_ptr().addr() && self.length == memory.len()
    }
}

impl io::Write for &Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.append(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A value on its way through this file.
pub(super) struct Outgoing<'a, T: ?Sized> {
    value: &'a T,
    output: &'a Output,
}

impl<'a, T: ?Sized> Outgoing<'a, T> {
    /// A value whose encoding goes to `output`, by a serializer that writes there, too.
    pub(super) fn new(value: &'a T, output: &'a Output) -> Self {
        Self { value, output }
    }
}

impl<T: Serialize + ?Sized> Serialize for Outgoing<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Passing { inner: serializer, beside: self.output })
    }
}

/// Passes on what it is told, or asked, beside the bytes that are written, or read.
struct Passing<'a, I, B> {
    inner: I,
    beside: &'a B,
}

/// The memory of an array of numbers, and how many there are, if that is what an iterator is over.
fn memory_of<I>(iterator: &I) -> Option<(usize, &[u8])> {
    macro_rules! try_type {
        ($number:ty) => {
            if typeid::of::<I>() == typeid::of::<&Vec<$number>>() {
                // SAFETY: but for its lifetime `I` is this type; the reference is copied out and lives as long as
                // `iterator`, which lives no longer than it does.
                let numbers: &[$number] = unsafe { *(&raw const *iterator).cast::<&Vec<$number>>() };
                return Some((numbers.len(), bytemuck::cast_slice(numbers)));
            }
            if typeid::of::<I>() == typeid::of::<&[$number]>() {
                // SAFETY: as above.
                let numbers: &[$number] = unsafe { *(&raw const *iterator).cast::<&[$number]>() };
                return Some((numbers.len(), bytemuck::cast_slice(numbers)));
            }
        };
    }
    for_each_number!(try_type);
    None
}

macro_rules! pass_on_serialize {
    ($($method:ident($type:ty);)*) => {$(
        fn $method(self, value: $type) -> Result<Self::Ok, Self::Error> {
            self.inner.$method(value)
        }
    )*};
}

impl<'a, S: Serializer> Serializer for Passing<'a, S, Output> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Passing<'a, S::SerializeSeq, Output>;
    type SerializeTuple = Passing<'a, S::SerializeTuple, Output>;
    type SerializeTupleStruct = Passing<'a, S::SerializeTupleStruct, Output>;
    type SerializeTupleVariant = Passing<'a, S::SerializeTupleVariant, Output>;
    type SerializeMap = Passing<'a, S::SerializeMap, Output>;
    type SerializeStruct = Passing<'a, S::SerializeStruct, Output>;
    type SerializeStructVariant = Passing<'a, S::SerializeStructVariant, Output>;

    pass_on_serialize! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_unit_struct(&'static str);
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Outgoing::new(value, self.beside))
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &Outgoing::new(value, self.beside))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_variant(name, index, variant, &Outgoing::new(value, self.beside))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        Ok(Passing { inner: self.inner.serialize_seq(length)?, beside: self.beside })
    }

    fn serialize_tuple(self, length: usize) -> Result<Self::SerializeTuple, S::Error> {
        Ok(Passing { inner: self.inner.serialize_tuple(length)?, beside: self.beside })
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        Ok(Passing { inner: self.inner.serialize_tuple_struct(name, length)?, beside: self.beside })
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let inner = self.inner.serialize_tuple_variant(name, index, variant, length)?;
        Ok(Passing { inner, beside: self.beside })
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        Ok(Passing { inner: self.inner.serialize_map(length)?, beside: self.beside })
    }

    fn serialize_struct(self, name: &'static str, length: usize) -> Result<Self::SerializeStruct, S::Error> {
        Ok(Passing { inner: self.inner.serialize_struct(name, length)?, beside: self.beside })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let inner = self.inner.serialize_struct_variant(name, index, variant, length)?;
        Ok(Passing { inner, beside: self.beside })
    }

    fn collect_seq<I>(self, iterator: I) -> Result<S::Ok, S::Error>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        if let Some((count, memory)) = memory_of(&iterator) {
            let done = self.inner.serialize_u64(count as u64)?;
            self.beside.append(memory);
            return Ok(done);
        }
        let mut iterator = iterator.into_iter();
        let (least, most) = iterator.size_hint();
        let mut sequence = self.serialize_seq(most.filter(|most| *most == least))?;
        iterator.try_for_each(|item| sequence.serialize_element(&item))?;
        sequence.end()
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! pass_on_elements {
    ($($compound:ident { $($method:ident($($key:ident: $type:ty)?);)* })*) => {$(
        impl<S: $compound> $compound for Passing<'_, S, Output> {
            type Ok = S::Ok;
            type Error = S::Error;

            $(fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($key: $type,)?
                value: &T,
            ) -> Result<(), S::Error> {
                self.inner.$method($($key,)? &Outgoing::new(value, self.beside))
            })*

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        }
    )*};
}

pass_on_elements! {
    SerializeSeq { serialize_element(); }
    SerializeTuple { serialize_element(); }
    SerializeTupleStruct { serialize_field(); }
    SerializeTupleVariant { serialize_field(); }
    SerializeMap { serialize_key(); serialize_value(); }
    SerializeStruct { serialize_field(key: &'static str); }
    SerializeStructVariant { serialize_field(key: &'static str); }
}

/// Decodes a value from `input`, by a deserializer that reads from there, too.
pub(super) fn decode<'de, T, D>(deserializer: D, input: &Input<'_>) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(Passing { inner: deserializer, beside: input })
}

/// How a vector of numbers is read, if that is what this visitor makes and it is serde's own: what another one makes of
/// numbers is its business.
fn vector_reader<'de, V, D>() -> Option<ReadVector<V::Value, D, D::Error>>
where
    V: Visitor<'de>,
    D: Deserializer<'de>,
{
    macro_rules! try_type {
        ($number:ty) => {{
            static VISITOR: OnceLock<Option<TypeId>> = OnceLock::new();
            if *VISITOR.get_or_init(visitor_of::<$number>) == Some(typeid::of::<V>()) {
                return Some(|deserializer, input| {
                    let numbers = ManuallyDrop::new(read_numbers::<$number, D>(deserializer, input)?);
                    // SAFETY: `V` is the visitor of serde's `Vec` of these numbers, and that is its value, so that
                    // both are the same type. It is moved: the source is not dropped.
                    Ok(unsafe { mem::transmute_copy::<ManuallyDrop<Vec<$number>>, V::Value>(&numbers) })
                });
            }
        }};
    }
    for_each_number!(try_type);
    None
}

/// Reads one from the deserializer, which knows how many numbers there are, and from the input, which has them.
type ReadVector<T, D, E> = fn(D, &Input<'_>) -> Result<T, E>;

fn read_numbers<'de, N, D>(deserializer: D, input: &Input<'_>) -> Result<Vec<N>, D::Error>
where
    N: Number,
    D: Deserializer<'de>,
{
    input.read_array(u64::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// The numbers that lie in this memory, which need not be where numbers of this type may lie.
pub(super) fn copy_of<N: bytemuck::Pod>(memory: &[u8]) -> Vec<N> {
    let count = memory.len() / size_of::<N>();
    let mut numbers: Vec<N> = Vec::with_capacity(count);
    process::prefer_large_pages(numbers.spare_capacity_mut());
    // SAFETY: there is room for `count` numbers, which is new and so not where they come from; any bytes are numbers of
    // such a type.
    unsafe {
        ptr::copy_nonoverlapping(memory.as_ptr(), numbers.as_mut_ptr().cast::<u8>(), count * size_of::<N>());
        numbers.set_len(count);
    }
    numbers
}

/// The visitor with which serde's `Vec` of these asks for its elements.
fn visitor_of<T: de::DeserializeOwned>() -> Option<TypeId> {
    match Vec::<T>::deserialize(Probe) {
        Err(Found(visitor)) => visitor,
        Ok(_) => None,
    }
}

/// A deserializer that has nothing, and tells who has asked for a sequence.
struct Probe;

#[derive(Debug)]
struct Found(Option<TypeId>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing is there")
    }
}

impl std::error::Error for Found {}

impl de::Error for Found {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self(None)
    }
}

impl<'de> Deserializer<'de> for Probe {
    type Error = Found;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Found> {
        Err(Found(None))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Found> {
        Err(Found(Some(typeid::of::<V>())))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct tuple tuple_struct map struct enum identifier ignored_any
    }
}

macro_rules! pass_on_deserialize {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($argument,)* Passing { inner: visitor, beside: self.beside })
        }
    )*};
}

/// For what is no compound: nothing in it is of interest here.
macro_rules! hand_on_deserialize {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Passing<'_, D, Input<'_>> {
    type Error = D::Error;

    hand_on_deserialize! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32
        deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_unit deserialize_identifier
    }

    pass_on_deserialize! {
        deserialize_any();
        deserialize_ignored_any();
        deserialize_option();
        deserialize_map();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        match vector_reader::<V, D>() {
            Some(read) => read(self.inner, self.beside),
            None => self.inner.deserialize_seq(Passing { inner: visitor, beside: self.beside }),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_byte_buf(read_numbers::<u8, D>(self.inner, self.beside)?)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! pass_on_visit {
    ($($method:ident($type:ty);)*) => {$(
        fn $method<E: de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Passing<'_, V, Input<'_>> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    pass_on_visit! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Passing { inner: deserializer, beside: self.beside })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Passing { inner: deserializer, beside: self.beside })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Passing { inner: elements, beside: self.beside })
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Passing { inner: entries, beside: self.beside })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Passing { inner: variant, beside: self.beside })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Passing<'_, S, Input<'_>> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Passing { inner: deserializer, beside: self.beside })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Passing<'_, A, Input<'_>> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Passing { inner: seed, beside: self.beside })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Passing<'_, A, Input<'_>> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(Passing { inner: seed, beside: self.beside })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Passing { inner: seed, beside: self.beside })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'a, 'b, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Passing<'a, A, Input<'b>> {
    type Error = A::Error;
    type Variant = Passing<'a, A::Variant, Input<'b>>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(Passing { inner: seed, beside: self.beside })?;
        Ok((value, Passing { inner: variant, beside: self.beside }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Passing<'_, A, Input<'_>> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Passing { inner: seed, beside: self.beside })
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(length, Passing { inner: visitor, beside: self.beside })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Passing { inner: visitor, beside: self.beside })
    }
}
