//! The house rules that a compiler does not know: who may import whom, what the core may not touch,
//! where `unsafe` may stand, how a file begins. ARCHITECTURE.md draws the floors.

use std::fs;
use std::path::{Path, PathBuf};

/// Module of `src`, and the modules that it may name. `containment`, `ids`, `isolation`, `error`, `finding` and `slots` are open
/// to all.
const FLOORS: &[(&str, &[&str])] = &[
    ("bench_support", &["core"]),
    ("core", &[]),
    ("wire", &["process"]),
    ("process", &[]),
    ("task", &["wire"]),
    ("launch", &["process", "task", "wire"]),
    ("transport", &["launch", "process", "task", "wire", "worker"]),
    ("worker", &["guard", "launch", "parent", "process", "task", "transport", "wire"]),
    (
        "guard",
        &[
            "launch",
            "process",
            "transport::bells",
            "transport::claim",
            "transport::control",
            "transport::heartbeat",
            "transport::mpi",
            "transport::stream",
            "wire",
        ],
    ),
    ("parent", &["launch", "process", "transport", "wire"]),
    ("fuzzing", &["guard", "launch", "transport", "wire"]),
    ("diagnosis", &["launch", "pool", "slots", "transport::mpi"]),
    ("driver", &["core", "launch", "pool", "process", "task", "transport", "wire"]),
    ("pool", &["core", "driver", "launch", "process", "task", "transport", "wire"]),
];

/// Files that may contain `unsafe`.
const UNSAFE: &[&str] = &[
    "src/process.rs",
    "src/process/heap.rs",
    "src/process/peer.rs",
    "src/process/sealed.rs",
    "src/process/shared.rs",
    "src/transport/mpi/ffi.rs",
    "src/transport/mpi/pmix.rs",
    "src/wire/bulk.rs",
    "bin/bench/raw.rs",
    "tests/hosts/forks.rs",
    "tests/hosts/two_mpis.rs",
];

/// What the core must not know: everything that is not the same the second time.
const IMPURE: &[&str] =
    &["std::time::Instant", "SystemTime", "std::thread", "std::sync", "std::fs", "std::net", "mpi::"];

#[test]
fn imports_go_down_only() {
    for (module, allowed) in FLOORS {
        for (path, text) in sources(&format!("src/{module}")) {
            for named in crate_paths(&text) {
                let fine = ["containment", "ids", "isolation", "error", "finding", "slots", module]
                    .iter()
                    .any(|floor| named.starts_with(floor));
                let allowed = fine || allowed.iter().any(|floor| named.starts_with(floor));
                assert!(allowed, "{}: `{module}` may not name `crate::{named}`", path.display());
            }
        }
    }
}

#[test]
fn every_module_has_its_floor() {
    let known = |name: &str| {
        FLOORS.iter().any(|(module, _)| *module == name)
            || ["lib", "containment", "ids", "isolation", "error", "finding", "slots"].contains(&name)
    };
    for entry in fs::read_dir(root().join("src")).expect("src is there").flatten() {
        let name = entry.path().file_stem().expect("it has a name").to_string_lossy().into_owned();
        assert!(
            known(&name),
            "src/{name}: say in this test what it may import, and draw it into ARCHITECTURE.md"
        );
    }
}

#[test]
fn the_core_is_pure() {
    let simulator = root().join("src/core/sim");
    for (path, text) in sources("src/core").into_iter().filter(|(path, _)| !path.starts_with(&simulator)) {
        for word in IMPURE {
            assert!(!code(&text).contains(word), "{}: the core may not use `{word}`", path.display());
        }
    }
}

#[test]
fn unsafe_stands_in_the_ffi_files_only() {
    // Spelt in two halves, so that this file does not have them.
    let word_pairs = [concat!("unsa", "fe {"), concat!("unsa", "fe fn"), concat!("unsa", "fe impl")];
    for (path, text) in everything() {
        let name = path.strip_prefix(root()).expect("it is below the root").to_string_lossy().into_owned();
        let has_unsafe = code(&text).lines().any(|line| word_pairs.iter().any(|pair| line.contains(pair)));
        assert!(!has_unsafe || UNSAFE.contains(&&*name), "{name}: `unsafe` is not for this file");
    }
}

#[test]
fn one_file_names_the_ffi_of_mpi() {
    for (path, text) in sources("src") {
        let here = code(&text).lines().any(|line| line.contains("mpi::ffi") && !line.contains("mod ffi"));
        let is_ffi = path.ends_with("transport/mpi/ffi.rs");
        assert!(
            !here || is_ffi,
            "{}: MPI's C functions are called through transport/mpi/ffi.rs",
            path.display()
        );
    }
}

#[test]
fn one_file_names_bincode() {
    for (path, text) in sources("src") {
        let here = code(&text).contains("bincode::");
        assert!(
            !here || path.ends_with("wire/codec.rs"),
            "{}: the codec is wire/codec.rs alone",
            path.display()
        );
    }
}

#[test]
fn every_file_says_first_what_it_is_for() {
    for (path, text) in everything() {
        assert!(
            text.starts_with("//!"),
            "{}: begin with `//!`: what it owns, what it does not, why",
            path.display()
        );
    }
}

#[test]
fn no_machine_is_named() {
    // Spelt in two halves, so that this file does not name them.
    for word in [concat!("/wo", "rk/"), concat!("/ro", "ot/")] {
        for (path, text) in everything() {
            assert!(!text.contains(word), "{}: `{word}…` is a path of one machine", path.display());
        }
    }
}

/// What follows `crate::` in code, tests of the module itself left out.
fn crate_paths(text: &str) -> Vec<String> {
    let code = code(text);
    let paths = code.split("crate::").skip(1).zip(code.split("crate::"));
    paths
        .filter(|(_, before)| !before.ends_with('$'))
        .flat_map(|(rest, _)| match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default().split(',').map(word).collect(),
            None => vec![word(rest)],
        })
        .filter(|path| path.starts_with(|first: char| first.is_lowercase()))
        .filter(|path| !path.starts_with("tasks") || path.starts_with("task::"))
        .collect()
}

fn word(text: &str) -> String {
    text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect()
}

/// A file without its comments.
fn code(text: &str) -> String {
    let uncommented = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    uncommented.collect::<Vec<_>>().join("\n")
}

fn everything() -> Vec<(PathBuf, String)> {
    ["src", "bin", "examples", "tests", "benches"].into_iter().flat_map(sources).collect()
}

/// The Rust files at or below a path; tests of a module may import what they like.
fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let path = root().join(below);
    let mut found = Vec::new();
    // A module may be a file, a folder, or both.
    [path.with_extension("rs"), path]
        .iter()
        .filter(|path| path.exists())
        .for_each(|path| collect(path, &mut found));
    assert!(!found.is_empty(), "{below} has no Rust file");
    found
}

fn collect(path: &Path, found: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a folder of ours can be read").flatten();
        entries.for_each(|entry| collect(&entry.path(), found));
    } else if path.extension().is_some_and(|ending| ending == "rs") {
        found.push((path.to_path_buf(), fs::read_to_string(path).expect("a file of ours can be read")));
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
