//! Names of ports, made without the library: how it names this process in them, and numbers of our own.
//!
//! `MPI_Open_port` fails where the process has a longer address than fits into `MPI_MAX_PORT_NAME`, as it has with the
//! transport of MPICH's own choice, and keeps one of its 2048 numbers for ever each time. What a port is called matters to
//! others only: who accepts there reads no more than the number.

use std::ffi::CString;

const NUMBER: &[u8] = b"tag#";
const END: u8 = b'$';
/// The library itself counts from 0 to 2047.
const FIRST: u32 = 1 << 12;
/// Of a number this much is told apart by every transport.
const LIMIT: u32 = 1 << 17;

/// Names of ports of this process, no two alike.
#[derive(Debug)]
pub(crate) struct PortNames {
    next: u32,
    /// What follows the number.
    address: Vec<u8>,
}

impl PortNames {
    /// Names like this one of the library's, if that is as expected.
    pub(super) fn like(name: &[u8]) -> Option<Self> {
        let rest = name.strip_prefix(NUMBER)?;
        let digits = rest.iter().position(|byte| *byte == END)?;
        let (number, address) = rest.split_at(digits);
        let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
        // An address, too, is a key, a value and an end.
        let is_address = address.len() > 2 && address.ends_with(&[END]) && !address.contains(&0);
        (is_number && is_address).then(|| Self { next: FIRST, address: address.to_vec() })
    }
}

impl Iterator for PortNames {
    type Item = CString;

    fn next(&mut self) -> Option<CString> {
        let number = Some(self.next).filter(|number| *number < LIMIT)?;
        self.next += 1;
        CString::new([NUMBER, number.to_string().as_bytes(), &self.address].concat()).ok()
    }
}
