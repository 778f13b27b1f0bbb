//! Where lines turn up, and that an end waits for them.

use std::fmt::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;

fn lines(stream: StreamName, task: Option<u64>, text: &str) -> wire::Output {
    let (task, dropped) = (task.map(TaskId), Dropped::default());
    wire::Output { stream, task, dropped, bytes: text.to_owned().into() }
}

fn say(voice: &Voice, output: wire::Output) {
    voice.say("node1".into(), output, None);
}

#[test]
fn each_stream_of_each_worker_has_a_file() {
    let folder = tempfile::tempdir().expect("there is room");
    let logs = folder.path().join("a/b");
    let sink = Sink::start(Output::Directory(logs.clone())).expect("it starts").expect("it writes");
    let (zero, one) = (sink.voice(WorkerId(0)), sink.voice(WorkerId(1)));
    say(&zero, lines(StreamName::Stdout, Some(1), "one\ntwo\n"));
    say(&one, lines(StreamName::Stderr, None, "trouble\n"));
    say(&zero, lines(StreamName::Stdout, None, "no end"));
    let dropped = Dropped { lines: 3, bytes: 17 };
    say(&one, wire::Output { dropped, ..lines(StreamName::Stderr, None, "more\n") });
    drop((zero, one));
    sink.wait_until_written(Duration::from_secs(20));
    let read = |name: &str| fs::read_to_string(logs.join(name)).unwrap_or_default();
    assert_eq!(read("worker-0.out"), "one\ntwo\nno end");
    let notice = "[offshoot: 3 lines (17 bytes) of stderr of worker 1 were dropped: nobody took them]\n";
    assert_eq!(read("worker-1.err"), format!("trouble\n{notice}more\n"));
    assert_eq!(fs::read_dir(&logs).expect("it was made").count(), 2, "no file without a line");
}

#[test]
fn an_end_waits_for_the_workers_that_write_and_not_for_ever() {
    let folder = tempfile::tempdir().expect("there is room");
    let sink =
        Sink::start(Output::Directory(folder.path().to_owned())).expect("it starts").expect("it writes");
    let voice = sink.voice(WorkerId(0));
    let begun = Instant::now();
    sink.wait_until_written(Duration::from_millis(50));
    assert!(begun.elapsed() >= Duration::from_millis(50), "a worker is there");
    // Of one that has said goodbye only its libraries have something to say.
    voice.note_leaving();
    voice.note_leaving();
    let said = Instant::now();
    sink.wait_until_written(Duration::from_secs(600));
    assert!(said.elapsed() >= LAST_WORDS_PATIENCE && said.elapsed() < Duration::from_secs(60));
    drop(voice);
    sink.wait_until_written(Duration::from_secs(600));
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn nothing_is_started_for_nothing() {
    assert!(Sink::start(Output::Discard).expect("nothing can fail").is_none());
    assert!(Sink::start(Output::Directory("/dev/null/logs".into())).is_err());
}

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Secretary(Arc<Mutex<Vec<String>>>);

impl Subscriber for Secretary {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "offshoot::worker"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Fields(String);
        impl Visit for Fields {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                let _ = write!(self.0, "{}={value:?} ", field.name());
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        assert!(!fields.0.contains("panic"), "this subscriber has a weak point");
        self.0.lock().expect("nobody panics with it").push(fields.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn each_line_is_an_event_of_the_subscriber_of_whoever_built_the_pool() {
    let secretary = Secretary::default();
    let sink = tracing::subscriber::with_default(secretary.clone(), || Sink::start(Output::Tracing));
    let sink = sink.expect("it starts").expect("it writes");
    let voice = sink.voice(WorkerId(4));
    say(&voice, lines(StreamName::Stdout, Some(7), "one\ntwo\n"));
    say(&voice, lines(StreamName::Stderr, None, "panic\n"));
    say(&voice, lines(StreamName::Stderr, None, "three"));
    drop(voice);
    sink.wait_until_written(Duration::from_secs(20));
    let noted = secretary.0.lock().expect("nobody panics with it");
    let expected = [
        "message=one worker=4 host=\"node1\" task=7 stream=\"stdout\" ",
        "message=two worker=4 host=\"node1\" task=7 stream=\"stdout\" ",
        "message=three worker=4 host=\"node1\" stream=\"stderr\" ",
    ];
    assert_eq!(*noted, expected);
}
