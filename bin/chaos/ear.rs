//! Hears when the pool knows of a death: from what it logs of it, which names the process.

use std::fmt::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::ledger::now;

/// What a message says before the number of the process that has ended.
const MARK: &str = "its process ";

/// The deaths that were heard of: which process, and when.
static HEARD: Mutex<Vec<(u32, u64)>> = Mutex::new(Vec::new());

/// Listens from now on, for the life of this process.
pub(crate) fn listen() {
    // Where somebody listens already, there are no figures.
    let _ = tracing::subscriber::set_global_default(Ear);
}

/// Nanoseconds from a death at this time to when it was heard of, if it was.
pub(crate) fn detection(process: u32, died: u64) -> Option<u64> {
    heard().iter().find(|(heard, at)| *heard == process && *at >= died).map(|(_, at)| at - died)
}

fn heard() -> MutexGuard<'static, Vec<(u32, u64)>> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Ear;

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::WARN && metadata.target().starts_with("offshoot")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let at = now();
        let mut message = Message::default();
        event.record(&mut message);
        if let Some(process) = process_in(&message.0) {
            heard().push((process, at));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Memory cannot fail to be written.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

fn process_in(message: &str) -> Option<u32> {
    let (_, rest) = message.split_once(MARK)?;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::process_in;

    #[test]
    fn a_message_names_the_process() {
        let lost = "worker 3 is lost: its process 4711 at here was killed by SIGKILL";
        assert_eq!(process_in(lost), Some(4711));
        assert_eq!(process_in("worker 3 is lost: its guard ended without a word"), None);
        assert_eq!(process_in("its process "), None);
    }
}
