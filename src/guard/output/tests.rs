//! Lines and whose they are, what is dropped when nobody takes it, and that nothing is waited for at the end.

use std::io::{PipeWriter, Write};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// A parent in memory.
#[derive(Default)]
struct Paper {
    taken: Vec<Output>,
    is_full: bool,
}

impl Taker for Paper {
    fn has_room(&self) -> bool {
        !self.is_full
    }

    fn take(&mut self, output: Output) {
        self.taken.push(output);
    }
}

impl Paper {
    fn text(&self) -> Vec<(Option<u64>, String)> {
        let text = |output: &Output| String::from_utf8_lossy(&output.bytes).into_owned();
        self.taken.iter().map(|output| (output.task.map(TaskId::number), text(output))).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        self.taken.iter().flat_map(|output| output.bytes.to_vec()).collect()
    }
}

/// A worker's end of its pipes and its page, and the guard's.
struct Stage {
    stdout: PipeWriter,
    stderr: PipeWriter,
    outlet: Outlet,
    marker: Marker,
    now: Instant,
}

fn stage(is_wanted: bool) -> Stage {
    let (board, _page) = Board::create([0; 4]).expect("there is a page left");
    let marker = Marker::new([5, 6]);
    let (from_stdout, stdout) = std::io::pipe().expect("there is a pipe left");
    let (from_stderr, stderr) = std::io::pipe().expect("there is a pipe left");
    let outlet = Outlet::new(from_stdout, from_stderr, board, marker, is_wanted);
    Stage { stdout, stderr, outlet, marker, now: Instant::now() }
}

impl Stage {
    fn run(&mut self, task: u64) {
        self.outlet.board.begin(task);
    }

    /// A task ends of which everything has been read.
    fn stop(&mut self, task: u64) {
        self.outlet.board.end(task);
    }

    fn write(&mut self, text: &str) {
        self.stdout.write_all(text.as_bytes()).expect("it is read");
    }

    fn end(&mut self, task: u64) {
        let mark = self.marker.mark(TaskId(task));
        self.stdout.write_all(&mark).expect("it is read");
        self.stop(task);
    }

    fn read(&mut self, paper: &mut Paper) {
        self.outlet.note_room(paper, self.now);
        self.outlet.read(0, paper, self.now);
    }
}

fn told(told: &[(u64, &str)]) -> Vec<(Option<u64>, String)> {
    told.iter().map(|(task, text)| ((*task != 0).then_some(*task), (*text).to_owned())).collect()
}

#[test]
fn each_line_is_of_the_task_that_wrote_it() {
    let (mut stage, mut paper) = (stage(true), Paper::default());
    stage.run(1);
    stage.write("one\nmore of it\n");
    stage.read(&mut paper);
    stage.write("its end\n");
    stage.end(1);
    stage.run(2);
    stage.write("two\n");
    stage.end(2);
    stage.run(3);
    stage.write("three\nand a bit");
    stage.read(&mut paper);
    stage.stop(3);
    stage.write(" to the end\nnobody's\n");
    stage.read(&mut paper);
    let expected = [
        (1, "one\nmore of it\n"),
        (1, "its end\n"),
        (2, "two\n"),
        (3, "three\n"),
        (0, "and a bit to the end\nnobody's\n"),
    ];
    assert_eq!(paper.text(), told(&expected));
}

#[test]
fn a_mark_that_comes_in_two_halves_is_no_output() {
    let (mut stage, mut paper) = (stage(true), Paper::default());
    stage.run(7);
    stage.write("seven\n");
    let mark = stage.marker.mark(TaskId(7));
    stage.stdout.write_all(&mark[..10]).expect("it is read");
    stage.read(&mut paper);
    stage.stdout.write_all(&mark[10..]).expect("it is read");
    stage.write("\0 is no mark\n");
    stage.run(8);
    stage.read(&mut paper);
    assert_eq!(paper.text(), told(&[(7, "seven\n"), (8, "\0 is no mark\n")]));
}

#[test]
fn a_long_line_comes_in_pieces_and_whole() {
    let (mut stage, mut paper) = (stage(true), Paper::default());
    let line = "x".repeat(50_000);
    for part in [&line[..], &line, &line, "\nshort\n"] {
        stage.write(part);
        stage.read(&mut paper);
    }
    assert!(paper.taken.iter().all(|output| output.bytes.len() <= LINE_MAX), "{:?}", paper.taken.len());
    assert_eq!(paper.bytes(), format!("{line}{line}{line}\nshort\n").into_bytes());
}

#[test]
fn a_last_line_needs_no_end() {
    let (mut stage, mut paper) = (stage(true), Paper::default());
    stage.write("begun");
    stage.read(&mut paper);
    assert!(paper.taken.is_empty());
    stage.write(" and never ended\0");
    stage.outlet.finish(&mut paper);
    assert_eq!(paper.bytes(), b"begun and never ended\0");
}

#[test]
fn a_worker_waits_for_who_takes_its_lines_and_not_for_ever() {
    let (mut stage, mut paper) = (stage(true), Paper { is_full: true, ..Paper::default() });
    let begun = stage.now;
    stage.write("waits\n");
    stage.outlet.note_room(&paper, begun);
    assert!(stage.outlet.watched(begun).iter().all(Option::is_none), "the pipe is left alone");
    assert_eq!(stage.outlet.deadline(begun), Some(begun + PATIENCE));
    stage.now = begun + PATIENCE;
    stage.read(&mut paper);
    stage.write("more\nand more\n");
    stage.read(&mut paper);
    assert!(paper.taken.is_empty() && stage.outlet.watched(stage.now).iter().all(Option::is_some));
    assert_eq!(stage.outlet.deadline(stage.now), None, "there is nothing to wait for");
    paper.is_full = false;
    stage.write("again\n");
    stage.read(&mut paper);
    assert_eq!(paper.text(), told(&[(0, "again\n")]));
    assert_eq!(paper.taken[0].dropped, Dropped { lines: 3, bytes: 20 });
}

#[test]
fn what_nobody_wants_is_read_all_the_same() {
    let (mut stage, mut paper) = (stage(false), Paper { is_full: true, ..Paper::default() });
    stage.write("unheard\n");
    stage.stderr.write_all(b"last words\n").expect("it is read");
    stage.read(&mut paper);
    stage.now += DAY;
    stage.outlet.note_room(&paper, stage.now);
    assert!(stage.outlet.watched(stage.now).iter().all(Option::is_some));
    stage.outlet.finish(&mut paper);
    assert!(paper.taken.is_empty());
    assert_eq!(stage.outlet.last_words(), ["last words"]);
}

#[test]
fn the_last_lines_of_stderr_are_kept_within_bounds() {
    let (mut stage, mut paper) = (stage(true), Paper::default());
    for line in 0..100 {
        writeln!(stage.stderr, "{line} {}", "y".repeat(3000)).expect("it is read");
        stage.outlet.read(1, &mut paper, stage.now);
    }
    stage.outlet.finish(&mut paper);
    let words = stage.outlet.last_words();
    assert_eq!(words.len(), LINES_MAX);
    assert!(words[0].starts_with("36 ") && words.iter().all(|line| line.len() <= KEPT_LINE_MAX));
    assert_eq!(paper.bytes().len(), 100 * 3001 + 10 * 2 + 90 * 3);
}

#[test]
fn a_descendant_that_writes_on_is_not_waited_for() {
    let (mut stage, mut paper) = (stage(true), Paper::default());
    stage.write("the worker's\n");
    // Its ends of the pipes stay open all the time.
    stage.outlet.finish(&mut paper);
    assert_eq!(paper.bytes(), b"the worker's\n");
}
