//! What a process manager knows: jobs, the store of each, who waits for whom. Requests and ends of processes in, steps
//! out; pure, as the protocol is.
//!
//! A job is what one spawn has started. It is one process as a rule, a guard that speaks for its worker too; the
//! host's own code may spawn others. Two things differ from hydra, and both make a spawn safer. A spawn is answered not
//! when its processes have been started but when the first of them asks for the port of its parent: until then it
//! fails, in order, if one of them ends. And whoever ends otherwise than in order takes its own job along, and nobody
//! else.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::protocol::{Answer, Command, Request, Spawn};

/// A process that speaks with this manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Member(pub(super) u32);

/// What was started by one spawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct JobId(u32);

/// A job that this process has ordered itself, without its MPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct OrderId(pub(super) u64);

/// The most keys in the store of a job.
const VALUES_MAX: usize = 4096;

/// The key that MPICH puts its port under, for those whom it spawns.
pub(super) const PARENT_PORT: &[u8] = b"PARENT_ROOT_PORT_NAME";
/// Which processes of a job share a machine: all of them.
const MAPPING: &[u8] = b"PMI_process_mapping";
/// Where the library finds what hydra knows of the machine: nowhere.
const TOPOLOGY: &[u8] = b"PMI_hwloc_xmlfile";
/// A guard's own question: whether its worker has asked for the port of its parent, which then waits for it in MPI.
pub(crate) const IS_AWAITED: &str = "offshoot_is_awaited";
/// The answer, if so. It can be nobody else's.
pub(crate) const AWAITED: &str = "offshoot_awaited";
pub(crate) const NOT_AWAITED: &str = "offshoot_not_awaited";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Say(Member, Vec<u8>),
    /// Whether what was ordered is about to meet its parent.
    Tell(OrderId, bool),
    /// This is the name of a port that the host's library has opened.
    Learn(Vec<u8>),
    Start(Start),
    /// It is to end, whatever it does.
    Kill(Member),
}

/// A process that is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) member: Member,
    pub(super) rank: u32,
    /// How many processes its job has.
    pub(super) size: u32,
    pub(super) command: Command,
}

#[derive(Debug)]
pub(super) struct Jobs {
    /// What the names of stores begin with.
    prefix: String,
    universe_size: u32,
    members: BTreeMap<Member, Part>,
    jobs: FxHashMap<JobId, Job>,
    members_ever: u32,
    jobs_ever: u32,
}

/// What a process has to do with its job.
#[derive(Debug)]
struct Part {
    job: JobId,
    has_finalized: bool,
    in_barrier: bool,
}

#[derive(Debug)]
struct Job {
    size: u32,
    values: FxHashMap<Vec<u8>, Vec<u8>>,
    asker: Asker,
    /// What that was told, once it was: whether it is there.
    answer: Option<bool>,
}

/// Who has a job started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// It is the host's own.
    Nobody,
    /// A process, through its MPI.
    Member(Member),
    Order(OrderId),
}

impl Jobs {
    /// A manager of one job, that of the host alone.
    pub(super) fn new(process: u32, universe_size: u32) -> (Self, Member) {
        let mut jobs = Self {
            prefix: format!("offshoot_{process}"),
            universe_size,
            members: BTreeMap::new(),
            jobs: FxHashMap::default(),
            members_ever: 0,
            jobs_ever: 0,
        };
        let job = jobs.add_job(Job {
            size: 1,
            values: FxHashMap::default(),
            asker: Asker::Nobody,
            answer: Some(true),
        });
        let host = jobs.add_member(job);
        (jobs, host)
    }

    /// Whether nobody is left to speak for this process.
    pub(super) fn knows(&self, member: Member) -> bool {
        self.members.contains_key(&member)
    }

    /// A process asks for something.
    pub(super) fn hear(&mut self, member: Member, request: Request, steps: &mut Vec<Step>) {
        let Some(part) = self.members.get_mut(&member) else { return };
        let job = part.job;
        let answer = match request {
            Request::Init { version } => {
                // Whoever begins anew stands in for one that did not come to an end.
                part.has_finalized = false;
                Answer::Init(version == 1)
            }
            Request::Maxes => Answer::Maxes,
            Request::UniverseSize => Answer::UniverseSize(self.universe_size),
            Request::AppNumber => Answer::AppNumber((self.jobs[&job].asker != Asker::Nobody).then_some(0)),
            Request::Name => {
                let name = self.name(job);
                return steps.push(Step::Say(member, Answer::Name(&name).encode()));
            }
            Request::Put { key, value } => Answer::Put(self.put(job, key, value)),
            Request::Get { key } => return self.get(member, job, &key, steps),
            Request::Barrier => {
                part.in_barrier = true;
                return self.open_barrier(job, steps);
            }
            Request::Spawn(spawn) if spawn.asks_for_port() => {
                let count = spawn.size();
                let name = spawn.values.into_iter().find(|(key, _)| key == PARENT_PORT);
                let is_host = self.jobs[&job].asker == Asker::Nobody;
                steps.extend(name.filter(|_| is_host).map(|(_, name)| Step::Learn(name)));
                Answer::Spawned(count, false)
            }
            Request::Spawn(spawn) => return self.spawn(Asker::Member(member), spawn, steps),
            Request::Finalize => {
                part.has_finalized = true;
                Answer::Finalized
            }
            Request::Abort { code } => {
                tracing::debug!("a process of job {} aborts with code {code}", job.0);
                return self.end_job(job, Some(member), steps);
            }
            Request::Publish => Answer::NoNames("publish_result"),
            Request::Unpublish => Answer::NoNames("unpublish_result"),
            Request::Lookup => Answer::NoNames("lookup_result"),
        };
        steps.push(Step::Say(member, answer.encode()));
    }

    /// This process wants a job, and meets it by itself.
    pub(super) fn order(&mut self, order: OrderId, spawn: Spawn, steps: &mut Vec<Step>) {
        self.spawn(Asker::Order(order), spawn, steps);
    }

    /// A process has ended, or could not be started.
    pub(super) fn note_end(&mut self, member: Member, steps: &mut Vec<Step>) {
        let Some(part) = self.members.remove(&member) else { return };
        self.answer_asker(part.job, false, steps);
        if !part.has_finalized {
            self.end_job(part.job, None, steps);
        }
        if !self.members.values().any(|other| other.job == part.job) {
            self.jobs.remove(&part.job);
        }
        // Whom it was about to meet would wait for it.
        let orphans: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.asker == Asker::Member(member) && job.answer.is_none())
            .map(|(id, _)| *id)
            .collect();
        for orphan in orphans {
            self.end_job(orphan, None, steps);
        }
    }

    /// The name of a process's job, if it has not said goodbye.
    pub(super) fn name_of_unfinished(&self, member: Member) -> Option<String> {
        self.members.get(&member).filter(|part| !part.has_finalized).map(|part| self.name(part.job))
    }

    fn name(&self, job: JobId) -> String {
        format!("{}_{}", self.prefix, job.0)
    }

    fn put(&mut self, job: JobId, key: Vec<u8>, value: Vec<u8>) -> bool {
        let values = &mut self.job(job).values;
        let has_room = values.len() < VALUES_MAX || values.contains_key(&key);
        if has_room {
            values.insert(key, value);
        }
        has_room
    }

    fn get(&mut self, member: Member, job: JobId, key: &[u8], steps: &mut Vec<Step>) {
        if key == PARENT_PORT {
            // From now on they meet in MPI.
            self.answer_asker(job, true, steps);
        }
        let Job { size, values, answer, .. } = self.job(job);
        let mapping = format!("(vector,(0,1,{size}))");
        let value = match key {
            MAPPING => Some(mapping.as_bytes()),
            TOPOLOGY => Some(&b"unavailable"[..]),
            key if key == IS_AWAITED.as_bytes() => {
                Some(if *answer == Some(true) { AWAITED.as_bytes() } else { NOT_AWAITED.as_bytes() })
            }
            key => values.get(key).map(|value| &value[..]),
        };
        steps.push(Step::Say(member, Answer::Get(value).encode()));
    }

    fn open_barrier(&mut self, job: JobId, steps: &mut Vec<Step>) {
        let size = self.job(job).size as usize;
        let waiting = || self.members.iter().filter(|(_, part)| part.job == job && part.in_barrier);
        if waiting().count() < size {
            return;
        }
        steps.extend(waiting().map(|(member, _)| Step::Say(*member, Answer::BarrierOut.encode())));
        self.members.values_mut().filter(|part| part.job == job).for_each(|part| part.in_barrier = false);
    }

    fn spawn(&mut self, asker: Asker, spawn: Spawn, steps: &mut Vec<Step>) {
        let size = spawn.size();
        let values = spawn.values.into_iter().take(VALUES_MAX).collect();
        let job = self.add_job(Job { size, values, asker, answer: None });
        let commands = spawn.commands.into_iter();
        let all = commands.flat_map(|command| std::iter::repeat_n(command.clone(), command.count as usize));
        for (rank, command) in (0..).zip(all) {
            let member = self.add_member(job);
            steps.push(Step::Start(Start { member, rank, size, command }));
        }
    }

    /// Tells who has a job started whether it is there, if that has not been said.
    fn answer_asker(&mut self, job: JobId, is_there: bool, steps: &mut Vec<Step>) {
        let Some(job) = self.jobs.get_mut(&job).filter(|job| job.answer.is_none()) else { return };
        job.answer = Some(is_there);
        match job.asker {
            Asker::Nobody => {}
            Asker::Member(parent) => {
                steps.push(Step::Say(parent, Answer::Spawned(job.size, is_there).encode()));
            }
            Asker::Order(order) => steps.push(Step::Tell(order, is_there)),
        }
    }

    /// Ends all of a job but one, which does so itself.
    fn end_job(&self, job: JobId, spared: Option<Member>, steps: &mut Vec<Step>) {
        let others = self.members.iter().filter(|(member, part)| part.job == job && Some(**member) != spared);
        steps.extend(others.map(|(member, _)| Step::Kill(*member)));
    }

    fn job(&mut self, id: JobId) -> &mut Job {
        self.jobs.get_mut(&id).expect("a job stays as long as one of its processes does")
    }

    fn add_job(&mut self, job: Job) -> JobId {
        let id = JobId(self.jobs_ever);
        self.jobs_ever += 1;
        self.jobs.insert(id, job);
        id
    }

    fn add_member(&mut self, job: JobId) -> Member {
        let member = Member(self.members_ever);
        self.members_ever += 1;
        self.members.insert(member, Part { job, has_finalized: false, in_barrier: false });
        member
    }
}
