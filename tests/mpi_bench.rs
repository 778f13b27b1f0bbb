//! `offshoot bench`, as its users run it: that there are figures, and that they make sense. Never how good they are:
//! that depends on what else the machine does.

mod common;

use common::Scenario;
use serde_json::Value;

/// The figures of a short run with these arguments.
fn bench(arguments: &[&str]) -> Vec<Value> {
    let arguments = ["bench"].into_iter().chain(arguments.iter().copied());
    let scenario = arguments.fold(Scenario::command(), |scenario, word| scenario.argument(word));
    let text = scenario.limit(150).run();
    let figure = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in `{line}`"));
    text.lines().map(figure).collect()
}

fn number(figure: &Value, key: &str) -> f64 {
    let number = figure[key].as_f64().unwrap_or_else(|| panic!("`{key}` is no number: {figure:#}"));
    assert!(number.is_finite() && number >= 0.0, "{key}: {figure:#}");
    number
}

fn named<'a>(figures: &'a [Value], name: &str) -> Vec<&'a Value> {
    figures.iter().filter(|figure| figure["name"] == name).collect()
}

#[test]
fn a_round_trip_is_measured_beside_raw_mpi() {
    let figures = bench(&["roundtrip", "--json", "--seconds", "0.3"]);
    println!("{figures:#?}");
    let trips = named(&figures, "roundtrip");
    assert_eq!(trips.len(), figures.len(), "nothing else was asked for");
    assert!(!trips.is_empty(), "there is a figure");
    for figure in trips {
        assert!(figure["error"].is_null(), "{figure:#}");
        assert!(figure["mpi"].as_str().is_some_and(|mpi| !mpi.is_empty()), "{figure:#}");
        assert!(["survivable", "fast"].map(Value::from).contains(&figure["containment"]), "{figure:#}");
        assert_eq!((&figure["unit"], &figure["better"]), (&"us".into(), &"lower".into()));
        for key in ["ours", "raw", "ratio", "samples", "raw_samples"] {
            assert!(number(figure, key) > 0.0, "{key}: {figure:#}");
        }
        for side in ["ours", "raw"] {
            number(figure, &format!("{side}_spread"));
            assert!(number(figure, &format!("{side}_p99")) >= number(figure, side), "{figure:#}");
        }
        let [least, ratio, most] = ["ratio_min", "ratio", "ratio_max"].map(|key| number(figure, key));
        assert!(least <= ratio && ratio <= most, "{figure:#}");
        assert_eq!(figure["rounds"], 3);
    }
}

#[test]
fn the_scheduler_is_measured_alone() {
    let figures = bench(&["scheduler", "--json", "--seconds", "0.1", "--workers", "3"]);
    assert!(!figures.is_empty(), "there are figures");
    for figure in &figures {
        assert!(number(figure, "ours") > 0.0 && figure["raw"].is_null(), "{figure:#}");
    }
}

#[test]
fn a_figure_that_is_not_there_is_refused_with_those_that_are() {
    let scenario = ["bench", "speed"].iter().fold(Scenario::command(), |all, word| all.argument(word));
    scenario.code(2).run();
}
