//! Values that own one array, whose memory can be taken out of them: what is large is then sent from where it lies.
//!
//! Whether a value is one is asked by its type alone, and what is taken is owned: nothing here relies on how it encodes itself.

use std::any::Any;

use serde_bytes::ByteBuf;

use super::bulk::for_each_number;
use super::memory::Memory;

/// Shows each part of a value that may own an array.
pub(crate) type Show<T> = fn(&mut T, &mut dyn FnMut(&mut dyn Any));

/// The memory of the array that this value is, if it is one.
pub(super) fn memory_of(value: &dyn Any) -> Option<&[u8]> {
    macro_rules! try_type {
        ($number:ty) => {
            if let Some(numbers) = value.downcast_ref::<Vec<$number>>() {
                return Some(bytemuck::cast_slice(numbers));
            }
        };
    }
    for_each_number!(try_type);
    if let Some(bytes) = value.downcast_ref::<ByteBuf>() {
        return Some(bytes);
    }
    value.downcast_ref::<String>().map(String::as_bytes)
}

/// Takes the array that this value is out of it, if it is one, and leaves an empty one.
pub(super) fn take(value: &mut dyn Any) -> Option<Memory> {
    macro_rules! try_type {
        ($number:ty) => {
            if let Some(numbers) = value.downcast_mut::<Vec<$number>>() {
                return Some(Memory::of(std::mem::take(numbers)));
            }
        };
    }
    for_each_number!(try_type);
    if let Some(bytes) = value.downcast_mut::<ByteBuf>() {
        return Some(Memory::Bytes(std::mem::take(bytes).into_vec()));
    }
    value.downcast_mut::<String>().map(|text| Memory::Bytes(std::mem::take(text).into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_array_is_taken_where_it_lies() {
        let mut values: Vec<Box<dyn Any>> = vec![
            Box::new(vec![1_u8, 2]),
            Box::new(vec![1.5_f64, 2.5]),
            Box::new(vec![3_i128]),
            Box::new(ByteBuf::from(vec![4, 5, 6])),
            Box::new(String::from("text")),
        ];
        for value in &mut values {
            let memory = memory_of(&**value).expect("it is one");
            let (place, length) = (memory.as_ptr(), memory.len());
            let taken = take(&mut **value).expect("it is one");
            assert_eq!((taken.bytes().as_ptr(), taken.bytes().len()), (place, length));
            assert_eq!(memory_of(&**value).map(<[u8]>::len), Some(0));
        }
        let mut other = (vec![1_u8], 2);
        assert!(memory_of(&other).is_none() && take(&mut other).is_none());
    }
}
