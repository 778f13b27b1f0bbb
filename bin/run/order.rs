//! What travels between the host and a worker: the setting of all lines, one line, its report.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use signal_hook::low_level::signal_name;

/// What all lines have in common. Each worker gets it once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// The environment of the user, not that of the worker.
    pub(crate) environment: Vec<(ByteBuf, ByteBuf)>,
    pub(crate) directory: ByteBuf,
    /// How long a line may take.
    pub(crate) timeout: Option<Duration>,
    /// How often it is tried at most.
    pub(crate) tries_max: u32,
}

/// What became of a line that a worker had.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) worker: u64,
    pub(crate) host: String,
    /// All but the last have failed.
    pub(crate) tries: Vec<Try>,
    /// Of the last try.
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
}

/// One try of a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Try {
    /// When it began, since the beginning of 1970.
    pub(crate) start: Duration,
    pub(crate) took: Duration,
    pub(crate) end: End,
}

/// What a line wrote to one of its streams.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Captured {
    pub(crate) bytes: ByteBuf,
    /// How many more bytes it wrote, beyond the limit.
    pub(crate) dropped: u64,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Exited(i32),
    Signalled(i32),
    /// It took too long and was ended; by this signal, if it did not end itself when asked to.
    TimedOut(Option<i32>),
    /// It was no longer wanted and was ended, likewise.
    Cancelled(Option<i32>),
    /// There was no process.
    NotStarted(String),
}

impl Report {
    pub(crate) fn end(&self) -> Option<&End> {
        self.tries.last().map(|last| &last.end)
    }

    pub(crate) fn passed(&self) -> bool {
        self.end() == Some(&End::Exited(0))
    }
}

impl End {
    /// The exit code, of a line that ended by itself.
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Exited(code) => Some(*code),
            Self::Signalled(_) | Self::TimedOut(_) | Self::Cancelled(_) | Self::NotStarted(_) => None,
        }
    }

    /// The signal that ended it, by name.
    pub(crate) fn signal(&self) -> Option<String> {
        match self {
            Self::Signalled(number) | Self::TimedOut(Some(number)) | Self::Cancelled(Some(number)) => {
                Some(signal_name(*number).map_or_else(|| format!("SIG{number}"), str::to_owned))
            }
            Self::Exited(_) | Self::TimedOut(None) | Self::Cancelled(None) | Self::NotStarted(_) => None,
        }
    }
}
