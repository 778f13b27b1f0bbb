//! The way to other hosts, looked at before an MPI tries it: those wait for ever for a host that does not
//! answer. Each is asked through the remote shell that the MPI uses too.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::family::{Agent, Placement};
use super::installation::in_path;
use super::prepare::prepared;
use crate::error::BuildError;
use crate::finding::Finding;
use crate::slots::{HostSlots, Slots, SlotsError, Source};

const CHECK: &str = "other hosts";
/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The exit code of a host that lacks the executable; ssh itself ends with 255, and others with 1.
const MISSING: i32 = 97;
/// Hosts that are asked at once.
const AT_ONCE: usize = 32;

/// Keys and values for `MPI_Comm_spawn`.
pub(crate) type Hints = Vec<(&'static str, String)>;

/// A host that workers are started on, and what is needed for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) host: HostSlots,
    /// What `MPI_Comm_spawn` is told so that it starts a worker there.
    pub(crate) info: Hints,
    /// This host's address as that one reaches it.
    pub(crate) route: Option<IpAddr>,
    /// Whether it is asked through the remote shell before the MPI tries it.
    pub(crate) is_asked: bool,
    /// Whether it was asked, and is there.
    pub(crate) has_answered: bool,
}

/// Prepares for workers on these hosts. Those that `workers` of them fill first are asked whether they are there.
pub(crate) fn sites(slots: &Slots, workers: u32) -> Result<Vec<Site>, BuildError> {
    let refused = |reason: &str| {
        let source_of_slots = slots.source.clone();
        Err(SlotsError::OwnHostOnly { source_of_slots, reason: reason.to_owned() }.into())
    };
    let plain = |host: &HostSlots| Site {
        host: host.clone(),
        info: vec![],
        route: None,
        is_asked: false,
        has_answered: false,
    };
    let placement = prepared().and_then(|prepared| prepared.family).map(|family| &family.placement);
    let (keys, own_host_first) = match placement {
        _ if !slots.has_other_hosts() => return Ok(slots.hosts.iter().map(plain).collect()),
        _ if prepared().is_none() => return Err(BuildError::NotInitialized),
        Some(Placement::Keys { keys, own_host_first, .. }) => (*keys, *own_host_first),
        Some(Placement::OwnHostOnly(reason)) => return refused(reason),
        None => return refused("how this MPI is told of hosts is unknown: use Open MPI 4.1 or MPICH"),
    };
    // In an allocation the MPIs start through Slurm, which vouches for its nodes.
    let is_asked = slots.source != Source::Slurm && agent().is_some();
    let site = |host: &HostSlots| {
        let name = if host.is_own { own_host_name(&host.name) } else { host.name.clone() };
        Ok(Site {
            info: keys.iter().map(|key| (*key, name.clone())).collect(),
            route: if host.is_own { None } else { Some(route(&host.name)?) },
            is_asked: is_asked && !host.is_own,
            has_answered: false,
            host: host.clone(),
        })
    };
    let mut sites =
        slots.hosts.iter().map(site).collect::<Result<Vec<_>, Finding>>().map_err(BuildError::Preflight)?;
    if own_host_first {
        sites.sort_by_key(|site| !site.host.is_own);
    }
    ask_those_needed(&mut sites, workers).map_err(BuildError::Preflight)?;
    Ok(sites)
}

/// What tells the MPI to start a worker on this host, in a process that has workers on others too.
pub(crate) fn own_host_info() -> Hints {
    match prepared().and_then(|prepared| prepared.family).map(|family| &family.placement) {
        Some(Placement::Keys { keys, .. }) => keys.iter().map(|key| (*key, super::own_name())).collect(),
        Some(Placement::OwnHostOnly(_)) | None => vec![],
    }
}

/// Whether workers can still be started when a host that had some is gone.
pub(crate) fn outlives_hosts() -> bool {
    match prepared().and_then(|prepared| prepared.family).map(|family| &family.placement) {
        Some(Placement::Keys { outlives_hosts, .. }) => *outlives_hosts,
        Some(Placement::OwnHostOnly(_)) | None => true,
    }
}

/// The name of this host that means the same to every process of the MPI.
fn own_host_name(name: &str) -> String {
    if name == "localhost" || name.starts_with("127.") { super::own_name() } else { name.to_owned() }
}

/// The address of this host that packets to `host` leave from. Nothing is sent.
fn route(host: &str) -> Result<IpAddr, Finding> {
    let towards = |address| {
        let socket = UdpSocket::bind(if matches!(address, IpAddr::V6(_)) { "[::]:0" } else { "0.0.0.0:0" })?;
        socket.connect((address, 9))?;
        socket.local_addr().map(|address| address.ip())
    };
    let found = (host, 9_u16).to_socket_addrs().and_then(|mut addresses| {
        let first = addresses.next().ok_or(std::io::ErrorKind::NotFound)?;
        towards(first.ip())
    });
    found.map_err(|error| {
        let remedy =
            format!("look with `getent hosts {host}` and `ip route get`, or leave it out of the list");
        Finding::failure(
            CHECK,
            format!("`{host}` has no address that can be reached from here: {error}"),
            remedy,
        )
    })
}

/// Asks the hosts that this many workers fill.
fn ask_those_needed(sites: &mut [Site], workers: u32) -> Result<(), Finding> {
    let mut room = workers;
    let mut hosts = VecDeque::new();
    for site in sites {
        if room == 0 {
            break;
        }
        room = room.saturating_sub(site.host.slots);
        site.has_answered = true;
        if site.is_asked {
            hosts.push_back(site.host.name.as_str());
        }
    }
    let threads = hosts.len().min(AT_ONCE);
    let (hosts, findings) = (Mutex::new(hosts), Mutex::new(Vec::new()));
    let next = || hosts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(host) = next() {
                    let answer = ask(host);
                    findings.lock().unwrap_or_else(PoisonError::into_inner).extend(answer.err());
                }
            });
        }
    });
    let mut findings = findings.into_inner().unwrap_or_else(PoisonError::into_inner);
    findings.sort_by(|one, other| one.found.cmp(&other.found));
    match findings.len() {
        0 => Ok(()),
        1 => Err(findings.remove(0)),
        count => {
            let first = findings.remove(0);
            Err(Finding { found: format!("{} ({} more likewise)", first.found, count - 1), ..first })
        }
    }
}

/// The remote shell of this MPI, as words; `None` where it starts otherwise.
fn agent() -> Option<Vec<String>> {
    match prepared()?.family?.placement {
        Placement::Keys { agent: Agent { variable, only_with, default }, .. } => {
            let is_other = only_with.is_some_and(|(variable, values)| {
                env::var(variable).is_ok_and(|value| !values.contains(&value.as_str()))
            });
            let named = env::var(variable).ok().filter(|value| !value.trim().is_empty());
            (!is_other).then(|| choose_agent(&named.unwrap_or_else(|| default.to_owned())))
        }
        Placement::OwnHostOnly(_) => None,
    }
}

/// Of several, with colons between them, the first that is there.
fn choose_agent(list: &str) -> Vec<String> {
    let words = |agent: &str| agent.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let is_there = |agent: &Vec<String>| {
        agent.first().is_some_and(|name| name.contains('/') || in_path(OsStr::new(name)).is_some())
    };
    list.split(':').map(words).find(is_there).unwrap_or_else(|| words(list))
}

/// Asks a host whether it is there, and has this executable where it is here.
pub(crate) fn ask(host: &str) -> Result<(), Finding> {
    let Some(agent) = agent() else { return Ok(()) };
    let executable = env::current_exe().unwrap_or_default();
    ask_through(&agent, host, &executable.to_string_lossy())
}

fn ask_through(agent: &[String], host: &str, executable: &str) -> Result<(), Finding> {
    let by_hand = format!("{} {host} true", agent.join(" "));
    let refuse = |found: String, remedy: String| Err(Finding::failure(CHECK, found, remedy));
    let Some((name, words)) = agent.split_first() else { return Ok(()) };
    let mut command = Command::new(name);
    command.args(words);
    if name.ends_with("ssh") {
        // Nobody is there to type a password.
        command.args(["-o", "BatchMode=yes"]);
    }
    command.arg(host).arg(format!("test -x '{}' || exit {MISSING}", executable.replace('\'', r"'\''")));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let remedy = format!("type `{by_hand}`: it must end at once, without a question and with exit code 0");
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return refuse(format!("`{name}`, the remote shell, does not start: {error}"), remedy),
    };
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => break None,
        }
    };
    match status.map(|status| status.code()) {
        Some(Some(0)) => Ok(()),
        Some(Some(MISSING)) => refuse(
            format!("`{host}` does not have this executable at `{executable}`"),
            "copy it there, or start it from a folder that all hosts share".to_owned(),
        ),
        Some(_) => refuse(format!("`{host}` cannot be reached through `{}`", agent.join(" ")), remedy),
        None => {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait();
            refuse(format!("`{host}` did not answer within {PATIENCE:?}"), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a host whose remote shell is this script; its arguments are host and command.
    fn verdict(script: &str) -> Result<(), String> {
        let agent = ["sh", "-c", script, "agent"].map(str::to_owned);
        ask_through(&agent, "n7", "/opt/it's here/model").map_err(|finding| finding.to_string())
    }

    #[test]
    fn a_host_that_answers_is_fine() {
        assert_eq!(verdict("exit 0"), Ok(()));
        assert_eq!(
            verdict(r#"[ "$1" = n7 ] && [ "$2" = "test -x '/opt/it'\\''s here/model' || exit 97" ]"#),
            Ok(())
        );
    }

    #[test]
    fn a_host_that_does_not_is_refused_with_the_command_to_type() {
        let refused = verdict("exit 255").expect_err("it is out of reach");
        assert!(
            refused.contains("`n7` cannot be reached") && refused.contains("agent n7 true`"),
            "{refused}"
        );
        let refused = verdict("exit 97").expect_err("the executable is missing");
        assert!(refused.contains("does not have this executable"), "{refused}");
        let missing = ask_through(&["/no/such/agent".to_owned()], "n7", "/x").expect_err("there is none");
        assert!(missing.found.contains("does not start"), "{missing}");
    }

    #[test]
    fn a_host_that_hangs_is_given_up_with_all_that_asks_it() {
        let begun = Instant::now();
        let refused = verdict("sleep 60 & sleep 60").expect_err("it does not answer");
        assert!(refused.contains("did not answer within 3s"), "{refused}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn the_first_remote_shell_that_is_there_is_used() {
        assert_eq!(choose_agent("sh -c : rsh"), ["sh", "-c"]);
        assert_eq!(choose_agent("no-such-shell : sh"), ["sh"]);
        assert_eq!(choose_agent("/opt/agent -q"), ["/opt/agent", "-q"]);
        assert_eq!(choose_agent("no-such-shell"), ["no-such-shell"]);
    }

    #[test]
    fn a_route_is_an_address_of_this_host() {
        assert_eq!(route("127.0.0.1"), Ok(IpAddr::from([127, 0, 0, 1])));
        assert!(route("no-such-host.invalid").is_err());
    }
}
