//! One program: its waiting tasks, its workers by what they can do, and what was measured of it.

use super::estimate::Mean;
use super::growth::Demand;
use super::health::Health;
use super::line::Line;
use super::queue::Queue;
use super::{Config, Time};

/// What the core knows of a program.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) queue: Queue,
    /// Workers that are starting.
    pub(super) starting: u32,
    /// Workers that finish what they hold and then leave.
    pub(super) draining: u32,
    /// Workers that take tasks, idle or busy, since they became ready.
    pub(super) ready: Line,
    /// Those that are idle, since they became so: first the least recently used.
    pub(super) idle: Line,
    /// Those that are busy, since their first task runs.
    pub(super) running: Line,
    /// Those that are busy and may be given another short task, in turn.
    pub(super) roomy: Line,
    /// Those that are busy and have tasks waiting behind another, since their windows were last looked at.
    pub(super) crowded: Line,
    pub(super) health: Health,
    /// Since when tasks have been waiting with no worker there, coming or draining.
    pub(super) starving_since: Option<Time>,
    /// What a task takes.
    pub(super) ran_mean: Option<Mean>,
    /// What it takes from spawn to ready.
    pub(super) spawn_mean: Mean,
}

impl Program {
    /// A program of which nothing is known.
    pub(super) fn new(config: &Config) -> Program {
        Program {
            queue: Queue::default(),
            starting: 0,
            draining: 0,
            ready: Line::default(),
            idle: Line::default(),
            running: Line::default(),
            roomy: Line::default(),
            crowded: Line::default(),
            health: Health::default(),
            starving_since: None,
            ran_mean: None,
            spawn_mean: Mean::of(config.spawn_guess),
        }
    }

    /// Workers that take tasks or soon will.
    pub(super) fn workers(&self) -> u32 {
        self.ready.len() + self.starting
    }

    /// Whether tasks wait with no worker that takes them, or soon will.
    pub(super) fn is_unserved(&self) -> bool {
        !self.queue.is_empty() && self.workers() == 0
    }

    /// What its growth depends on.
    pub(super) fn demand(&self, config: &Config) -> Demand {
        Demand {
            waiting: self.queue.len(),
            ready: self.ready.len(),
            starting: self.starting,
            ran_mean: self.ran_mean.map(Mean::nanos),
            spawn_mean: self.spawn_mean.nanos(),
            oldest_since: self.running.first().map(|(_, since)| since),
            patience: config.growth_patience,
        }
    }
}
