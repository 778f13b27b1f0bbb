//! The scheduler: decides which worker gets which task, and when to spawn and retire workers.
//!
//! Pure: no I/O, clock, thread, channel, randomness or MPI. It is told what happened
//! ([`Scheduler::handle`]), asked what to do ([`Scheduler::poll`]) and asked when to be told the time
//! again ([`Scheduler::next_deadline`]). It owns ids and states, never payloads, and imports nothing of
//! ours but `crate::ids`. README.md beside this file explains states, timers and races.

mod alarm;
#[cfg(test)]
mod check;
#[cfg(test)]
mod complexity;
mod config;
mod deadline;
mod dispatch;
mod estimate;
mod event;
mod growth;
mod health;
mod lifecycle;
mod line;
mod meter;
mod population;
mod program;
mod queue;
mod recall;
#[cfg(test)]
mod scenarios;
mod scheduler;
#[cfg(test)]
mod sim;
mod stats;
mod table;
mod task;
mod time;
mod window;
mod worker;

pub(crate) use config::Config;
pub(crate) use event::{Action, Event, Resolution, ShutdownMode, Terms};
pub(crate) use scheduler::Scheduler;
pub(crate) use stats::Stats;
pub(crate) use table::Table;
pub(crate) use time::Time;
