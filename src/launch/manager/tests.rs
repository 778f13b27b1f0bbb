//! The language with what MPICH really sends, and with nonsense; the books with scenarios; the server with an MPI that
//! is a test, and with real processes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::jobs::{AWAITED, IS_AWAITED, Jobs, Member, NOT_AWAITED, Start, Step};
use super::protocol::{Command, Request, Spawn, Splitter};
use super::server::Server;
use super::starter::{Order, Orders, Standing, Starter};

/// What MPICH 5.0.2 writes for a spawn.
const SPAWN: &str = "mcmd=spawn\nnprocs=1\nexecname=/bin/worker\ntotspawns=1\nspawnssofar=1\nargcnt=2\narg1=--flag\narg2=a b=c\n\
                     preput_num=1\npreput_key_0=PARENT_ROOT_PORT_NAME\npreput_val_0=tag#0$connentry#02$\n\
                     info_num=2\ninfo_key_0=wdir\ninfo_val_0=/\ninfo_key_1=x\ninfo_val_1=a b\nendcmd\n";

fn heard(text: &str) -> Vec<Request> {
    let mut splitter = Splitter::default();
    splitter.feed(text.as_bytes());
    std::iter::from_fn(|| splitter.next_request().expect("it makes sense")).collect()
}

fn is_nonsense(bytes: &[u8]) -> bool {
    let mut splitter = Splitter::default();
    splitter.feed(bytes);
    loop {
        match splitter.next_request() {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn lines_are_understood() {
    let text = "cmd=init pmi_version=1 pmi_subversion=1\ncmd=get_maxes\ncmd=get_appnum \n\
                cmd=put kvsname=x key=bc value=a$b=c#\ncmd=get kvsname=x key=bc\ncmd=abort exitcode=-3\n";
    let expected = vec![
        Request::Init { version: 1 },
        Request::Maxes,
        Request::AppNumber,
        Request::Put { key: b"bc".to_vec(), value: b"a$b=c#".to_vec() },
        Request::Get { key: b"bc".to_vec() },
        Request::Abort { code: -3 },
    ];
    assert_eq!(heard(text), expected);
}

#[test]
fn a_spawn_is_understood() {
    let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    let command = Command {
        executable: b"/bin/worker".to_vec(),
        arguments: vec![b"--flag".to_vec(), b"a b=c".to_vec()],
        count: 1,
        info: vec![pair("wdir", "/"), pair("x", "a b")],
    };
    let values = vec![pair("PARENT_ROOT_PORT_NAME", "tag#0$connentry#02$")];
    assert_eq!(heard(SPAWN), [Request::Spawn(Spawn { commands: vec![command], values })]);
}

#[test]
fn a_spawn_may_have_several_commands_and_keys_before_values() {
    let text = "mcmd=spawn\nnprocs=2\nexecname=a\ntotspawns=2\ninfo_key_0=k\ninfo_key_1=l\ninfo_val_0=v\ninfo_val_1=w\nendcmd\n\
                mcmd=spawn\nnprocs=1\nexecname=b\ntotspawns=2\nendcmd\ncmd=finalize\n";
    let requests = heard(text);
    let [Request::Spawn(spawn), Request::Finalize] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(spawn.size(), 3);
    assert_eq!(spawn.commands[0].hint("k"), Some(&b"v"[..]));
    assert_eq!(spawn.commands[0].hint("l"), Some(&b"w"[..]));
    assert_eq!(spawn.commands[1].hint("k"), None);
}

#[test]
fn a_request_may_come_in_pieces() {
    let text = format!("cmd=get_maxes\n{SPAWN}cmd=finalize\n");
    for cut in 0..=text.len() {
        let mut splitter = Splitter::default();
        let mut requests = Vec::new();
        for piece in [&text[..cut], &text[cut..]] {
            splitter.feed(piece.as_bytes());
            requests.extend(std::iter::from_fn(|| splitter.next_request().expect("it makes sense")));
        }
        assert_eq!(requests, heard(&text), "cut at {cut}");
    }
}

#[test]
fn nonsense_is_an_error() {
    let long = format!("cmd=put key=x value={}\n", "y".repeat(2000));
    let many = "mcmd=spawn\nnprocs=1000000000\nexecname=x\ntotspawns=1\nendcmd\n";
    for text in [
        "\n",
        "hello\n",
        "cmd=dance\n",
        "cmd=init pmi_version=x\n",
        "cmd=get\n",
        &long,
        many,
        "mcmd=spawn\nendcmd\n",
        "mcmd=spawn\ntotspawns=1\nnprocs=1\nendcmd\n",
        "mcmd=spawn\ntotspawns=1\nexecname=x\ninfo_val_0=x\nendcmd\n",
    ] {
        assert!(is_nonsense(text.as_bytes()), "{text}");
    }
    assert!(is_nonsense(&vec![b'x'; 9 << 10]), "a line without an end");
    assert!(is_nonsense(&[b"mcmd=spawn\n".repeat(100_000)].concat()), "a spawn without an end");
}

proptest! {
    #[test]
    fn nothing_that_comes_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        is_nonsense(&bytes);
    }

    #[test]
    fn nothing_that_looks_like_a_spawn_panics(
        lines in proptest::collection::vec("(mcmd=spawn|endcmd|totspawns=[0-9]{0,12}|nprocs=-?[0-9]{0,12}|execname=.{0,4}|(arg|info_key_|info_val_|preput_key_|preput_val_)[0-9]{0,3}=.{0,4})", 0..40)
    ) {
        let text = format!("mcmd=spawn\n{}\n", lines.join("\n"));
        let mut splitter = Splitter::default();
        splitter.feed(text.as_bytes());
        let (mut jobs, host) = Jobs::new(1, 2);
        let mut steps = Vec::new();
        while let Ok(Some(request)) = splitter.next_request() {
            jobs.hear(host, request, &mut steps);
        }
        let spawned: Vec<Member> =
            steps.iter().filter_map(|step| if let Step::Start(start) = step { Some(start.member) } else { None }).collect();
        spawned.into_iter().for_each(|member| jobs.note_end(member, &mut steps));
        prop_assert!(jobs.knows(host));
    }
}

/// Jobs of a host, and what comes of what is said.
struct Books {
    jobs: Jobs,
    host: Member,
}

impl Books {
    fn new() -> Self {
        let (jobs, host) = Jobs::new(7, 2);
        Self { jobs, host }
    }

    fn hear(&mut self, member: Member, text: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        heard(text).into_iter().for_each(|request| self.jobs.hear(member, request, &mut steps));
        steps
    }

    fn end(&mut self, member: Member) -> Vec<Step> {
        let mut steps = Vec::new();
        self.jobs.note_end(member, &mut steps);
        steps
    }

    /// So many processes, spawned by the host.
    fn spawn(&mut self, count: u32) -> Vec<Member> {
        let text = SPAWN.replace("nprocs=1", &format!("nprocs={count}"));
        let steps = self.hear(self.host, &text);
        let starts = steps.into_iter().map(|step| match step {
            Step::Start(Start { member, size, .. }) if size == count => member,
            other => panic!("no start, but {other:?}"),
        });
        starts.collect()
    }
}

fn say(member: Member, text: &str) -> Step {
    Step::Say(member, format!("{text}\n").into_bytes())
}

const GET_PARENT: &str = "cmd=get kvsname=x key=PARENT_ROOT_PORT_NAME\n";
const PORT: &str = "cmd=get_result rc=0 msg=success found=TRUE value=tag#0$connentry#02$";

#[test]
fn a_spawn_is_answered_when_the_parent_is_asked_for() {
    let mut books = Books::new();
    let host = books.host;
    let guard = books.spawn(1)[0];
    assert_eq!(
        books.hear(guard, "cmd=init pmi_version=1 pmi_subversion=1\ncmd=get_appnum\ncmd=barrier_in\n"),
        [
            say(guard, "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1"),
            say(guard, "cmd=appnum rc=0 appnum=0"),
            say(guard, "cmd=barrier_out rc=0"),
        ],
        "the host hears nothing yet"
    );
    let question = format!("cmd=get kvsname=x key={IS_AWAITED}\n");
    let answer = |word: &str| format!("cmd=get_result rc=0 msg=success found=TRUE value={word}");
    assert_eq!(books.hear(guard, &question), [say(guard, &answer(NOT_AWAITED))]);
    let there = say(host, "cmd=spawn_result rc=0 errcodes=0");
    assert_eq!(books.hear(guard, GET_PARENT), [there, say(guard, PORT)]);
    assert_eq!(books.hear(guard, &question), [say(guard, &answer(AWAITED))]);
    // A second one is not told to the host again.
    assert_eq!(books.hear(guard, GET_PARENT), [say(guard, PORT)]);
    assert_eq!(books.end(guard), []);
}

#[test]
fn a_spawn_whose_process_ends_before_that_fails() {
    let mut books = Books::new();
    let guard = books.spawn(1)[0];
    books.hear(guard, "cmd=init pmi_version=1 pmi_subversion=1\n");
    assert_eq!(books.end(guard), [say(books.host, "cmd=spawn_result rc=0 errcodes=1")]);
    assert_eq!(books.end(guard), []);
    assert_eq!(books.hear(guard, GET_PARENT), [], "nobody is there who could ask");
}

#[test]
fn a_job_of_several_has_one_store_one_barrier_and_one_end() {
    let mut books = Books::new();
    let (ours, theirs) = (books.spawn(2), books.spawn(2));
    assert_eq!(books.hear(ours[0], "cmd=put kvsname=x key=a value=1\n").len(), 1);
    assert_eq!(books.hear(ours[0], "cmd=barrier_in\n"), []);
    assert_eq!(books.hear(theirs[0], "cmd=barrier_in\n"), []);
    let out = |member| say(member, "cmd=barrier_out rc=0");
    assert_eq!(books.hear(ours[1], "cmd=barrier_in\n"), [out(ours[0]), out(ours[1])]);
    let found = say(ours[1], "cmd=get_result rc=0 msg=success found=TRUE value=1");
    assert_eq!(books.hear(ours[1], "cmd=get kvsname=x key=a\n"), [found]);
    let unknown = say(theirs[1], "cmd=get_result rc=-1 msg=key_not_found found=FALSE value=unknown");
    assert_eq!(books.hear(theirs[1], "cmd=get kvsname=x key=a\n"), [unknown]);
    books.hear(ours[0], GET_PARENT);
    assert_eq!(books.end(ours[0]), [Step::Kill(ours[1])], "without a goodbye it takes its job along");
    books.hear(theirs[0], GET_PARENT);
    books.hear(theirs[0], "cmd=finalize\n");
    assert_eq!(books.end(theirs[0]), [], "with one it does not");
}

#[test]
fn who_waits_for_a_parent_that_is_gone_ends() {
    let mut books = Books::new();
    let worker = books.spawn(1)[0];
    books.hear(worker, GET_PARENT);
    let steps = books.hear(worker, SPAWN);
    let [Step::Start(Start { member: child, .. })] = steps[..] else { panic!("{steps:?}") };
    assert_eq!(books.end(worker), [Step::Kill(child)]);
}

#[test]
fn a_host_is_told_what_a_plain_process_is() {
    let mut books = Books::new();
    let host = books.host;
    assert_eq!(
        books
            .hear(host, "cmd=get_appnum\ncmd=get_universe_size\ncmd=get kvsname=x key=PMI_process_mapping\n"),
        [
            say(host, "cmd=appnum rc=0 appnum=-1"),
            say(host, "cmd=universe_size rc=0 size=2"),
            say(host, "cmd=get_result rc=0 msg=success found=TRUE value=(vector,(0,1,1))"),
        ]
    );
}

#[test]
fn what_was_started_ahead_waits_for_its_spawn() {
    let mut books = Books::new();
    let host = books.host;
    let Request::Spawn(spawn) = &heard(SPAWN)[0] else { panic!("it is a spawn") };
    let mut steps = Vec::new();
    let [ahead, other] = ["a b=c", "another"].map(|last| {
        let arguments = vec![b"--flag".to_vec(), last.as_bytes().to_vec()];
        books.jobs.start_ahead(host, Command { arguments, ..spawn.commands[0].clone() }, &mut steps)
    });
    assert!(matches!(&steps[..], [Step::Start(one), Step::Start(_)] if one.member == ahead && one.size == 1));
    assert_eq!(books.hear(ahead, GET_PARENT), [Step::Waits(ahead)], "who asks waits for the answer");
    assert_eq!(books.hear(other, GET_PARENT), [Step::Waits(other)]);
    let question = format!("cmd=get kvsname=x key={IS_AWAITED}\n");
    let not_awaited = format!("cmd=get_result rc=0 msg=success found=TRUE value={NOT_AWAITED}");
    assert_eq!(books.hear(ahead, &question), [say(ahead, &not_awaited)]);
    assert_eq!(books.end(other), [], "the host is not told of what it has not spawned");
    // The guard had asked because its worker is dead; but that one was not.
    assert_eq!(books.hear(ahead, GET_PARENT), [Step::Waits(ahead)]);
    let there = say(host, "cmd=spawn_result rc=0 errcodes=0");
    assert_eq!(books.hear(host, SPAWN), [there, say(ahead, PORT)], "nothing else is started");
    assert_eq!(books.end(ahead), []);
}

/// Its guard has been told that nobody waits for it, and leaves.
#[test]
fn who_died_while_it_waited_for_its_spawn_is_not_spawned() {
    let mut books = Books::new();
    let host = books.host;
    let Request::Spawn(spawn) = &heard(SPAWN)[0] else { panic!("it is a spawn") };
    let guard = books.jobs.start_ahead(host, spawn.commands[0].clone(), &mut Vec::new());
    assert_eq!(books.hear(guard, GET_PARENT), [Step::Waits(guard)]);
    let question = format!("cmd=get kvsname=x key={IS_AWAITED}\n");
    assert_eq!(books.hear(guard, &question).len(), 1);
    assert_eq!(books.hear(host, SPAWN), [], "it is not there any more");
    assert_eq!(books.end(guard), [say(host, "cmd=spawn_result rc=0 errcodes=1")]);
}

#[test]
fn a_spawn_may_come_before_the_question() {
    let mut books = Books::new();
    let host = books.host;
    let Request::Spawn(spawn) = &heard(SPAWN)[0] else { panic!("it is a spawn") };
    let command = spawn.commands[0].clone();
    let guard = books.jobs.start_ahead(host, command.clone(), &mut Vec::new());
    assert_eq!(books.hear(host, SPAWN), []);
    let there = say(host, "cmd=spawn_result rc=0 errcodes=0");
    assert_eq!(books.hear(guard, GET_PARENT), [there, say(guard, PORT)]);
    let dead = books.jobs.start_ahead(host, command, &mut Vec::new());
    assert_eq!(books.hear(host, SPAWN), []);
    assert_eq!(books.end(dead), [say(host, "cmd=spawn_result rc=0 errcodes=1")]);
    assert_eq!(books.spawn(1).len(), 1, "a spawn for which nothing was started starts something");
}

/// A server, and the end that an MPI would have.
fn serve() -> BufReader<UnixStream> {
    serve_with_starter().0
}

fn serve_with_starter() -> (BufReader<UnixStream>, Starter) {
    let (starter, orders) = Orders::new().expect("there are descriptors");
    let (ours, theirs) = UnixStream::pair().expect("there are sockets");
    ours.set_nonblocking(true).expect("it is ours");
    theirs.set_read_timeout(Some(Duration::from_secs(20))).expect("it is ours");
    let server = Server::new(ours, orders, Arc::new(AtomicBool::new(false)));
    thread::spawn(move || server.run());
    (BufReader::new(theirs), starter)
}

/// Has something started ahead, and waits for what is said of it.
fn start_ahead(starter: &Starter, executable: &str, arguments: &[&str]) -> Option<Standing> {
    let (report, told) = crossbeam_channel::bounded(1);
    starter.start(Order {
        executable: executable.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        directory: "/".into(),
        report: Box::new(move |standing| drop(report.send(standing))),
    });
    told.recv_timeout(Duration::from_secs(20)).ok()
}

fn ask(mpi: &mut BufReader<UnixStream>, request: &str) -> String {
    mpi.get_mut().write_all(request.as_bytes()).expect("it is served");
    let mut answer = String::new();
    mpi.read_line(&mut answer).expect("there is an answer in time");
    answer
}

fn spawn_of(executable: &str, arguments: &[&str]) -> String {
    let arguments: Vec<String> =
        arguments.iter().enumerate().map(|(at, argument)| format!("arg{}={argument}\n", at + 1)).collect();
    let arguments = arguments.concat();
    format!(
        "mcmd=spawn\nnprocs=1\nexecname={executable}\ntotspawns=1\nspawnssofar=1\n{arguments}preput_num=1\n\
         preput_key_0=PARENT_ROOT_PORT_NAME\npreput_val_0=port\ninfo_num=1\ninfo_key_0=wdir\ninfo_val_0=/\nendcmd\n"
    )
}

const THERE: &str = "cmd=spawn_result rc=0 errcodes=0\n";
const NOT_THERE: &str = "cmd=spawn_result rc=0 errcodes=1\n";

#[test]
fn what_cannot_be_started_is_an_error_at_once() {
    let mut mpi = serve();
    assert_eq!(ask(&mut mpi, &spawn_of("/nowhere/worker", &[])), NOT_THERE);
    let elsewhere = spawn_of("true", &[]).replace("wdir\ninfo_val_0=/", "host\ninfo_val_0=nowhere.example");
    assert_eq!(ask(&mut mpi, &elsewhere), NOT_THERE);
    assert_eq!(ask(&mut mpi, "cmd=finalize\n"), "cmd=finalize_ack rc=0\n", "it goes on");
}

#[test]
fn what_ends_before_it_asks_for_its_parent_is_an_error_too() {
    let mut mpi = serve();
    assert_eq!(ask(&mut mpi, &spawn_of("true", &[])), NOT_THERE, "found in PATH");
    assert_eq!(ask(&mut mpi, &spawn_of("/bin/sh", &["-c", "kill -9 $$"])), NOT_THERE);
}

#[test]
fn a_process_has_its_own_socket_and_place() {
    let mut mpi = serve();
    let asks = "[[ $PMI_RANK$PMI_SIZE$PMI_SPAWNED = 011 && $PWD = / ]] || exit; \
                echo cmd=get key=PARENT_ROOT_PORT_NAME >&$PMI_FD; read -r -u $PMI_FD line; [[ $line = *value=port ]] || exit; \
                echo cmd=finalize >&$PMI_FD";
    assert_eq!(ask(&mut mpi, &spawn_of("bash", &["-c", asks])), THERE);
    let refuses = "[[ $PMI_FD ]] && exit; echo cmd=get key=PARENT_ROOT_PORT_NAME >&$PMI_FD";
    assert_eq!(ask(&mut mpi, &spawn_of("bash", &["-c", refuses])), NOT_THERE);
}

#[test]
fn a_process_that_talks_nonsense_is_not_heard_any_more() {
    let mut mpi = serve();
    let babbles = "echo nonsense >&$PMI_FD; echo cmd=get key=PARENT_ROOT_PORT_NAME >&$PMI_FD; exit";
    assert_eq!(ask(&mut mpi, &spawn_of("bash", &["-c", babbles])), NOT_THERE);
    assert_eq!(ask(&mut mpi, "cmd=finalize\n"), "cmd=finalize_ack rc=0\n");
}

#[test]
fn a_process_is_started_ahead_and_spawned_later() {
    let (mut mpi, starter) = serve_with_starter();
    let missing = start_ahead(&starter, "/nowhere/worker", &[]);
    assert!(matches!(missing, Some(Standing::NotStarted(_))), "{missing:?}");
    let asks = "echo cmd=get key=PARENT_ROOT_PORT_NAME >&$PMI_FD; read -r -u $PMI_FD line; \
                [[ $line = *value=port ]] && echo cmd=finalize >&$PMI_FD";
    assert_eq!(start_ahead(&starter, "bash", &["-c", asks]), Some(Standing::Waits));
    assert_eq!(ask(&mut mpi, &spawn_of("bash", &["-c", asks])), THERE);
    assert_eq!(start_ahead(&starter, "true", &["x"]), None, "its end is its guard's news, if it has one");
}
