//! The worker's loop: hello, welcome, initializer, tasks, goodbye. The host's half of each phase, with
//! the mirrored name, is in `driver/roster.rs`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::answers::Answers;
use super::mailbox::{Mailbox, Next};
use super::voice::Voice;
use crate::ids::WorkerId;
use crate::process;
use crate::task::{Context, Definition, Registry, run_guarded};
use crate::transport::claim::Claim;
use crate::transport::{Link, LinkError};
use crate::wire::WireError;
use crate::wire::codec::CODEC_ID;
use crate::wire::message::{
    AnswerMessage, Failure, FromWorker, Hello, Outcome, PAYLOAD_MAX, TaskMessage, ToWorker, Welcome, WireKind,
};
use crate::wire::payload::Payload;

/// Where a worker runs.
pub(crate) struct Place {
    /// Name of the machine.
    pub(crate) host: Arc<str>,
    /// Rank in the worker's own `MPI_COMM_WORLD`.
    pub(crate) rank: i32,
    /// How it is decided which task begins here.
    pub(crate) claim: Claim,
    /// Who is to know which task writes what; nobody, if what it writes goes nowhere in particular.
    pub(crate) voice: Option<Voice>,
}

/// Serves a host until it tells the worker to retire, and gives the link back to be closed.
///
/// # Errors
/// [`LinkError`] when the host is out of reach or says what makes no sense. Nothing is left to do then.
pub(crate) fn run<L: Link + 'static>(mut link: L, registry: &Registry, place: Place) -> Result<L, LinkError> {
    let definitions = registry.numbered();
    say_hello(&mut link, registry, &place)?;
    let welcome = await_welcome(&mut link)?;
    let Some(welcome) = welcome else { return say_bye(link) };
    let Place { host, rank, claim, voice } = place;
    let answers = Answers::new(definitions.len(), welcome.lend);
    let mailbox = Rc::new(RefCell::new(Mailbox::new(link, answers, claim)));
    let context = context(welcome.worker, host, rank, &mailbox);
    let mut worker = Worker { definitions, context, mailbox, voice };
    let lend = welcome.probe.is_some_and(|probe| probe.is_readable());
    worker.run_initializer(welcome.initializer, lend)?;
    worker.run_tasks()?;
    worker.mailbox.borrow_mut().await_fetched()?;
    say_bye(worker.into_link())
}

fn say_hello(link: &mut impl Link, registry: &Registry, place: &Place) -> Result<(), LinkError> {
    let hello = Hello {
        codec: CODEC_ID.to_owned(),
        host: place.host.to_string(),
        pid: std::process::id(),
        probe: process::probe(),
        known: registry.known(),
    };
    link.send(FromWorker::Hello(hello).encode())
}

/// The host's answer to the hello; `None` if it refuses this worker.
fn await_welcome(link: &mut impl Link) -> Result<Option<Welcome>, LinkError> {
    match ToWorker::decode(link.receive()?)? {
        ToWorker::Welcome(welcome) => Ok(Some(welcome)),
        ToWorker::Retire => Ok(None),
        other @ (ToWorker::Tasks(_) | ToWorker::Recant(_) | ToWorker::Resume | ToWorker::Fetched) => {
            Err(WireError::Unexpected { name: other.name() }.into())
        }
    }
}

fn say_bye<L: Link>(mut link: L) -> Result<L, LinkError> {
    link.send(FromWorker::Bye.encode())?;
    link.flush()?;
    Ok(link)
}

fn context<L: Link + 'static>(
    worker: WorkerId,
    host: Arc<str>,
    rank: i32,
    mailbox: &Rc<RefCell<Mailbox<L>>>,
) -> Context {
    let mailbox = Rc::clone(mailbox);
    Context {
        worker,
        rank,
        host,
        task: None,
        attempt: 0,
        recanted: Box::new(move |task| mailbox.borrow_mut().is_recanted(task)),
        state: HashMap::new(),
    }
}

struct Worker<L> {
    definitions: Vec<&'static Definition>,
    context: Context,
    /// Shared with the context, whose task may look into it while it runs.
    mailbox: Rc<RefCell<Mailbox<L>>>,
    voice: Option<Voice>,
}

impl<L: Link> Worker<L> {
    /// Runs the initializer, if there is one, and tells the host how it went. The host retires a worker
    /// that is unfit, so the loop goes on either way. `lend`: whether the host may lend.
    fn run_initializer(
        &mut self,
        initializer: Option<(WireKind, Bytes)>,
        lend: bool,
    ) -> Result<(), LinkError> {
        let outcome =
            initializer.map_or(Ok(()), |(kind, arguments)| self.call(kind, arguments.into()).map(drop));
        let message = match outcome {
            Ok(()) => FromWorker::Ready { lend },
            Err(failure) => FromWorker::Unfit(failure),
        };
        self.mailbox.borrow_mut().link.send(message.encode())
    }

    /// Runs the tasks of the window in order, until the host says to retire.
    fn run_tasks(&mut self) -> Result<(), LinkError> {
        loop {
            let next = self.mailbox.borrow_mut().next()?;
            match next {
                Next::Run(message) => self.run_task(message)?,
                Next::Skip(task) => {
                    let skipped = AnswerMessage { task, ran: Duration::ZERO, outcome: Outcome::Skipped };
                    self.mailbox.borrow_mut().answer(skipped)?;
                }
                Next::Nothing => {
                    let mut mailbox = self.mailbox.borrow_mut();
                    mailbox.send_answers()?;
                    mailbox.wait()?;
                }
                Next::Retire => return Ok(()),
            }
        }
    }

    fn run_task(&mut self, message: TaskMessage) -> Result<(), LinkError> {
        let TaskMessage { task, kind, attempt, arguments } = message;
        let begun = self.make_way_for(kind)?;
        self.context.task = Some(task);
        self.context.attempt = attempt;
        if let Some(voice) = &self.voice {
            voice.begin(task);
        }
        let result = self.call(kind, arguments);
        let mut mailbox = self.mailbox.borrow_mut();
        let now = mailbox.ask_the_clock();
        let ran = now.saturating_duration_since(begun);
        if let Some(voice) = &mut self.voice {
            voice.end(task, kind, now);
        }
        mailbox.answers.note(kind, ran);
        mailbox.forget(task);
        let outcome = match result {
            Ok(result) if result.len() > PAYLOAD_MAX => Outcome::Failed(too_large(result.len())),
            Ok(result) => Outcome::Done(result),
            Err(failure) => Outcome::Failed(failure),
        };
        mailbox.answer(AnswerMessage { task, ran, outcome })
    }

    /// Sends the answers that are kept, unless a task of this kind is known to be short. The time when it begins.
    fn make_way_for(&mut self, kind: WireKind) -> Result<Instant, LinkError> {
        let mut mailbox = self.mailbox.borrow_mut();
        if !mailbox.answers.may_wait_for(kind) {
            mailbox.send_answers()?;
        }
        Ok(mailbox.now())
    }

    fn call(&mut self, kind: WireKind, arguments: Payload) -> Result<Payload, Failure> {
        match self.definitions.get(kind.0 as usize) {
            Some(definition) => run_guarded(definition, &mut self.context, arguments),
            None => Err(Failure::Unknown),
        }
    }

    fn into_link(mut self) -> L {
        for (_, state) in self.context.state.drain() {
            // A value of the user's that panics when it is dropped must not keep the worker from its goodbye.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(state)));
        }
        // The context's closure holds the other reference.
        drop(self.context);
        Rc::into_inner(self.mailbox).expect("only the context shared the mailbox").into_inner().link
    }
}

fn too_large(length: usize) -> Failure {
    Failure::Result {
        reason: format!("takes {length} bytes, more than the {PAYLOAD_MAX} that one message may have"),
    }
}
