//! `offshoot doctor` on real MPI: what it says where all is well, and where it is not.

mod run_support;

use run_support::subcommand;
use serde_json::Value;

#[test]
fn it_spawns_two_workers_and_kills_one() {
    let ended = subcommand("doctor", ["--timeout", "30"]).finish().code(0);
    let said = String::from_utf8(ended.stdout).expect("it writes text");
    for words in [
        "both workers answered",
        "round trip of a task",
        "a worker killed, noticed after",
        "the other one lives",
        "slots",
        "Workers can be spawned here.",
    ] {
        assert!(said.contains(words), "no `{words}` in\n{said}");
    }
    assert!(!said.contains("FAIL"), "{said}");
}

#[test]
fn json_is_one_object_with_everything_in_it() {
    let ended = subcommand("doctor", ["--json"]).env("OMPI_MCA_mpi_yield_when_idle", "1").finish().code(0);
    let report: Value = serde_json::from_slice(&ended.stdout).expect("it is JSON");
    assert_eq!(report["works"], true);
    assert_eq!(report["thread_level"], "MPI_THREAD_MULTIPLE");
    for key in ["mpi", "mpi_version", "library", "launcher"] {
        assert!(report[key].is_string(), "{key}: {}", report[key]);
    }
    assert!(report["slots"]["hosts"][0]["slots"].as_u64().is_some_and(|slots| slots > 0));
    let environment = report["environment"].as_array().expect("it is a list");
    let yielding = environment.iter().find(|variable| variable["name"] == "OMPI_MCA_mpi_yield_when_idle");
    if report["mpi"].as_str().is_some_and(|mpi| mpi.starts_with("Open MPI")) {
        assert_eq!(yielding.expect("it is needed")["origin"], "user", "what the user has set is left");
    }
    let trial = &report["trial"];
    assert!(trial["error"].is_null(), "{trial}");
    let workers = trial["workers"].as_array().expect("it is a list");
    assert!(
        workers.len() == 2 && workers[0] != workers[1] && workers.contains(&trial["survivor"]),
        "{trial}"
    );
    for time in ["init_ms", "first_answer_ms", "round_trip_us", "death_noticed_ms", "end_ms"] {
        assert!(trial[time].as_f64().is_some_and(|time| time > 0.0), "{time}: {trial}");
    }
}

#[test]
fn containment_is_shown() {
    for (chosen, status) in [("survivable", "ok"), ("fast", "ok"), ("none", "failure")] {
        let subcommand = subcommand("doctor", ["--json", "--look-only"]).env("OFFSHOOT_CONTAINMENT", chosen);
        let ended = subcommand.finish().code(if status == "ok" { 0 } else { 1 });
        let report: Value = serde_json::from_slice(&ended.stdout).expect("it is JSON");
        let findings = report["findings"].as_array().expect("it is a list");
        let finding =
            findings.iter().find(|finding| finding["check"] == "containment").expect("it is looked at");
        // Not every build of every MPI has what it takes; then that is said.
        if chosen == "survivable" && finding["status"] == "warning" {
            assert!(report["containment"] == "fast" && finding["remedy"].is_string(), "{report}");
            continue;
        }
        assert_eq!(finding["status"], status, "{finding}");
        assert_eq!(report["containment"], if chosen == "survivable" { chosen } else { "fast" });
    }
}

#[test]
fn a_transport_of_the_users_is_left_and_not_trusted() {
    // What each MPI is told; this is none of what survives.
    let theirs = [("UCX_TLS", "all"), ("OMPI_MCA_btl_tcp_flags", "put,send"), ("FI_PROVIDER", "shm")];
    let subcommand = subcommand("doctor", ["--json", "--look-only"]);
    let subcommand =
        theirs.into_iter().fold(subcommand, |subcommand, (name, value)| subcommand.env(name, value));
    let ended = subcommand.finish().code(0);
    let report: Value = serde_json::from_slice(&ended.stdout).expect("it is JSON");
    assert_eq!(report["containment"], "fast");
    let findings = report["findings"].as_array().expect("it is a list");
    let finding = findings.iter().find(|finding| finding["check"] == "containment").expect("it is looked at");
    assert_eq!(finding["status"], "warning");
}

#[test]
fn what_is_wrong_comes_with_a_remedy_and_nothing_is_spawned() {
    let ended = subcommand("doctor", ["--json"]).env("OFFSHOOT_HOSTFILE", "/nowhere/hosts").finish().code(1);
    let report: Value = serde_json::from_slice(&ended.stdout).expect("it is JSON");
    assert!(report["trial"].is_null() && report["works"] == false, "{report}");
    let findings = report["findings"].as_array().expect("it is a list");
    let failure = findings.iter().find(|finding| finding["status"] == "failure").expect("one failed");
    assert!(failure["found"].as_str().is_some_and(|found| found.contains("/nowhere/hosts")), "{failure}");
    assert!(failure["remedy"].is_string(), "{failure}");
}

#[test]
fn another_installation_is_looked_at_or_refused() {
    subcommand("doctor", ["--mpi", "/nowhere"]).finish().code(2).said(&["`/nowhere` is no folder"]);
    subcommand("doctor", ["--mpi", "/usr/share"]).finish().code(2).said(&["holds no MPI"]);
    // The one that is loaded is as good as another, where it lies in a folder of its own.
    let ended = subcommand("doctor", ["--json", "--look-only"]).finish().code(0);
    let report: Value = serde_json::from_slice(&ended.stdout).expect("it is JSON");
    let launcher = report["launcher"].as_str().expect("there is one").to_owned();
    let folder = launcher.rsplit_once("/bin/").expect("it lies in `bin`").0.to_owned();
    if std::path::Path::new(&folder).join("lib").is_dir() && folder != "/usr" {
        let ended = subcommand("doctor", ["--mpi", folder.as_str(), "--look-only"]).finish().code(0);
        let said = String::from_utf8(ended.stdout).expect("it writes text");
        assert!(said.contains(&format!("launcher       {launcher}")), "{said}");
    }
}
