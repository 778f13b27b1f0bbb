//! How an isolated parent is started: what it finds in its environment, and what it must not.
//!
//! It has the environment that the host's user gave, because it prepares it for its MPI itself. What a launcher told the
//! host, a rank of some job, is not for the parent: that would take itself for the same rank.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::roles::{ROLE_PARENT, ROLE_VARIABLE};
use crate::containment::{Containment, VARIABLE as CONTAINMENT_VARIABLE};
use crate::process;
use crate::wire::frame::PROTOCOL_VERSION;

/// In the environment of a parent: protocol version, descriptor of its socket, and its host's process.
const PARENT_VARIABLE: &str = "OFFSHOOT_PARENT";

/// What launchers say to the processes of a job, by the beginning of its name.
const JOB_VARIABLES: &[&str] = &[
    "HYDI_CONTROL_FD",
    "MPI_LOCALNRANKS",
    "MPI_LOCALRANKID",
    "OMPI_APP_CTX_NUM_PROCS",
    "OMPI_ARGV",
    "OMPI_COMMAND",
    "OMPI_COMM_WORLD_",
    "OMPI_FILE_LOCATION",
    "OMPI_FIRST_RANKS",
    "OMPI_MCA_ess",
    "OMPI_MCA_initial_wdir",
    "OMPI_MCA_num_procs",
    "OMPI_MCA_orte_app_num",
    "OMPI_MCA_orte_bound_at_launch",
    "OMPI_MCA_orte_ess_",
    "OMPI_MCA_orte_hnp_uri",
    "OMPI_MCA_orte_jobfam_session_dir",
    "OMPI_MCA_orte_launch",
    "OMPI_MCA_orte_local_daemon_uri",
    "OMPI_MCA_orte_num_nodes",
    "OMPI_MCA_orte_precondition_transports",
    "OMPI_MCA_orte_tmpdir_base",
    "OMPI_MCA_orte_top_session_dir",
    "OMPI_MCA_pmix",
    "OMPI_MCA_shmem_RUNTIME_QUERY_hint",
    "OMPI_NUM_APP_CTX",
    "OMPI_TOOL_NAME",
    "OMPI_UNIVERSE_SIZE",
    "OMPI_WORLD_",
    "PMIX_BFROP_BUFFER_TYPE",
    "PMIX_DSTORE_",
    "PMIX_GDS_MODULE",
    "PMIX_HOSTNAME",
    "PMIX_ID",
    "PMIX_NAMESPACE",
    "PMIX_PARAM_FILE_PASSED",
    "PMIX_RANK",
    "PMIX_SECURITY_MODE",
    "PMIX_SERVER_",
    "PMIX_SYSTEM_TMPDIR",
    "PMIX_VERSION",
    "PMI_",
    "PRTE_LAUNCHED",
];
/// The environment of a parent that finds its socket under this number. Unless it was said otherwise, its MPI uses its
/// fastest transport: a death in the middle of a transfer costs a parent, and no host.
pub(crate) fn parent_environment(
    socket: RawFd,
    containment: Option<Containment>,
) -> Vec<(OsString, OsString)> {
    let mut environment: Vec<_> = process::original_environment();
    environment.retain(|(name, _)| !is_of_a_job(&name.to_string_lossy()));
    let mut set = |name: &str, value: String| {
        environment.retain(|(known, _)| known != name);
        environment.push((name.into(), value.into()));
    };
    set(ROLE_VARIABLE, ROLE_PARENT.to_owned());
    set(PARENT_VARIABLE, format!("{PROTOCOL_VERSION}/{socket}/{}", std::process::id()));
    let is_chosen = env::var_os(CONTAINMENT_VARIABLE).is_some();
    if let Some(containment) = containment.or_else(|| (!is_chosen).then_some(Containment::Fast)) {
        set(CONTAINMENT_VARIABLE, containment.to_string());
    }
    environment
}

fn is_of_a_job(name: &str) -> bool {
    JOB_VARIABLES.iter().any(|beginning| name.starts_with(beginning))
}

/// Removes what Open MPI 4 leaves in the folder for temporary files when a parent or its daemon is killed: empty folders,
/// `ompi.HOST.USER/jf.JOB`, and those of daemons that are gone, `ompi.HOST.USER/pid.DAEMON`.
pub(crate) fn remove_daemons_folders() {
    let user = format!(".{}", rustix::process::geteuid().as_raw());
    let own = super::own_name();
    let own = own.split('.').next().unwrap_or_default();
    for sessions in entries(&env::temp_dir()) {
        let name = name(&sessions);
        // Processes of another host, or of a container with a name of its own, are not to be seen here.
        if !(name.starts_with(&format!("ompi.{own}")) && name.ends_with(&user)) {
            continue;
        }
        // One that was made just now is about to be filled.
        let is_old = |entry: &fs::DirEntry| {
            let age =
                entry.metadata().and_then(|data| data.modified()).map(|at| at.elapsed().unwrap_or_default());
            age.is_ok_and(|age| age > YOUTH)
        };
        for job in entries(&sessions.path()).filter(is_old) {
            match id_in(&job, "pid.") {
                Some(id) if process::has_ended(id) => drop(fs::remove_dir_all(job.path())),
                _ => remove_empty(&job.path(), DEPTH),
            }
        }
        let _ = fs::remove_dir(sessions.path());
    }
}

/// Removes the folder that the launcher of Open MPI 5 had for a parent that was killed, if the launcher is gone too:
/// `prte.LAUNCHER`, in which a file is called `singleton.….PARENT`.
pub(crate) fn remove_launchers_folders(parent: u32) {
    let user = rustix::process::geteuid().as_raw();
    let parent = format!(".{parent}");
    for folder in entries(&env::temp_dir()) {
        let launcher = id_in(&folder, "prte.");
        let is_of_user = || folder.metadata().is_ok_and(|data| data.is_dir() && data.uid() == user);
        let is_for =
            |file: fs::DirEntry| name(&file).starts_with("singleton.") && name(&file).ends_with(&parent);
        let is_over = launcher.is_some_and(process::has_ended) && is_of_user();
        if is_over && entries(&folder.path()).any(is_for) {
            // Somebody else may be doing the same.
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

fn name(entry: &fs::DirEntry) -> String {
    entry.file_name().to_string_lossy().into_owned()
}

/// The process that it is called after.
fn id_in(entry: &fs::DirEntry, beginning: &str) -> Option<u32> {
    name(entry).strip_prefix(beginning)?.parse().ok()
}

/// How deep the folders of a job lie in one another.
const DEPTH: u32 = 3;

/// Removes a folder, and those in it, as far as nothing but folders is in them.
fn remove_empty(folder: &Path, depth: u32) {
    if depth > 0 {
        let folders = entries(folder).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.for_each(|inner| remove_empty(&inner.path(), depth - 1));
    }
    // It fails for what is not empty.
    let _ = fs::remove_dir(folder);
}

/// How long a folder may be empty and still be somebody's.
const YOUTH: Duration = Duration::from_millis(500);

/// In a parent: the number of its socket, and its host, taken out of its environment.
pub(super) fn take_parent() -> Result<(RawFd, u32), String> {
    let told = env::var(PARENT_VARIABLE).unwrap_or_default();
    process::remove_variable(PARENT_VARIABLE);
    parse_parent(&told)
}

fn parse_parent(told: &str) -> Result<(RawFd, u32), String> {
    let nonsense = || format!("{PARENT_VARIABLE} is `{told}`, which makes no sense");
    let [version, socket, host] =
        told.split('/').collect::<Vec<_>>().try_into().map_err(|_: Vec<&str>| nonsense())?;
    if version != PROTOCOL_VERSION.to_string() {
        return Err(format!(
            "a host of protocol version {version} started a parent of version {PROTOCOL_VERSION}: build both with the \
             same offshoot"
        ));
    }
    let socket: RawFd = socket.parse().map_err(|_| nonsense())?;
    let host = host.parse().map_err(|_| nonsense())?;
    if socket > 2 { Ok((socket, host)) } else { Err(nonsense()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_launcher_says_is_kept_from_the_parent() {
        for name in ["PMI_RANK", "PMI_FD", "OMPI_COMM_WORLD_SIZE", "PMIX_NAMESPACE", "PMIX_SERVER_URI41"] {
            assert!(is_of_a_job(name), "{name}");
        }
        let users = ["OMPI_MCA_btl", "OMPI_MCA_orte_default_hostfile", "HYDRA_HOST_FILE", "UCX_TLS", "PATH"];
        assert!(!users.iter().any(|name| is_of_a_job(name)));
    }

    #[test]
    fn only_what_is_empty_is_removed() {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let [empty, used] = ["jf.0/1/0", "jf.0/2/0"].map(|inner| folder.path().join(inner));
        fs::create_dir_all(&empty).expect("it can be made");
        fs::create_dir_all(&used).expect("it can be made");
        fs::write(used.join("file"), "").expect("it can be written");
        remove_empty(&folder.path().join("jf.0"), DEPTH);
        assert!(used.join("file").exists() && !folder.path().join("jf.0/1").exists());
        fs::remove_file(used.join("file")).expect("it is there");
        remove_empty(&folder.path().join("jf.0"), DEPTH);
        assert!(!folder.path().join("jf.0").exists());
    }

    #[test]
    fn a_parent_reads_what_its_host_told() {
        assert_eq!(parse_parent(&format!("{PROTOCOL_VERSION}/7/12")), Ok((7, 12)));
        for nonsense in ["", "7/12", "0/7/12", "3/2/12", "3/-1/12", "3/7/12/9", "3/x/12"] {
            assert!(parse_parent(nonsense).is_err(), "{nonsense}");
        }
    }
}
