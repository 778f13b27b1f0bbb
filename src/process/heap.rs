//! Memory that this process has to itself: how much of it is kept, and in which pages it comes.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::raw::c_void;

use rustix::mm::{Advice, madvise};

/// Has this process keep the memory that it frees, in place of handing it back piece by piece: it is for the next large
/// message, and to have each page of it made anew takes longer than to fill it.
pub(crate) fn keep_freed_memory() {
    // SAFETY: it changes numbers that the allocator goes by. Where that does not know them nothing happens.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}

/// Hands back what memory was kept so and is free.
pub(crate) fn give_back_freed_memory() {
    // SAFETY: it takes free memory from the allocator only.
    unsafe { libc::malloc_trim(0) };
}

/// From so many bytes on, memory is asked for in large pages.
const LARGE: usize = 4 << 20;
/// The unit in which the system takes advice, or a multiple of it.
const PAGE: usize = 1 << 16;

/// Has the system make this memory, when it is first written, in the largest pages that it has. One of four KiB after the
/// other takes several times as long as a copy to memory that is there.
pub(crate) fn prefer_large_pages<T>(memory: &mut [MaybeUninit<T>]) {
    let bytes = size_of_val(memory);
    if bytes < LARGE {
        return;
    }
    let start = memory.as_mut_ptr().cast::<c_void>();
    let skipped = start.addr().next_multiple_of(PAGE) - start.addr();
    let whole = (bytes - skipped) / PAGE * PAGE;
    // SAFETY: it is a part of that memory, and the advice changes neither what is in it nor who may use it. Where the system
    // does not take it, pages are small.
    let _ = unsafe { madvise(start.byte_add(skipped), whole, Advice::LinuxHugepage) };
}
