//! The memory of arrays, for whoever does not know of what numbers: it knows how wide they are, because memory has to be
//! given back as it was asked for.
//!
//! What large arrays leave is kept for a moment, for those that come: to have new memory made takes as long as to fill it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytemuck::Pod;

use super::frame::APART;
use crate::process;

/// A number whose encoding is its memory.
pub(super) trait Number: Pod {
    /// What stands for all numbers of this width.
    type Unit: Unit;
}

/// An unsigned number of each width.
pub(super) trait Unit: Pod {
    fn wrap(units: Vec<Self>) -> Memory;
    fn unwrap(memory: Memory) -> Result<Vec<Self>, Memory>;
}

macro_rules! define {
    ($($width:ident: $unit:ty = $($number:ty)*;)*) => {
        /// The memory of an array.
        #[derive(Debug)]
        pub(crate) enum Memory {
            $($width(Vec<$unit>),)*
        }

        $(
            impl Unit for $unit {
                fn wrap(units: Vec<Self>) -> Memory {
                    Memory::$width(units)
                }

                fn unwrap(memory: Memory) -> Result<Vec<Self>, Memory> {
                    if let Memory::$width(units) = memory { Ok(units) } else { Err(memory) }
                }
            }

            $(impl Number for $number {
                type Unit = $unit;
            })*
        )*

        impl Memory {
            /// New and empty.
            fn with_room(width: u8, bytes: usize) -> io::Result<Self> {
                $(if usize::from(width) == size_of::<$unit>() {
                    return new_units(bytes).map(Self::$width);
                })*
                Err(io::ErrorKind::InvalidData.into())
            }

            pub(super) fn bytes(&self) -> &[u8] {
                match self {
                    $(Self::$width(units) => bytemuck::cast_slice(units),)*
                }
            }

            /// How many bytes there is room for.
            fn room(&self) -> usize {
                match self {
                    $(Self::$width(units) => units.capacity() * size_of::<$unit>(),)*
                }
            }

            /// How many bytes a number has.
            pub(super) fn width(&self) -> u8 {
                match self {
                    $(Self::$width(_) => size_of::<$unit>() as u8,)*
                }
            }

            fn clear(&mut self) {
                match self {
                    $(Self::$width(units) => units.clear(),)*
                }
            }

            /// Appends so many bytes, whole numbers, of the memory of a process.
            pub(super) fn read(&mut self, pid: u32, address: u64, bytes: usize) -> io::Result<()> {
                match self {
                    $(Self::$width(units) => {
                        process::read_memory(pid, address, bytes / size_of::<$unit>(), units)
                    })*
                }
            }
        }
    };
}

define! {
    Bytes: u8 = u8 i8;
    Shorts: u16 = u16 i16;
    Words: u32 = u32 i32 f32;
    Doubles: u64 = u64 i64 f64;
    Quads: u128 = u128 i128;
}

fn new_units<U>(bytes: usize) -> io::Result<Vec<U>> {
    let mut units = Vec::new();
    units.try_reserve_exact(bytes.div_ceil(size_of::<U>())).map_err(|_| io::ErrorKind::OutOfMemory)?;
    process::prefer_large_pages(units.spare_capacity_mut());
    Ok(units)
}

impl Memory {
    /// That of these numbers.
    pub(super) fn of<N: Number>(numbers: Vec<N>) -> Self {
        N::Unit::wrap(bytemuck::cast_vec(numbers))
    }

    /// The numbers, if they are as wide as these.
    pub(super) fn into_numbers<N: Number>(self) -> Result<Vec<N>, Self> {
        N::Unit::unwrap(self).map(bytemuck::cast_vec)
    }

    /// An empty one for so many bytes of numbers of this width: what another array has left, or new.
    ///
    /// # Errors
    /// If no number is so wide, or if there is no memory.
    pub(super) fn find(width: u8, bytes: usize) -> io::Result<Self> {
        match take_spare(width, bytes) {
            Some(spare) => Ok(spare),
            None => Self::with_room(width, bytes),
        }
    }

    /// An empty one for so many of these numbers.
    pub(super) fn find_for<N: Number>(count: usize) -> io::Result<Vec<N>> {
        let memory = Self::find(size_of::<N>() as u8, count * size_of::<N>())?;
        Ok(memory.into_numbers().expect("it is that wide"))
    }

    /// It is not needed any more.
    pub(super) fn leave(mut self) {
        self.clear();
        let room = self.room();
        if !(APART..=SPARE_MAX).contains(&room) {
            return;
        }
        let mut dropped = Vec::new();
        let mut spares = SPARES.lock().unwrap_or_else(PoisonError::into_inner);
        spares.push((self, Instant::now()));
        // The oldest go first.
        while spares.iter().map(|(spare, _)| spare.room()).sum::<usize>() > SPARE_MAX {
            dropped.push(spares.remove(0));
        }
        HAS_SPARES.store(true, Ordering::Relaxed);
        drop(spares);
    }
}

/// At most so many bytes are kept.
const SPARE_MAX: usize = 256 << 20;
/// For so long, at most twice.
const SPARE_TIME: Duration = Duration::from_secs(1);

/// What arrays have left, and when.
static SPARES: Mutex<Vec<(Memory, Instant)>> = Mutex::new(Vec::new());
static HAS_SPARES: AtomicBool = AtomicBool::new(false);

/// Memory for so many bytes of this width, and for a quarter more at most: the user may keep it.
fn take_spare(width: u8, bytes: usize) -> Option<Memory> {
    if bytes < APART || !HAS_SPARES.load(Ordering::Relaxed) {
        return None;
    }
    let mut spares = SPARES.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |(spare, _): &(Memory, Instant)| {
        spare.width() == width && (bytes..=bytes + bytes / 4).contains(&spare.room())
    };
    let at = spares.iter().rposition(fits)?;
    Some(spares.remove(at).0)
}

/// Gives back what has been kept for long enough. When to come again, if something is left.
pub(crate) fn tidy() -> Option<Instant> {
    if !HAS_SPARES.load(Ordering::Relaxed) {
        return None;
    }
    let now = Instant::now();
    let mut spares = SPARES.lock().unwrap_or_else(PoisonError::into_inner);
    let old: Vec<_> =
        spares.extract_if(.., |(_, since)| now.saturating_duration_since(*since) > SPARE_TIME).collect();
    let is_empty = spares.is_empty();
    HAS_SPARES.store(!is_empty, Ordering::Relaxed);
    drop(spares);
    drop(old);
    (!is_empty).then(|| now + SPARE_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_one_width_share_memory() {
        let numbers = vec![1.5_f64, -2.0];
        let place = numbers.as_ptr().addr();
        let memory = Memory::of(numbers);
        assert_eq!((memory.width(), memory.bytes().len()), (8, 16));
        let memory = memory.into_numbers::<f32>().expect_err("they are not so wide");
        let integers: Vec<i64> = memory.into_numbers().expect("they are as wide");
        assert_eq!((integers[0], integers.as_ptr().addr()), (1.5_f64.to_bits() as i64, place));
        assert!(Memory::find(3, 100).is_err(), "no number is so wide");
        assert!(Memory::find(8, usize::MAX - 7).is_err(), "nobody has so much");
    }

    #[test]
    fn what_an_array_leaves_is_for_the_next() {
        // Of a length that no other test has.
        let bytes = (8 << 20) + 8 * 77;
        let left = Memory::of(Vec::<f64>::with_capacity(bytes / 8));
        let place = left.bytes().as_ptr().addr();
        left.leave();
        let place_of = |memory: io::Result<Memory>| memory.expect("there is room").bytes().as_ptr().addr();
        assert_ne!(place_of(Memory::find(4, bytes)), place, "it is not of that width");
        assert_ne!(place_of(Memory::find(8, bytes / 2)), place, "half of it would lie idle");
        assert_eq!(place_of(Memory::find(8, bytes - 16)), place);
    }
}
