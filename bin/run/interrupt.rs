//! Ctrl-C and SIGTERM: the first is a wish, the second ends this process on the spot.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use crossbeam_channel::{Receiver, unbounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// The signals that come in.
pub(crate) fn signals() -> io::Result<Receiver<i32>> {
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Run in this order: at the first signal the flag is still down.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
        flag::register(signal, Arc::clone(&again))?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (told, wishes) = unbounded();
    let body = move || signals.forever().take_while(|signal| told.send(*signal).is_ok()).for_each(drop);
    thread::Builder::new().name("signals".to_owned()).spawn(body)?;
    Ok(wishes)
}
