//! The account of every task: what was handed in, what came of it, and when it was executed.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

/// Nanoseconds since 1970: a clock that all processes of a machine share.
pub(crate) fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// One execution, as its worker entered it into the journal when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) task: u64,
    pub(crate) process: u32,
    pub(crate) attempt: u32,
    pub(crate) at: u64,
}

const ENTRY_BYTES: usize = 24;

impl Entry {
    pub(crate) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.task.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.process.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.attempt.to_le_bytes());
        bytes[16..].copy_from_slice(&self.at.to_le_bytes());
        bytes
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (task, rest) = bytes.split_first_chunk()?;
        let (process, rest) = rest.split_first_chunk()?;
        let (attempt, rest) = rest.split_first_chunk()?;
        Some(Self {
            task: u64::from_le_bytes(*task),
            process: u32::from_le_bytes(*process),
            attempt: u32::from_le_bytes(*attempt),
            at: u64::from_le_bytes(rest.try_into().ok()?),
        })
    }

    /// All entries of a journal, in the order in which they were made.
    pub(crate) fn read_all(path: &Path) -> anyhow::Result<Vec<Self>> {
        let bytes = fs::read(path).context("the journal cannot be read")?;
        anyhow::ensure!(bytes.len() % ENTRY_BYTES == 0, "the journal is torn");
        Ok(bytes.chunks(ENTRY_BYTES).filter_map(Self::of_bytes).collect())
    }
}

/// A death that the host has brought about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    pub(crate) process: u32,
    pub(crate) at: u64,
}

/// What came of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// What was to come of it.
    Right,
    /// Another result than the right one.
    Wrong,
    /// No result, although there was to be one.
    Lost,
    /// No worker could be started, in as many tries as there are.
    NoWorker,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    once: bool,
    resolved_at: Option<u64>,
}

/// What was handed in and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: HashMap<u64, Account>,
    pub(crate) verdicts: HashMap<Verdict, u64>,
}

/// What the journal says beside the ledger.
#[derive(Debug, Default)]
pub(crate) struct Executions {
    pub(crate) executed: u64,
    /// The most executions of one task.
    pub(crate) most: u64,
    /// Tasks that were executed again after they had been resolved, or although they may run only once.
    pub(crate) doubled: u64,
    /// Nanoseconds from a death to the next execution of what it interrupted.
    pub(crate) recoveries: Vec<u64>,
}

impl Ledger {
    pub(crate) fn hand_in(&mut self, task: u64, once: bool) {
        self.accounts.insert(task, Account { once, resolved_at: None });
    }

    /// A task has come to an end. A second one would be a bug of the pool: it is counted as wrong.
    pub(crate) fn resolve(&mut self, task: u64, verdict: Verdict) {
        let account = self.accounts.get_mut(&task).filter(|account| account.resolved_at.is_none());
        let verdict = if account.is_some() { verdict } else { Verdict::Wrong };
        if let Some(account) = account {
            account.resolved_at = Some(now());
        }
        *self.verdicts.entry(verdict).or_default() += 1;
    }

    pub(crate) fn submitted(&self) -> u64 {
        self.accounts.len() as u64
    }

    pub(crate) fn resolved(&self) -> u64 {
        self.accounts.values().filter(|account| account.resolved_at.is_some()).count() as u64
    }

    pub(crate) fn count(&self, verdict: Verdict) -> u64 {
        self.verdicts.get(&verdict).copied().unwrap_or(0)
    }

    /// Compares with what was executed.
    pub(crate) fn audit(&self, journal: &[Entry], kills: &[Kill]) -> Executions {
        let mut by_task: HashMap<u64, Vec<Entry>> = HashMap::new();
        let mut by_process: HashMap<u32, Vec<Entry>> = HashMap::new();
        for entry in journal {
            by_task.entry(entry.task).or_default().push(*entry);
            by_process.entry(entry.process).or_default().push(*entry);
        }
        let is_doubled = |(task, entries): (&u64, &Vec<Entry>)| {
            self.accounts.get(task).is_none_or(|account| {
                let resolved_at = account.resolved_at.unwrap_or(u64::MAX);
                account.once && entries.len() > 1 || entries.iter().any(|entry| entry.at > resolved_at)
            })
        };
        let recovery = |kill: &Kill| {
            let interrupted = by_process.get(&kill.process)?.iter().rfind(|entry| entry.at < kill.at)?;
            let again = by_task[&interrupted.task].iter().find(|entry| entry.at > kill.at)?;
            Some(again.at - kill.at)
        };
        Executions {
            executed: journal.len() as u64,
            most: by_task.values().map(|entries| entries.len() as u64).max().unwrap_or(0),
            doubled: by_task.iter().filter(|account| is_doubled(*account)).count() as u64,
            recoveries: kills.iter().filter_map(recovery).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(task: u64, process: u32, attempt: u32, at: u64) -> Entry {
        Entry { task, process, attempt, at }
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let one = entry(u64::MAX - 1, 7, 3, 1 << 60);
        assert_eq!(Entry::of_bytes(&one.to_bytes()), Some(one));
        assert_eq!(Entry::of_bytes(&one.to_bytes()[1..]), None);
    }

    #[test]
    fn an_execution_after_the_end_is_doubled() {
        let mut ledger = Ledger::default();
        ledger.hand_in(1, false);
        ledger.hand_in(2, true);
        ledger.resolve(1, Verdict::Right);
        let later = now() + 1;
        assert_eq!(ledger.audit(&[entry(1, 9, 1, 5), entry(2, 9, 1, 6)], &[]).doubled, 0);
        assert_eq!(ledger.audit(&[entry(1, 9, 1, later)], &[]).doubled, 1);
        assert_eq!(ledger.audit(&[entry(2, 9, 1, 5), entry(2, 8, 1, 6)], &[]).doubled, 1, "it may run once");
        assert_eq!(ledger.audit(&[entry(3, 9, 1, 5)], &[]).doubled, 1, "nobody has handed it in");
    }

    #[test]
    fn recovery_is_from_the_death_to_the_next_execution() {
        let mut ledger = Ledger::default();
        ledger.hand_in(1, false);
        let journal = [entry(4, 9, 1, 10), entry(1, 9, 1, 20), entry(1, 8, 2, 90)];
        let kill = Kill { process: 9, at: 50 };
        assert_eq!(ledger.audit(&journal, &[kill]).recoveries, [40]);
        assert_eq!(ledger.audit(&journal[..2], &[kill]).recoveries, [] as [u64; 0]);
    }

    #[test]
    fn a_task_that_ends_twice_is_wrong() {
        let mut ledger = Ledger::default();
        ledger.hand_in(1, false);
        ledger.resolve(1, Verdict::Right);
        ledger.resolve(1, Verdict::Right);
        assert_eq!((ledger.resolved(), ledger.count(Verdict::Wrong)), (1, 1));
    }
}
