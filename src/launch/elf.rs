//! What an ELF file says that it needs to run. An executable may have hundreds of megabytes, debug information most of
//! all; what says this are a few kilobytes somewhere in it, and only those are read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use goblin::container::Ctx;
use goblin::elf::dynamic::Dynamic;
use goblin::elf::header::Header;
use goblin::elf::program_header::{PT_DYNAMIC, PT_INTERP, ProgramHeader};
use goblin::strtab::Strtab;

/// Nothing that is looked at is as long as this in a file that makes sense.
const PART_MAX: u64 = 64 << 20;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The loader, unless it is loaded by the kernel alone.
    pub(super) interpreter: Option<String>,
    /// The libraries that the file itself names.
    pub(super) libraries: Vec<String>,
}

/// What the file at `path` needs, whose beginning says `header`.
pub(super) fn needs(path: &Path, header: &Header) -> io::Result<Needs> {
    let file = File::open(path)?;
    let context = Ctx::new(header.container().map_err(damaged)?, header.endianness().map_err(damaged)?);
    let count = usize::from(header.e_phnum);
    let table = part(&file, header.e_phoff, (count * ProgramHeader::size(context)) as u64)?;
    let mut segments = ProgramHeader::parse(&table, 0, count, context).map_err(damaged)?;
    let interpreter = segments.iter().find(|segment| segment.p_type == PT_INTERP);
    let interpreter =
        interpreter.map(|segment| part(&file, segment.p_offset, segment.p_filesz)).transpose()?;
    let name = |bytes: Vec<u8>| Some(strings(&bytes).ok()?.get_at(0)?.to_owned());
    Ok(Needs {
        interpreter: interpreter.and_then(name),
        libraries: libraries(&file, &mut segments, context)?,
    })
}

fn libraries(file: &File, segments: &mut [ProgramHeader], context: Ctx) -> io::Result<Vec<String>> {
    let Some(dynamic) = segments.iter_mut().find(|segment| segment.p_type == PT_DYNAMIC) else {
        return Ok(Vec::new());
    };
    let entries = part(file, dynamic.p_offset, dynamic.p_filesz)?;
    // It is parsed in the part, not in the file.
    dynamic.p_offset = 0;
    let Some(dynamic) = Dynamic::parse(&entries, segments, context).map_err(damaged)? else {
        return Ok(Vec::new());
    };
    let names = part(file, dynamic.info.strtab as u64, dynamic.info.strsz as u64)?;
    let libraries = dynamic.get_libraries(&strings(&names)?);
    Ok(libraries.into_iter().map(str::to_owned).collect())
}

/// Names, each with a zero behind it.
fn strings(bytes: &[u8]) -> io::Result<Strtab<'_>> {
    Strtab::parse(bytes, 0, bytes.len(), 0).map_err(damaged)
}

fn part(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    if length > PART_MAX {
        return Err(damaged(format!("a part of {length} bytes")));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use goblin::elf::Elf;

    use super::*;

    #[test]
    fn it_is_what_the_whole_file_says() {
        for path in ["/proc/self/exe", "/bin/sh"] {
            let bytes = fs::read(path).expect("it can be read");
            let whole = Elf::parse(&bytes).expect("it is a program");
            let needs = needs(Path::new(path), &whole.header).expect("it makes sense");
            assert_eq!(needs.interpreter.as_deref(), whole.interpreter, "{path}");
            assert_eq!(needs.libraries, whole.libraries, "{path}");
            assert!(!needs.libraries.is_empty(), "{path} is linked with libc at least");
        }
    }

    #[test]
    fn a_file_that_ends_early_or_claims_too_much_is_an_error() {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let path = folder.path().join("damaged");
        let bytes = fs::read("/bin/sh").expect("there is a shell");
        let header = Elf::parse_header(&bytes).expect("it is a program");
        for length in [0, 64, 256, 4096] {
            fs::write(&path, &bytes[..length]).expect("the folder can be written");
            assert!(needs(&path, &header).is_err(), "{length} bytes are not enough");
        }
        let mut far = header;
        far.e_phoff = u64::MAX - 10;
        assert!(needs(Path::new("/bin/sh"), &far).is_err());
    }
}
