//! Who connects, who is believed, and what becomes of a guard that is late.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;

use crossbeam_channel::{Receiver, unbounded};

use super::*;
use crate::wire::control::{TO_GUARD_MAX, Watch};

const SECRET: [u8; 16] = [7; 16];

fn control() -> Control {
    Control::start(SECRET, Arc::default()).expect("a socket can be made")
}

fn start() -> Start {
    Start {
        executable: b"/bin/true".to_vec(),
        arguments: vec![],
        variables: vec![],
        directory: b"/".to_vec(),
        watch: Watch::default(),
    }
}

const GRACE: Duration = Duration::from_millis(300);
const KILL: ToGuard = ToGuard::Kill { grace: GRACE };

fn expectation(start: Start, within: Duration, notices: Sender<(Ticket, Notice)>) -> Expectation {
    Expectation { start, deadline: Instant::now() + within, kill_grace: GRACE, notices, voice: None }
}

fn expect(control: &Control, within: Duration) -> (Ticket, Receiver<(Ticket, Notice)>) {
    let (notify, notices) = unbounded();
    (control.expect(expectation(start(), within, notify)), notices)
}

fn connect(control: &Control) -> UnixStream {
    let address = SocketAddr::from_abstract_name(control.address()).expect("the name is short");
    let stream = UnixStream::connect_addr(&address).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it is not zero");
    stream
}

/// As a guard on another host does.
fn connect_from_afar(control: &Control) -> TcpStream {
    let address = control.network_address("here", Ipv4Addr::LOCALHOST.into()).expect("there is a port");
    let address: Address = address.parse().expect("it was just written");
    assert_eq!(address.name, control.address());
    let (host, address) = address.network.expect("it is on the network");
    assert_eq!(host, "here");
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it is not zero");
    stream
}

fn say(stream: &mut impl Write, message: &FromGuard) {
    stream.write_all(&message.encode()).expect("the other side reads");
}

/// What the parent says next; `None` if it closes the connection.
fn hear(stream: &mut impl Read) -> Option<ToGuard> {
    let mut splitter = Splitter::new(TO_GUARD_MAX);
    loop {
        let mut bytes = [0; 1];
        match stream.read(&mut bytes) {
            Ok(0) => return None,
            Ok(length) => splitter.feed(&bytes[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("nothing was said: {error}"),
        }
        if let Some(frame) = splitter.next_frame().expect("the parent speaks well") {
            return Some(ToGuard::decode(frame).expect("the parent speaks well"));
        }
    }
}

#[test]
fn a_guard_that_knows_the_secret_is_told_what_to_start() {
    let control = control();
    let (ticket, notices) = expect(&control, Duration::from_secs(20));
    let mut guard = connect(&control);
    say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
    assert_eq!(hear(&mut guard), Some(ToGuard::Start(start())));
    say(&mut guard, &FromGuard::Ready);
    let (whose, notice) = notices.recv().expect("it is passed on");
    assert!(whose == ticket && matches!(notice, Notice::Ready));
    control.kill(ticket);
    assert_eq!(hear(&mut guard), Some(KILL));
}

#[test]
fn whoever_does_not_know_the_secret_is_sent_away_and_costs_nothing() {
    let control = control();
    let (ticket, notices) = expect(&control, Duration::from_secs(20));
    let mut stranger = connect(&control);
    say(&mut stranger, &FromGuard::Here { ticket, secret: Secret([0; 16]) });
    assert_eq!(hear(&mut stranger), None);
    let mut babbler = connect(&control);
    babbler.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("the other side reads");
    assert_eq!(hear(&mut babbler), None);
    // The guard that comes after them is as welcome as ever.
    let mut guard = connect(&control);
    say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
    assert_eq!(hear(&mut guard), Some(ToGuard::Start(start())));
    assert!(notices.is_empty(), "strangers are nobody's business");
}

#[test]
fn a_second_guard_for_one_spawn_is_sent_away() {
    let control = control();
    let (ticket, _notices) = expect(&control, Duration::from_secs(20));
    let mut first = connect(&control);
    say(&mut first, &FromGuard::Here { ticket, secret: Secret(SECRET) });
    assert!(hear(&mut first).is_some());
    let mut second = connect(&control);
    say(&mut second, &FromGuard::Here { ticket, secret: Secret(SECRET) });
    assert_eq!(hear(&mut second), None);
    control.kill(ticket);
    assert_eq!(hear(&mut first), Some(KILL), "the first one is still the guard");
}

#[test]
fn a_worker_that_is_late_is_killed_and_said_to_be_overdue() {
    let control = control();
    let (ticket, notices) = expect(&control, Duration::from_millis(50));
    let mut guard = connect(&control);
    say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
    assert!(hear(&mut guard).is_some());
    assert_eq!(hear(&mut guard), Some(KILL));
    let how = How::Signalled { signal: 9, core: false };
    say(&mut guard, &FromGuard::Ended(Ended { stand_in: true, ..Ended::of(how) }));
    let (_, notice) = notices.recv().expect("it is passed on");
    assert!(
        matches!(notice, Notice::Ended(Ended { how: How::Overdue, stand_in: true, .. }, None)),
        "{notice:?}"
    );
}

#[test]
fn a_guard_that_vanishes_is_reported() {
    let control = control();
    let (ticket, notices) = expect(&control, Duration::from_secs(20));
    let mut guard = connect(&control);
    say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
    assert!(hear(&mut guard).is_some());
    drop(guard);
    let (_, notice) = notices.recv().expect("it is reported");
    assert!(matches!(notice, Notice::Ended(Ended { how: How::GuardGone, .. }, _)), "{notice:?}");
}

#[test]
fn it_listens_on_the_network_only_when_asked_and_once() {
    let control = control();
    assert!(!control.is_on_network());
    let ask = || control.network_address("here", Ipv4Addr::LOCALHOST.into()).expect("there is a port");
    assert_eq!(ask(), ask());
    assert!(control.is_on_network());
}

#[test]
fn a_guard_on_another_host_is_told_what_to_start() {
    let control = control();
    let (ticket, notices) = expect(&control, Duration::from_secs(20));
    let mut guard = connect_from_afar(&control);
    say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
    assert_eq!(hear(&mut guard), Some(ToGuard::Start(start())));
    say(&mut guard, &FromGuard::Ready);
    assert!(matches!(notices.recv().expect("it is passed on"), (_, Notice::Ready)));
    drop(guard);
    let (_, notice) = notices.recv().expect("it is reported");
    assert!(matches!(notice, Notice::Ended(Ended { how: How::GuardGone, .. }, _)), "{notice:?}");
}

#[test]
fn a_long_start_arrives_over_the_network() {
    let control = control();
    let start = Start { arguments: vec![vec![b'x'; 6 << 20]], ..start() };
    let (notify, _notices) = unbounded();
    let ticket = control.expect(expectation(start.clone(), Duration::from_secs(20), notify));
    let mut guard = connect_from_afar(&control);
    say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
    let mut splitter = Splitter::new(TO_GUARD_MAX);
    let told = loop {
        let mut bytes = [0; 64 << 10];
        let length = guard.read(&mut bytes).expect("the parent goes on");
        assert!(length > 0, "it was cut off");
        splitter.feed(&bytes[..length]);
        if let Some(frame) = splitter.next_frame().expect("the parent speaks well") {
            break ToGuard::decode(frame).expect("the parent speaks well");
        }
    };
    assert!(told == ToGuard::Start(start), "it differs");
}

#[test]
fn a_stranger_on_the_network_is_sent_away_and_costs_nothing() {
    let control = control();
    let (ticket, notices) = expect(&control, Duration::from_secs(20));
    let mut stranger = connect_from_afar(&control);
    say(&mut stranger, &FromGuard::Here { ticket, secret: Secret([0; 16]) });
    assert_eq!(hear(&mut stranger), None);
    let mut babbler = connect_from_afar(&control);
    babbler.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("the other side reads");
    assert_eq!(hear(&mut babbler), None);
    // One that announces a long message is not waited for.
    let mut announcer = connect_from_afar(&control);
    let long = FromGuard::Ended(Ended::of(How::NotStarted { reason: "x".repeat(900 << 10) }));
    // It is sent away before it has said all.
    let _ = announcer.write_all(&long.encode()[..1 << 19]);
    assert_eq!(hear(&mut announcer), None);
    // Many that say nothing do not keep the guard out that comes after them.
    let silent: Vec<_> = (0..2 * STRANGERS_MAX).map(|_| connect_from_afar(&control)).collect();
    let mut guard = connect_from_afar(&control);
    say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
    assert_eq!(hear(&mut guard), Some(ToGuard::Start(start())));
    assert!(notices.is_empty(), "strangers are nobody's business");
    drop(silent);
}
