//! Hands on what the host asks for to the transport, and to the host what that reports.
//!
//! Both ways may be blocked by the other side, and neither then blocks this process nor fills its memory: a host that does
//! not read is not sent more than [`BACKLOG_MAX`], because nothing more is taken from the workers until it does; and what
//! it asks for is always taken, and bounded by what its own scheduler has under way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use crate::error::SpawnCause;
use crate::launch::Program;
use crate::transport::mpi::MpiTransport;
use crate::transport::output::{Piece, Receipt};
use crate::transport::parent::{Channel, ChannelError};
use crate::transport::{Attention, Doorbell, Report, Rings, Transport};
use crate::wire::frame::Parcel;
use crate::wire::parent::{self as wire, FromParent, ToParent};

/// So many bytes may wait for the host.
const BACKLOG_MAX: usize = 16 << 20;
/// How long to wait for room, in the end.
const NAP: Duration = Duration::from_millis(1);
/// So many messages are taken before the workers have their turn.
const MESSAGES_A_TURN: usize = 256;

/// How a turn left it.
pub(super) enum Turn {
    Active,
    /// Nothing happened; how closely to look, where nobody rings for what may come.
    Quiet(Option<Attention>),
    /// The host wants no more, or is gone.
    Over,
}

pub(super) struct Router {
    channel: Channel,
    host_bell: Doorbell,
    transport: MpiTransport,
    reports: Vec<Report>,
    /// What workers write.
    pieces: Receiver<Piece>,
    /// What of that the host has, and has not taken yet.
    receipts: BTreeMap<u64, Receipt>,
    next_piece: u64,
    workers: usize,
    /// Whether the host wants no more.
    has_left: bool,
    /// Whether nothing can be said to the host any more.
    is_over: bool,
}

impl Router {
    pub(super) fn new(
        channel: Channel,
        host_bell: Doorbell,
        transport: MpiTransport,
        pieces: Receiver<Piece>,
    ) -> Self {
        Self {
            channel,
            host_bell,
            transport,
            reports: Vec::new(),
            pieces,
            receipts: BTreeMap::new(),
            next_piece: 0,
            workers: 0,
            has_left: false,
            is_over: false,
        }
    }

    pub(super) fn turn(&mut self) -> Turn {
        let mut any = self.listen();
        if self.channel.waiting() < BACKLOG_MAX {
            let mut reports = std::mem::take(&mut self.reports);
            any |= self.transport.poll(&mut reports);
            reports.drain(..).for_each(|report| self.report(report));
            self.reports = reports;
            any |= self.forward_output();
        }
        any |= self.flush();
        if self.is_over || self.has_left {
            Turn::Over
        } else if any {
            Turn::Active
        } else {
            Turn::Quiet(self.attention())
        }
    }

    fn attention(&self) -> Option<Attention> {
        if self.is_pending() {
            return Some(Attention::to(self.transport.bytes_under_way()));
        }
        match self.transport.rings() {
            _ if self.workers == 0 => None,
            Rings::Always => None,
            Rings::Mostly => Some(Attention::Rung),
            Rings::Never => Some(Attention::Remote),
        }
    }

    /// Whether something was started that only further turns can finish.
    pub(super) fn is_pending(&self) -> bool {
        self.channel.waiting() > 0 || self.transport.is_pending()
    }

    /// Whether there is anybody from whom something may come without a ring.
    pub(super) fn has_workers(&self) -> bool {
        self.workers > 0 || self.is_pending()
    }

    pub(super) fn has_news(&mut self) -> bool {
        !self.pieces.is_empty() || self.channel.has_arrived() || self.transport.has_arrived()
    }

    /// Takes in what the host asks for.
    fn listen(&mut self) -> bool {
        let mut any = false;
        for _ in 0..MESSAGES_A_TURN {
            let message = match self.channel.receive() {
                Ok(Some(arrived)) => ToParent::decode(arrived.message).map_err(ChannelError::from),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            any = true;
            match message {
                Ok(message) => self.do_as_told(message),
                // A host that is gone, or makes no sense.
                Err(error) => {
                    tracing::debug!("nothing more comes from the host: {error}");
                    self.is_over = true;
                    break;
                }
            }
        }
        any
    }

    fn do_as_told(&mut self, message: ToParent) {
        match message {
            ToParent::Spawn { worker, start } => {
                self.workers += 1;
                self.transport.spawn(worker, &Program::of_start(start));
            }
            ToParent::Frame { worker, bytes } => self.transport.send(worker, Parcel::from(bytes)),
            ToParent::Recall { worker } => self.transport.recall(worker),
            ToParent::Disconnect { worker } => {
                self.workers = self.workers.saturating_sub(1);
                self.transport.disconnect(worker);
            }
            ToParent::Abandon { worker } => {
                self.workers = self.workers.saturating_sub(1);
                self.transport.abandon(worker);
            }
            ToParent::CancelSpawns => {
                for worker in self.transport.cancel_spawns() {
                    let reason = "it was given up before it was begun".to_owned();
                    let cause = SpawnCause::Unknown;
                    self.end_start(FromParent::SpawnFailed { worker, cause, reason });
                }
            }
            ToParent::Taken { piece } => drop(self.receipts.remove(&piece)),
            // Said once, before everything else.
            ToParent::Bells | ToParent::Begin(_) => {}
            ToParent::Leave => self.has_left = true,
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Spawned { worker } => self.say(FromParent::Spawned { worker }),
            // The host can go on with another parent.
            Report::SpawnFailed { failure, .. } if failure.cause == SpawnCause::Launcher => {
                self.give_up(failure.reason);
            }
            Report::SpawnFailed { worker, failure } => {
                let (cause, reason) = (failure.cause, failure.reason);
                self.end_start(FromParent::SpawnFailed { worker, cause, reason });
            }
            Report::Frame { worker, bytes } => {
                let head = wire::frame_head(worker, bytes.len());
                self.post(head, bytes.into());
            }
            Report::Recalled { worker, begun } => self.say(FromParent::Recalled { worker, begun }),
            Report::Lost { worker, reason } => self.say(FromParent::Lost { worker, reason }),
        }
    }

    /// This parent has come to an end, for this reason.
    pub(super) fn give_up(&mut self, reason: String) {
        self.say(FromParent::Stuck { reason });
        self.flush();
        self.is_over = true;
    }

    fn end_start(&mut self, message: FromParent) {
        self.workers = self.workers.saturating_sub(1);
        self.say(message);
    }

    fn forward_output(&mut self) -> bool {
        let mut any = false;
        while self.channel.waiting() < BACKLOG_MAX
            && let Ok(piece) = self.pieces.try_recv()
        {
            any = true;
            let (message, receipt) = tell(piece, &mut self.next_piece);
            self.receipts.extend(receipt);
            self.say(message);
        }
        any
    }

    pub(super) fn say(&mut self, message: FromParent) {
        let (head, body) = message.encode();
        self.post(head, body.into());
    }

    /// Ends what is left of the workers, and hands on what they still write, until they are silent or the time is over.
    pub(super) fn end(self, doorbell: &Doorbell, patience: Duration) {
        let Self { transport, mut channel, host_bell, pieces, mut next_piece, has_left, is_over, .. } = self;
        // With it goes the way on which more workers could be heard.
        drop(transport);
        let until = Instant::now() + patience;
        while has_left && !is_over && Instant::now() < until {
            let mut lost = false;
            while channel.waiting() < BACKLOG_MAX {
                match pieces.try_recv() {
                    Ok(piece) => {
                        let (message, _taken_as_it_goes) = tell(piece, &mut next_piece);
                        lost |= channel.push(message.encode(), None).is_err();
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        lost = true;
                        break;
                    }
                }
            }
            let sent = channel.flush();
            host_bell.ring();
            if lost || sent.is_err() {
                break;
            }
            let nap = (channel.waiting() > 0).then(|| Instant::now() + NAP);
            doorbell.sleep(nap.into_iter().chain([until]).min(), || nap.is_none() && !pieces.is_empty());
        }
        host_bell.ring();
    }

    fn post(&mut self, head: Vec<u8>, body: Parcel) {
        if let Err(error) = self.channel.push_parcel(head, body, None) {
            // Without memory for it, the worker's answer is lost, and with it more than this process can mend.
            tracing::error!("nothing can be handed to the host: {error}");
            self.is_over = true;
        }
    }

    fn flush(&mut self) -> bool {
        match self.channel.flush() {
            Ok(false) => false,
            Ok(true) => {
                self.host_bell.ring();
                true
            }
            Err(_) => {
                self.is_over = true;
                true
            }
        }
    }
}

/// What is said of a piece, and what is to be dropped when the host has taken it.
fn tell(piece: Piece, next_piece: &mut u64) -> (FromParent, Option<(u64, Receipt)>) {
    match piece {
        Piece::Lines { worker, host, output, receipt } => {
            let piece = *next_piece;
            *next_piece += 1;
            let message = FromParent::Output { worker, piece, host: host.as_ref().to_owned(), output };
            (message, receipt.map(|receipt| (piece, receipt)))
        }
        Piece::Leaving { worker } => (FromParent::Leaving { worker }, None),
        Piece::End { worker, .. } => (FromParent::Silent { worker }, None),
    }
}
