//! What is told in the end: by the host to who watches it, and by that to people and programs.

use std::fs;

use offshoot::Stats;
use serde::{Deserialize, Serialize};

use super::fire::Deaths;
use super::ledger::{Executions, Ledger, Verdict};

/// What the host holds of what processes can run out of.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Resources {
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    /// Resident memory, KiB.
    pub(crate) memory_kib: u64,
}

impl Resources {
    pub(crate) fn of_this_process() -> Self {
        let count = |folder| fs::read_dir(folder).map_or(0, |entries| entries.count() as u64);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.and_then(|text| text.split_whitespace().next()?.parse().ok());
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            memory_kib: memory.unwrap_or(0),
        }
    }
}

/// What the host knows of itself.
pub(crate) struct Host {
    pub(crate) mpi: String,
    pub(crate) seed: u64,
    pub(crate) before: Resources,
    pub(crate) after: Resources,
    pub(crate) all_ended: bool,
}

/// Everything that is told. Times are milliseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// What the MPI library says of itself.
    pub(crate) mpi: String,
    pub(crate) seed: u64,
    /// What was not killed.
    pub(crate) spared: Vec<String>,
    pub(crate) submitted: u64,
    /// Tasks that came to an end, in whatever way.
    pub(crate) resolved: u64,
    /// Tasks that had no end, or an error where there was to be a result.
    pub(crate) lost: u64,
    /// Tasks that were executed again after their end, or twice although they may run only once.
    pub(crate) doubled: u64,
    /// Tasks with another end than the right one.
    pub(crate) wrong: u64,
    /// Tasks whose program was given up because no worker of it could be started.
    pub(crate) no_worker: u64,
    pub(crate) executed: u64,
    /// The most executions of one task.
    pub(crate) executions_max: u64,
    /// Workers and guards that were killed from outside.
    pub(crate) kills: u64,
    /// Ready workers that the pool has lost, those included that ended themselves.
    pub(crate) losses: u64,
    /// Workers that the pool has killed, because a task had to stop and did not.
    pub(crate) stops: u64,
    /// Workers that were started, but for the first.
    pub(crate) respawns: u64,
    pub(crate) spawn_failures: u64,
    /// From a death to the pool's knowing it.
    pub(crate) detect_ms_p50: Option<f64>,
    pub(crate) detect_ms_p99: Option<f64>,
    pub(crate) detections: u64,
    /// From a death to the next execution of the task that it interrupted.
    pub(crate) recover_ms_p50: Option<f64>,
    pub(crate) recover_ms_p99: Option<f64>,
    pub(crate) recoveries: u64,
    /// Isolated parents and daemons of the MPI that were killed.
    pub(crate) parents_killed: u64,
    pub(crate) daemons_killed: u64,
    /// From the death of a parent to the first ready worker of the next: the price of a restart.
    pub(crate) restart_ms_p50: Option<f64>,
    pub(crate) restart_ms_p99: Option<f64>,
    /// The host when it was warm, and at the end.
    pub(crate) before: Resources,
    pub(crate) after: Resources,
    /// Processes, temporary files and shared memory, two seconds after the host's end.
    pub(crate) left_behind: u64,
    /// How the host ended, if not well.
    pub(crate) host_failed: Option<String>,
}

impl Figures {
    pub(crate) fn of(
        host: &Host,
        ledger: &Ledger,
        stats: &Stats,
        detections: &[u64],
        deaths: &Deaths,
        executions: Executions,
    ) -> Self {
        let unresolved = ledger.submitted() - ledger.resolved();
        let unended = if host.all_ended { 0 } else { unresolved };
        Self {
            mpi: host.mpi.clone(),
            seed: host.seed,
            spared: vec![],
            submitted: ledger.submitted(),
            resolved: ledger.resolved(),
            lost: ledger.count(Verdict::Lost) + unended,
            doubled: executions.doubled,
            wrong: ledger.count(Verdict::Wrong),
            no_worker: ledger.count(Verdict::NoWorker),
            executed: executions.executed,
            executions_max: executions.most,
            kills: deaths.kills.len() as u64,
            losses: stats.losses,
            stops: stats.kills,
            respawns: stats.spawns.saturating_sub(1),
            spawn_failures: stats.spawn_failures,
            detect_ms_p50: quantile(detections, 0.5),
            detect_ms_p99: quantile(detections, 0.99),
            detections: detections.len() as u64,
            recover_ms_p50: quantile(&executions.recoveries, 0.5),
            recover_ms_p99: quantile(&executions.recoveries, 0.99),
            recoveries: executions.recoveries.len() as u64,
            parents_killed: deaths.parents,
            daemons_killed: deaths.daemons,
            restart_ms_p50: quantile(&deaths.restarts, 0.5),
            restart_ms_p99: quantile(&deaths.restarts, 0.99),
            before: host.before,
            after: host.after,
            left_behind: 0,
            host_failed: None,
        }
    }

    /// Whether every promise was kept.
    pub(crate) fn is_fine(&self) -> bool {
        self.host_failed.is_none()
            && self.submitted > 0
            && self.submitted == self.resolved
            && [self.lost, self.doubled, self.wrong, self.no_worker, self.left_behind] == [0; 5]
    }

    pub(crate) fn print(&self) {
        let time = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.1} ms"));
        println!("{}", self.mpi);
        let spared = if self.spared.is_empty() { "nothing".to_owned() } else { self.spared.join(", ") };
        println!("seed         {}, spared: {spared}", self.seed);
        println!(
            "tasks        {} submitted, {} resolved: {} lost, {} doubled, {} wrong, {} without a worker",
            self.submitted, self.resolved, self.lost, self.doubled, self.wrong, self.no_worker
        );
        println!("executions   {}, at most {} of one task", self.executed, self.executions_max);
        println!(
            "workers      {} killed from outside, {} lost in all, {} stopped by the pool, {} respawned, {} failed starts",
            self.kills, self.losses, self.stops, self.respawns, self.spawn_failures
        );
        println!(
            "detection    {} median, {} p99, of {}",
            time(self.detect_ms_p50),
            time(self.detect_ms_p99),
            self.detections
        );
        println!(
            "recovery     {} median, {} p99, of {}",
            time(self.recover_ms_p50),
            time(self.recover_ms_p99),
            self.recoveries
        );
        if self.parents_killed + self.daemons_killed > 0 {
            println!(
                "parents      {} killed, and {} daemons; a restart takes {} median, {} p99",
                self.parents_killed,
                self.daemons_killed,
                time(self.restart_ms_p50),
                time(self.restart_ms_p99)
            );
        }
        println!(
            "host         {} -> {} descriptors, {} -> {} threads, {} -> {} MiB",
            self.before.descriptors,
            self.after.descriptors,
            self.before.threads,
            self.after.threads,
            self.before.memory_kib >> 10,
            self.after.memory_kib >> 10
        );
        println!("left behind  {}", self.left_behind);
        match &self.host_failed {
            Some(how) => println!("FAILED: the host {how}"),
            None if self.is_fine() => println!("every task is accounted for"),
            None => println!("FAILED"),
        }
    }
}

/// Milliseconds.
fn quantile(nanos: &[u64], quantile: f64) -> Option<f64> {
    let mut sorted = nanos.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    let at = (quantile * last as f64).round() as usize;
    Some(sorted[at] as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_is_there() {
        let nanos: Vec<u64> = (1..=101).rev().map(|ms| ms * 1_000_000).collect();
        assert_eq!(quantile(&nanos, 0.5), Some(51.0));
        assert_eq!(quantile(&nanos, 0.99), Some(100.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn nothing_is_not_fine() {
        assert!(!Figures::default().is_fine(), "a chaos without a task proves nothing");
        let good = Figures { submitted: 2, resolved: 2, ..Figures::default() };
        assert!(good.is_fine());
        assert!(!Figures { lost: 1, ..good.clone() }.is_fine());
        assert!(!Figures { left_behind: 1, ..good.clone() }.is_fine());
        assert!(!Figures { resolved: 1, ..good }.is_fine());
    }
}
