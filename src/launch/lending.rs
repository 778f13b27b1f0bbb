//! Whether large arrays are lent: read by the process that wants them from the memory of the one that has them, and not sent.
//!
//! Each pair of processes finds out by trying. What keeps all of this machine from it can be said beforehand.

use std::fs;

use crate::finding::Finding;
use crate::process::{self, LENDING};

/// Where Linux says who may: with 0 processes of one user, with more only a parent its children, or root.
const SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// What there is to say about it.
pub(super) fn finding() -> Finding {
    const CHECK: &str = "lending";
    let sent = |why: String, remedy: String| {
        let found = format!("{why}: large arrays are sent through MPI, and copied on both sides");
        Finding { remedy: Some(remedy), ..Finding::ok(CHECK, found) }
    };
    if !process::is_lending() {
        return sent(format!("{LENDING} is `off`"), format!("unset {LENDING}"));
    }
    if !process::probe().is_some_and(|probe| probe.is_readable()) {
        let why = "no process may read another's memory here (`process_vm_readv`)".to_owned();
        return sent(why, "in a container, allow it that call".to_owned());
    }
    let scope = fs::read_to_string(SCOPE).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    if scope > 0 && !rustix::process::geteuid().is_root() {
        let why =
            format!("kernel.yama.ptrace_scope is {scope}, so that workers may not read their host's memory");
        return sent(why, "if that is wanted: `sysctl -w kernel.yama.ptrace_scope=0`".to_owned());
    }
    Finding::ok(CHECK, "large arrays are copied once, by whoever gets them, from the memory where they lie")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Status;

    #[test]
    fn it_is_said_what_keeps_arrays_from_being_lent() {
        let finding = finding();
        assert_eq!(finding.status, Status::Ok);
        // It is found where nothing else stands in the way.
        assert_eq!(finding.remedy.is_none(), finding.found.contains("copied once"), "{finding}");
    }
}
