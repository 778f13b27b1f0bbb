//! Every example runs, on real MPI, and prints what it should.

mod common;

use common::Scenario;

fn lines(output: &str) -> Vec<&str> {
    output.lines().collect()
}

#[test]
fn quickstart() {
    let output = Scenario::example("quickstart").run();
    let mut expected = vec!["1 + 2 = 3".to_owned()];
    expected.extend((1..=5).map(|size| format!("a chunk sums to {size}")));
    assert_eq!(lines(&output), expected);
}

#[test]
fn task_distribution() {
    let output = Scenario::example("task_distribution").run();
    let (total, parts) =
        lines(&output).split_last().map(|(last, rest)| (*last, rest.to_vec())).expect("output");
    assert_eq!(total, "total = 499500");
    assert_eq!(parts.len(), 10);
    assert!(parts[0].starts_with("  0..100  =  4950 by worker "), "{output}");
    assert!(parts[9].starts_with("900..1000 = 94950 by worker "), "{output}");
}

#[test]
fn error_handling() {
    let output = Scenario::example("error_handling").run();
    let count = |what: &str| lines(&output).iter().filter(|line| line.contains(what)).count();
    assert_eq!(count(" failed:"), count(" cannot be squared"), "{output}");
    assert_eq!(count(" failed:"), count("      the dice show only "), "{output}");
    assert_eq!(count(" panicked:"), count("      the dice show nothing"), "{output}");
    assert_eq!(count(") on worker "), count(" failed:") + count(" panicked:"), "{output}");
    assert!(count(" failed:") > 0 && count(" panicked:") > 0, "the seed shows both: {output}");
    assert_eq!(lines(&output).last(), Some(&"5 of 20 failed, the squares of the others sum up to 2087"));
}

#[test]
fn host_api() {
    let output = Scenario::example("host_api").run();
    let expected: Vec<_> =
        (1..=4).map(|caller| format!("caller {caller} got [{}.0, 1.0, -2.0]", 2 * caller)).collect();
    assert_eq!(lines(&output), expected);
}

#[test]
fn two_programs() {
    let output = Scenario::example("two_programs").run();
    let expected =
        ["0 spawned before the first task", "4 words; 1 spawned", "25 primes below 100; 2 spawned"];
    assert_eq!(lines(&output), expected);
}

#[test]
fn elastic() {
    let output = Scenario::example("elastic").run();
    let seen: Vec<usize> = lines(&output)
        .iter()
        .filter_map(|line| line.split_once(" workers, ").and_then(|(left, _)| left.split(' ').next_back()))
        .map(|count| count.parse().expect("a number of workers"))
        .collect();
    assert!(seen.contains(&3), "it grows to three: {output}");
    assert_eq!(seen.last(), Some(&0), "and shrinks to none: {output}");
    assert_eq!(lines(&output).last(), Some(&"30 tasks done, 3 workers came and went"));
}

#[test]
fn futures() {
    let output = Scenario::example("futures").run();
    assert_eq!(lines(&output), ["3 and 4 make 5", "5 and 12 make 13"]);
}
