//! Segments of shared memory that an MPI gives a name, so that processes of one job on one machine find them.
//!
//! A process that is killed leaves its segment behind, and megabytes of memory with it, until somebody removes
//! the name. A job of one process has nobody who would look for it: so the name goes as soon as it is mapped.

use std::fs;

use super::family::Family;
use super::installation::{mapped_files, own_maps};

const FOLDER: &str = "/dev/shm/";

/// Removes the names of the segments that this process, the only one of its job, has mapped.
pub(crate) fn unlink_segments() {
    let family = Family::of_this_process().filter(|family| !family.segments.is_empty());
    let Some(family) = family else { return };
    for path in ours(&own_maps(), family.segments) {
        // It may have gone since, with the one before: a segment is mapped in several parts.
        let _ = fs::remove_file(path);
    }
}

/// Removes the name of a segment that a process may have left that was killed while it initialized MPI, if the name of its
/// job, which had no other process, tells that.
pub(crate) fn unlink_segments_of(job: &str) {
    for prefix in Family::of_this_process().map_or(&[][..], |family| family.segments_of_job) {
        let _ = fs::remove_file(format!("{FOLDER}{prefix}{:x}_0", hash(job.as_bytes())));
    }
}

/// FNV-1a, by which MPICH names them.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619))
}

fn ours<'a>(maps: &'a str, prefixes: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let is_ours = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    mapped_files(maps).filter(move |path| path.strip_prefix(FOLDER).is_some_and(is_ours))
}

#[cfg(test)]
mod tests {
    use super::{hash, ours};

    #[test]
    fn names_are_hashed_as_the_library_does() {
        assert_eq!(hash(b""), 0x811c_9dc5);
        assert_eq!(hash(b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn only_segments_of_the_mpi_are_found() {
        let maps = "7f00-7f01 rw-s 00000000 00:1a 7   /dev/shm/mpich_shm_1f_0\n\
                    7f01-7f02 rw-s 00000000 00:1a 8   /dev/shm/of_the_host\n\
                    7f02-7f03 r--p 00000000 00:1a 9   /usr/lib/mpich_shm_lib.so\n\
                    7f03-7f04 rw-s 00000000 00:1a 7   /dev/shm/mpich_shm_1f_0 (deleted)\n";
        let found: Vec<_> = ours(maps, &["mpich_shm_"]).collect();
        assert_eq!(found, ["/dev/shm/mpich_shm_1f_0", "/dev/shm/mpich_shm_1f_0 (deleted)"]);
    }
}
