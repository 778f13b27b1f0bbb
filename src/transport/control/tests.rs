//! Who connects, who is believed, and what becomes of a guard that is late.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;

use crossbeam_channel::{Receiver, unbounded};

use super::listener::{STRANGERS_MAX, UNDER_WAY_MAX};
use super::*;
use crate::ids::WorkerId;
use crate::transport::output::{Output as Sinks, Sink};
use crate::wire::control::{
    Dropped, FromGuard, How, LINE_MAX, Output, Splitter, StreamName, TO_GUARD_MAX, Watch,
};

const SECRET: [u8; 16] = [7; 16];

fn control() -> Control {
    Control::start(SECRET, Arc::default(), Aid { release: |_| {}, ask: None }).expect("a socket can be made")
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

const TIMEOUT: Duration = Duration::from_millis(400);

fn watched() -> Start {
    let heartbeat_timeout = Some(TIMEOUT);
    Start { watch: Watch { heartbeat_timeout, ..Watch::default() }, ..start() }
}

/// A guard that has been told to start a worker, and to say that it is there.
fn watched_from_afar(control: &Control) -> (TcpStream, Receiver<(Ticket, Notice)>) {
    let (notify, notices) = unbounded();
    let ticket = control.expect(expectation(watched(), Duration::from_secs(20), notify));
    let mut guard = connect_from_afar(control);
    say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
    assert_eq!(hear(&mut guard), Some(ToGuard::Start(watched())));
    (guard, notices)
}

#[test]
fn a_guard_on_another_host_that_is_silent_is_lost_and_no_other() {
    let control = control();
    let begun = Instant::now();
    let (mut silent, notices) = watched_from_afar(&control);
    let (mut slow, slow_notices) = watched_from_afar(&control);
    let (near_notify, near_notices) = unbounded();
    let near_ticket = control.expect(expectation(watched(), Duration::from_secs(20), near_notify));
    let mut near = connect(&control);
    say(&mut near, &FromGuard::Here { ticket: near_ticket, secret: Secret(SECRET) });
    assert_eq!(hear(&mut near), Some(ToGuard::Start(start())), "on one host nobody beats");
    let started = FromGuard::Started { pid: 7, host: "there".to_owned() };
    say(&mut silent, &started);
    // One that says something just in time is slow, and no more.
    let mut slow_stays = slow.try_clone().expect("there is a descriptor left");
    let beats = thread::spawn(move || {
        for _ in 0..5 {
            thread::sleep(TIMEOUT * 6 / 10);
            say(&mut slow_stays, &FromGuard::Beat);
        }
    });
    let (_, notice) = notices.recv_timeout(Duration::from_secs(20)).expect("it is reported");
    let took = begun.elapsed();
    let Notice::Ended(Ended { how: How::Silent { after: TIMEOUT }, .. }, Some(at)) = notice else {
        panic!("{notice:?}")
    };
    assert!(took >= TIMEOUT && took < 10 * TIMEOUT, "{took:?}");
    assert_eq!((at.pid, &*at.host), (7, "there"));
    beats.join().expect("it only speaks");
    assert!(slow_notices.is_empty() && near_notices.is_empty());
    // All the while this side has said that it is there.
    assert_eq!(hear(&mut slow), Some(ToGuard::Beat));
    assert_eq!(hear(&mut silent), Some(ToGuard::Beat));
}

fn output(text: &[u8]) -> FromGuard {
    let (stream, task, dropped) = (StreamName::Stdout, None, Dropped::default());
    FromGuard::Output(Output { stream, task, dropped, bytes: text.to_vec().into() })
}

#[test]
fn output_is_taken_and_comes_before_the_end() {
    let folder = tempfile::tempdir().expect("there is room");
    let sink =
        Sink::start(Sinks::Directory(folder.path().to_owned())).expect("it starts").expect("it writes");
    let control = control();
    let (notify, notices) = unbounded();
    let voice = Some(sink.voice(WorkerId(3)));
    let ticket =
        control.expect(Expectation { voice, ..expectation(start(), Duration::from_secs(20), notify) });
    let mut guard = connect(&control);
    say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
    assert!(hear(&mut guard).is_some());
    let piece = vec![b'x'; LINE_MAX];
    for _ in 0..2 * WINDOW / LINE_MAX {
        say(&mut guard, &output(&piece));
        let cost = (LINE_MAX + 1024) as u64;
        assert_eq!(hear(&mut guard), Some(ToGuard::Taken { cost }), "there is room again");
    }
    say(&mut guard, &output(b"the end"));
    let how = How::Exited { code: 0 };
    say(&mut guard, &FromGuard::Ended(Ended::of(how)));
    assert!(matches!(notices.recv().expect("it is passed on"), (_, Notice::Ended(..))));
    control.forget(ticket);
    sink.wait_until_written(Duration::from_secs(20));
    let written = std::fs::read(folder.path().join("worker-3.out")).expect("it was written");
    assert!(written.len() == 2 * WINDOW + 7 && written.ends_with(b"the end"), "{}", written.len());
}

#[test]
fn a_guard_that_floods_its_parent_is_sent_away() {
    let folder = tempfile::tempdir().expect("there is room");
    // A pipe that nobody empties.
    let name = folder.path().join("worker-0.out");
    let status = process::Command::new("mkfifo").arg(&name).status().expect("it is there");
    assert!(status.success());
    let _reader = std::fs::File::options().read(true).write(true).open(&name).expect("it is there");
    let sink =
        Sink::start(Sinks::Directory(folder.path().to_owned())).expect("it starts").expect("it writes");
    let control = control();
    let (notify, notices) = unbounded();
    let voice = Some(sink.voice(WorkerId(0)));
    let ticket =
        control.expect(Expectation { voice, ..expectation(start(), Duration::from_secs(20), notify) });
    let mut guard = connect(&control);
    say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
    assert!(hear(&mut guard).is_some());
    let piece = output(&vec![b'x'; LINE_MAX]).encode();
    let mut sent = 0;
    while guard.write_all(&piece).is_ok() {
        sent += LINE_MAX;
        assert!(sent < 4 * UNDER_WAY_MAX, "it takes whatever comes");
    }
    let (_, notice) = notices.recv().expect("it is reported");
    assert!(matches!(notice, Notice::Ended(Ended { how: How::GuardGone, .. }, _)), "{notice:?}");
}
