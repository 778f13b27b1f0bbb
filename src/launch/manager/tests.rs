//! The language with what MPICH really sends, and with nonsense; the books with scenarios; the server with an MPI that
//! is a test, and with real processes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::jobs::{AWAITED, IS_AWAITED, Jobs, Member, NOT_AWAITED, OrderId, Start, Step};
use super::orders::{self, Office, Wanted};
use super::ports::PortNames;
use super::protocol::{ASKS_FOR_PORT, Command, Request, Spawn, Splitter};
use super::server::Server;

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
fn who_has_ordered_a_process_is_told_once() {
    let mut books = Books::new();
    let mut order = |number: u64| {
        let Some(Request::Spawn(spawn)) = heard(SPAWN).pop() else { panic!("it is a spawn") };
        let mut steps = Vec::new();
        books.jobs.order(OrderId(number), spawn, &mut steps);
        let [Step::Start(Start { member, size: 1, .. })] = steps[..] else { panic!("{steps:?}") };
        member
    };
    let (comes, ends) = (order(1), order(2));
    assert_eq!(
        books.hear(comes, "cmd=get_appnum\n"),
        [say(comes, "cmd=appnum rc=0 appnum=0")],
        "it was spawned"
    );
    assert_eq!(books.hear(comes, GET_PARENT), [Step::Tell(OrderId(1), true), say(comes, PORT)]);
    assert_eq!(books.end(comes), []);
    assert_eq!(books.end(ends), [Step::Tell(OrderId(2), false)]);
}

#[test]
fn a_spawn_that_only_asks_starts_nothing_and_the_host_alone_learns_by_it() {
    let mut books = Books::new();
    let (host, worker) = (books.host, books.spawn(1)[0]);
    let question = SPAWN.replace("info_key_1=x", &format!("info_key_1={ASKS_FOR_PORT}"));
    let learns = Step::Learn(b"tag#0$connentry#02$".to_vec());
    assert_eq!(books.hear(host, &question), [learns, say(host, "cmd=spawn_result rc=0 errcodes=1")]);
    assert_eq!(books.hear(worker, &question), [say(worker, "cmd=spawn_result rc=0 errcodes=1")]);
}

#[test]
fn names_of_ports_differ_in_their_number_and_end() {
    let like = |name: &str| PortNames::like(name.as_bytes());
    let names: Vec<String> = like("tag#3$connentry#20AC[5]07$")
        .expect("it is one")
        .map(|name| name.into_string().expect("it is text"))
        .collect();
    assert_eq!(names[0], "tag#4096$connentry#20AC[5]07$", "none that the library gives");
    assert_eq!(names[1], "tag#4097$connentry#20AC[5]07$");
    assert_eq!(names.len(), (1 << 17) - (1 << 12));
    for other in [
        "",
        "tag#",
        "tag#3",
        "tag#3$",
        "tag#$connentry#20$",
        "tag#x$connentry#20$",
        "port#3$connentry#20$",
        "tag#3$connentry#20",
    ] {
        assert!(like(other).is_none(), "{other}");
    }
}

/// A server, and the end that an MPI would have.
fn serve() -> BufReader<UnixStream> {
    serve_both().0
}

/// And where the rest of the process orders.
fn serve_both() -> (BufReader<UnixStream>, Office) {
    let (ours, theirs) = UnixStream::pair().expect("there are sockets");
    ours.set_nonblocking(true).expect("it is ours");
    theirs.set_read_timeout(Some(Duration::from_secs(20))).expect("it is ours");
    let (office, inbox) = orders::open().expect("there are descriptors");
    let server = Server::new(ours, inbox, Arc::new(AtomicBool::new(false)));
    thread::spawn(move || server.run());
    (BufReader::new(theirs), office)
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
fn what_is_ordered_finds_its_port_and_its_end_is_told() {
    let (mut mpi, office) = serve_both();
    let order = |script: &str| {
        let (tell, told) = mpsc::channel();
        let arguments = vec![&b"-c"[..], script.as_bytes()];
        let wanted = Wanted { executable: b"bash", arguments, info: vec![(b"wdir", b"/")] };
        office.order(&wanted, b"harbour", move |is_coming| tell.send(is_coming).expect("it is waited for"));
        told
    };
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let pipe = folder.path().join("pipe");
    assert!(process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()));
    let comes = format!(
        "echo cmd=get key=PARENT_ROOT_PORT_NAME >&$PMI_FD; read -r -u $PMI_FD line; \
         echo $PMI_RANK$PMI_SIZE$PMI_SPAWNED $PWD $line >{}; echo cmd=finalize >&$PMI_FD",
        pipe.display()
    );
    let patience = Duration::from_secs(20);
    let (first, second) = (order(&comes), order("exit 3"));
    assert_eq!(first.recv_timeout(patience), Ok(true));
    assert_eq!(second.recv_timeout(patience), Ok(false));
    let found = fs::read_to_string(&pipe).expect("it writes");
    assert_eq!(found, "011 / cmd=get_result rc=0 msg=success found=TRUE value=harbour\n");
    assert_eq!(ask(&mut mpi, "cmd=finalize\n"), "cmd=finalize_ack rc=0\n", "it goes on");
}

#[test]
fn a_port_is_known_when_the_question_for_it_has_returned() {
    let (mut mpi, office) = serve_both();
    assert!(office.port_names().is_none());
    let question = spawn_of("offshoot", &[])
        .replace("wdir\ninfo_val_0=/", &format!("{ASKS_FOR_PORT}\ninfo_val_0=1"))
        .replace("preput_val_0=port", "preput_val_0=tag#0$connentry#02$");
    assert_eq!(ask(&mut mpi, &question), NOT_THERE);
    let first = office.port_names().expect("it was named").next();
    assert_eq!(first.as_deref(), Some(c"tag#4096$connentry#02$"));
}
