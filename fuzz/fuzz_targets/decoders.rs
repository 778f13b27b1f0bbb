//! Gives the decoder that OFFSHOOT_DECODER names, or each of them, whatever bytes the fuzzer makes up. What must hold is
//! said in the library, `src/fuzzing.rs`, and tried by its tests too; `scripts/fuzz.sh` runs this.
#![no_main]

use std::env;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static DECODER: OnceLock<Option<String>> = OnceLock::new();
    let decoder = DECODER.get_or_init(|| env::var("OFFSHOOT_DECODER").ok());
    offshoot::fuzzing::try_decoders(decoder.as_deref(), bytes);
});
