//! `offshoot run` on real MPI: what it prints, how it exits, and that it leaves no process.
//!
//! Where lines must wait for each other they do so through files, not by the clock.

mod run_support;

use std::fs;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use run_support::offshoot;
use rustix::process::Signal;

const NONE: [&str; 0] = [];
/// For a line that is to run until it is ended.
const LONG: &str = "sleep 1000";

#[test]
fn outputs_come_in_the_order_of_the_lines() {
    let lines = "until [ -e two ]; do sleep 0.01; done; echo one\necho two; touch two\necho three\n";
    let ended = offshoot(["--workers", "2..2"]).file(lines).finish().code(0).wrote("one\ntwo\nthree\n");
    ended.said(&["offshoot: 3 lines: 3 passed in ", " on 2 workers"]);
}

#[test]
fn unordered_outputs_come_as_lines_end() {
    let lines = "until [ -e two ]; do sleep 0.01; done; sleep 0.1; echo one\necho two; touch two\n";
    offshoot(["--workers", "2", "--unordered"]).file(lines).finish().code(0).wrote("two\none\n");
}

#[test]
fn blank_lines_and_comments_are_skipped() {
    let lines = "# a comment\n\n  \n  # another\necho 5 # and a third";
    let ended = offshoot(["-q"]).lines_on_stdin(lines).finish().code(0).wrote("5\n");
    assert_eq!(ended.stderr, "", "--quiet");
}

#[test]
fn each_stream_goes_where_it_belongs() {
    // Opening /dev/stderr again must not cut off what is there already.
    let lines = "echo out; echo err >&2; echo more > /dev/stderr; printf end >&2\nprintf 'no newline'\n";
    let ended = offshoot(["-q"]).file(lines).finish().code(0).wrote("out\nno newline");
    assert_eq!(ended.stderr, "err\nmore\nend");
}

#[test]
fn lines_have_the_users_environment_and_directory() {
    let lines = "env\npwd\ncat\n";
    let ended = offshoot(["-q"]).file(lines).finish().code(0);
    let text = String::from_utf8_lossy(&ended.stdout);
    let folder = ended.folder.path().canonicalize().expect("it is there");
    assert!(text.lines().any(|line| line == folder.display().to_string()), "{text}");
    let theirs: std::collections::HashSet<String> = std::env::vars().map(|(name, _)| name).collect();
    for (name, _) in text.lines().filter_map(|line| line.split_once('=')) {
        let alien = ["OMPI_", "PMIX_", "PMI_", "OFFSHOOT_ROLE"].iter().any(|start| name.starts_with(start));
        assert!(!alien || theirs.contains(name), "{name} is the worker's, not the user's");
    }
}

#[test]
fn the_joblog_has_a_row_for_each_try() {
    let lines = "echo a\n# no row\nfalse\nkill -9 $$\necho 'a\tb'\n";
    let ended = offshoot(["--joblog", "log", "--retries", "1"]).file(lines).finish().code(1);
    let log = ended.read("log");
    let mut rows: Vec<Vec<&str>> = log.lines().map(|row| row.splitn(9, '\t').collect()).collect();
    let header = ["line", "try", "worker", "host", "start", "seconds", "exit", "signal", "command"];
    assert_eq!(rows.remove(0), header);
    rows.sort();
    let told: Vec<Vec<&str>> = rows.iter().map(|row| [&row[..2], &row[6..]].concat()).collect();
    let expected = [
        ["1", "1", "0", "-", "echo a"],
        ["3", "1", "1", "-", "false"],
        ["3", "2", "1", "-", "false"],
        ["4", "1", "-", "SIGKILL", "kill -9 $$"],
        ["4", "2", "-", "SIGKILL", "kill -9 $$"],
        ["5", "1", "0", "-", "echo 'a\tb'"],
    ];
    assert_eq!(told, expected);
    for row in rows {
        assert!(row[2].parse::<u32>().is_ok() && !row[3].is_empty(), "{row:?}");
        assert!(row[4].parse::<f64>().is_ok_and(|start| start > 1.7e9), "{row:?}");
        assert!(row[5].parse::<f64>().is_ok_and(|seconds| (0.0..60.0).contains(&seconds)), "{row:?}");
    }
}

#[test]
fn failures_are_named_and_make_exit_code_1() {
    let ended = offshoot(NONE).file("true\nexit 3\nkill -SEGV $$\nno-such-command\n").finish().code(1);
    ended.said(&[
        "offshoot: line 2 failed with exit code 3: exit 3\n",
        "offshoot: line 3 was ended by SIGSEGV: kill -SEGV $$\n",
        "no-such-command: not found\noffshoot: line 4 failed with exit code 127: no-such-command\n",
        "offshoot: 4 lines: 1 passed, 3 failed (2-4) in ",
    ]);
}

#[test]
fn a_line_is_tried_again_until_it_passes() {
    let line = "echo x >> tries; echo try $(wc -l < tries); [ $(wc -l < tries) = 3 ]\n";
    let ended = offshoot(["--retries", "5"]).file(line).finish().code(0).wrote("try 3\n");
    assert_eq!(ended.read("tries"), "x\nx\nx\n");
    let ended = offshoot(["--retries", "1"]).file(line).finish().code(1).wrote("try 2\n");
    ended.said(&["line 1 failed with exit code 1 (try 2): "]);
}

#[test]
fn a_timeout_ends_all_processes_of_the_line() {
    let lines = format!(
        "{LONG} & setsid {LONG} & setsid sh -c '{LONG} & trap \"\" TERM; {LONG}; {LONG}' & wait\necho next\n"
    );
    let begun = Instant::now();
    // That none of them is left is checked at each end.
    let ended = offshoot(["--timeout", "1.5", "-j1"]).file(lines).finish().code(1).wrote("next\n");
    ended.said(&["line 1 took longer than 1.5 s and was ended: ", "1 passed, 1 failed (1) in "]);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn what_a_line_leaves_in_the_background_lives_on() {
    let lines = "(until [ -e go ]; do sleep 0.01; done; touch gone) & echo $!\nsleep 1000\n";
    let running = offshoot(["--timeout", "1.5", "-j1"]).file(lines).start();
    let folder = running.folder().to_owned();
    let go = std::thread::spawn(move || {
        // Line 2 has been ended, and with it whatever was taken for its child.
        while !fs::read_to_string(folder.join("stderr")).is_ok_and(|text| text.contains("2 lines:")) {
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::write(folder.join("go"), "").expect("the folder is ours");
    });
    running.wait_for_files(&["gone"]);
    go.join().expect("it only waits");
    running.finish().code(1).said(&["1 passed, 1 failed (2)"]);
}

#[test]
fn the_first_failure_halts_if_so_told() {
    let mut lines = format!("touch one; {LONG}\nuntil [ -e one ]; do sleep 0.01; done; exit 7\n");
    (3..=500).for_each(|_| lines.push_str("sleep 5\n"));
    let ended = offshoot(["--halt-on-error", "--workers", "2..2"]).file(lines).finish().code(1);
    ended.said(&[
        "line 2 failed: no more are started",
        "0 passed, 1 failed (2), ",
        " ended (1",
        " not run (",
        "-500)",
    ]);
}

#[test]
fn a_dry_run_prints_and_starts_nothing() {
    let ended = offshoot(["--dry-run"]).file("touch a\n# no\n\ntouch b\n").finish().code(0);
    let ended = ended.wrote("touch a\ntouch b\n");
    assert!(!ended.folder.path().join("a").exists());
    let ended = offshoot(["--dry-run", "-a", "mv {} {#}.txt"]).lines_on_stdin("it's\na b\n").finish();
    ended.code(0).wrote("mv 'it'\\''s' 1.txt\nmv 'a b' 2.txt\n");
}

#[test]
fn arguments_reach_the_command_as_they_are() {
    let lines = b"plain\n two  spaces \nit's \"$HOME\" `id` \\ * ; # & {} {#}\n#hash\n\n-n\n\xff\xfe\n";
    let ended = offshoot(["-q", "-a", "printf '%s:[%s]\\n' {#} {}"]).lines_on_stdin(lines).finish().code(0);
    ended.wrote(
        b"1:[plain]\n2:[ two  spaces ]\n3:[it's \"$HOME\" `id` \\ * ; # & {} {#}]\n4:[#hash]\n5:[-n]\n6:[\xff\xfe]\n",
    );
    offshoot(["-q", "--args", "echo"]).lines_on_stdin("a  b\n").finish().code(0).wrote("a  b\n");
}

#[test]
fn nothing_to_run_is_no_failure() {
    for lines in ["", "\n\n", "# only a comment\n"] {
        offshoot(NONE).file(lines).finish().code(0).wrote("").said(&["nothing to run"]);
    }
    offshoot(["-"]).finish().code(0).said(&["nothing to run"]);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    offshoot(["missing"]).finish().code(2).said(&["`missing` cannot be read: No such file"]);
    offshoot(["."]).finish().code(2).said(&["is a directory"]);
    for workers in ["0", "3..2", "many"] {
        offshoot(["--workers", workers]).file("true\n").finish().code(2).said(&["--workers"]);
    }
    offshoot(["--timeout", "0"]).file("true\n").finish().code(2).said(&["--timeout"]);
    offshoot(["--joblog", "no/such/folder"]).file("true\n").finish().code(2).said(&["no/such/folder"]);
    offshoot(["--no-such-option"]).finish().code(2).said(&["--no-such-option"]);
}

#[test]
fn lines_are_bytes() {
    let lines = b"printf '\xff\x00\xfe'\nprintf '\xff\xfe'; echo \xe9 >&2\necho ok\n";
    let ended = offshoot(NONE).file(lines).finish().code(1).wrote(b"\xff\xfeok\n");
    ended.said(&["line 1 could not be started: it has a zero byte in it", "2 passed, 1 failed (1)"]);
}

#[test]
fn a_line_of_a_mebibyte_runs() {
    let long = "x".repeat(1 << 20);
    let lines = format!("printf %s {long}; cat\necho '{long}' | wc -c\n");
    let expected = format!("{long}{}\n", (1 << 20) + 1);
    offshoot(["-q"]).file(lines).finish().code(0).wrote(expected);
}

#[test]
fn large_outputs_come_back_whole() {
    let line = "seq 1 1000000; seq 1 300000 >&2\n".repeat(3);
    let ended = offshoot(["-q"]).file(line).finish().code(0);
    let numbers = |last: u32| (1..=last).map(|number| format!("{number}\n")).collect::<String>().repeat(3);
    assert!(ended.stderr == numbers(300_000));
    ended.wrote(numbers(1_000_000));
}

#[test]
fn two_thousand_lines() {
    let lines: String = (1..=2000).map(|number| format!("echo {number}\n")).collect();
    let expected: String = (1..=2000).map(|number| format!("{number}\n")).collect();
    let ended = offshoot(NONE).file(lines).finish().code(0).wrote(expected);
    ended.said(&["2000 lines: 2000 passed in "]);
}

#[test]
fn lines_from_a_slow_pipe_are_run_as_they_come_and_none_is_lost() {
    let (theirs, mut ours) = std::io::pipe().expect("there is a descriptor left");
    let running = offshoot(["-q", "-a", "touch {}; echo {}"]).stdin(theirs).start();
    let mut expected = String::new();
    for round in 0..5 {
        let lines: String = (0..200).map(|number| format!("f{round}-{number}\n")).collect();
        ours.write_all(lines.as_bytes()).expect("it reads");
        // The next lines are written when these have run: by then the daemons of the MPI are there too,
        // and may want their share of standard input.
        running.wait_for_files(&[&format!("f{round}-199")]);
        expected.push_str(&lines);
    }
    drop(ours);
    running.finish().code(0).wrote(expected);
}

#[test]
fn ctrl_c_ends_what_runs_and_says_what_did_not() {
    stop_in_the_middle(Signal::INT, 130);
}

#[test]
fn sigterm_does_as_ctrl_c() {
    stop_in_the_middle(Signal::TERM, 143);
}

fn stop_in_the_middle(signal: Signal, code: i32) {
    let mut lines = format!("echo one\ntouch two; echo two; {LONG} & setsid {LONG}\ntouch three; {LONG}\n");
    (4..=1000).for_each(|_| lines.push_str("touch too-many\n"));
    let running = offshoot(["--workers", "2..2"]).file(lines).start();
    running.wait_for_files(&["two", "three"]);
    running.signal(signal);
    let ended = running.finish().code(code).wrote("one\ntwo\n");
    assert!(!ended.folder.path().join("too-many").exists());
    ended.said(&["1000 lines: 1 passed, 2 ended (2-3), 997 not run (4-1000) in "]);
}

#[test]
fn a_signal_while_lines_are_waited_for_ends_at_once() {
    let (theirs, ours) = std::io::pipe().expect("there is a descriptor left");
    let running = offshoot(NONE).stdin(theirs).start();
    // MPI has not been started, so this is all there is to wait for: the handler is there.
    let status = format!("/proc/{}/status", running.id());
    let begun = Instant::now();
    while !catches_interrupt(&fs::read_to_string(&status).unwrap_or_default()) {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not catch the signal");
        std::thread::sleep(Duration::from_millis(5));
    }
    running.signal(Signal::INT);
    running.finish().code(130);
    drop(ours);
}

fn catches_interrupt(status: &str) -> bool {
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 0b10 != 0))
}

#[test]
fn a_reader_that_leaves_ends_the_run() {
    let (mut ours, theirs) = std::io::pipe().expect("there is a descriptor left");
    let lines: String = (0..100_000).map(|number| format!("echo {number}\n")).collect();
    let running = offshoot(NONE).file(lines).stdout(theirs).start();
    let mut first = [0; 4];
    ours.read_exact(&mut first).expect("there is output");
    assert_eq!(&first, b"0\n1\n");
    drop(ours);
    let ended = running.finish().code(141);
    assert_eq!(ended.stderr, "", "it ends quietly");
}
