//! Workers on other hosts, which are made of namespaces; and how many workers Slurm's variables allow.

mod common;

use std::process::{Command, Stdio};

use common::Scenario;

#[test]
fn tasks_run_on_two_hosts() {
    on_two_hosts("tasks_run_on_two_hosts");
}

#[test]
fn a_silent_host_is_lost() {
    on_two_hosts("a_silent_host_is_lost");
}

fn on_two_hosts(scenario: &'static str) {
    if let Some(reason) = missing() {
        println!("SKIPPED, because {reason}: {scenario}");
        return;
    }
    let said = Scenario::new(scenario)
        .launched(&[concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/fake-hosts.sh")])
        .limit(90)
        .run();
    print!("{said}");
}

/// Why there can be no fake hosts here.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root".to_owned());
    }
    let works = |command: &str, arguments: &[&str]| {
        let mut command = Command::new(command);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        let quiet = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    if !works("ip", &["-Version"]) {
        return Some("`ip` is missing (Debian: iproute2)".to_owned());
    }
    let namespaces = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "true"];
    if !works("unshare", &namespaces) {
        return Some("`unshare` is missing, or may make no namespaces here".to_owned());
    }
    None
}

#[test]
fn slots_come_from_slurm() {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Scenario::new("slots_come_from_slurm")
        .env("SLURM_JOB_NODELIST", name)
        .env("SLURM_JOB_CPUS_PER_NODE", "3")
        .env("SLURM_TASKS_PER_NODE", "1")
        .run();
}
