//! What an MPI leaves in the folder for temporary files, and its removal.
//!
//! Open MPI: a process that was started plainly makes folders when it initializes MPI, `ompi.HOST.USER/jf.0/JOB/0` or
//! `ompi.HOST.USER/jf.FAMILY/JOB/0`, and leaves most of them there when it is killed, that of version 5 even at a clean end. It
//! puts nothing into them as long as it is alone in its job, nor does it miss them, so they go as soon as they are there. Its
//! launcher has a folder of its own, and removes it unless it is killed; then this process does at its end, and if that is
//! killed as well, one of its guards. Several processes of a user may share the outermost folder: it goes when it is empty.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::daemons::end_widowed_launcher;
use super::family::{Family, Scratch};
use super::prepare::prepared;
use crate::process::has_ended;

fn scratch_of_host() -> Option<&'static Scratch> {
    prepared()?.family?.scratch.as_ref()
}

/// Whether this host has folders that [`remove_own_folders`] removes.
pub(crate) fn has_own_folders() -> bool {
    scratch_of_host().is_some()
}

/// Removes the folders of this process, which has just initialized MPI and is alone in its job. The name of a port of
/// its own tells the job's.
pub(crate) fn remove_own_folders(port: &str) {
    let Some((scratch, (job, _))) = scratch_of_host().zip(port.split_once('.')) else { return };
    let user = format!(".{}", rustix::process::geteuid().as_raw());
    for folder in entries(&base()).filter(|folder| {
        name(folder).is_some_and(|name| name.starts_with(scratch.process) && name.ends_with(&user))
    }) {
        // Only what is empty goes, from the innermost on: others of this user may have theirs beside it.
        for inner in (scratch.of_process)(job).into_iter().chain([String::new()]) {
            if fs::remove_dir(folder.join(inner)).is_err() {
                break;
            }
        }
    }
}

/// The folders of launchers that this process has started, whether they live or not: they name the process for which they
/// are.
pub(super) fn launcher_folders() -> Vec<PathBuf> {
    let Some(scratch) = scratch_of_host() else { return Vec::new() };
    let Some(client) = scratch.client else {
        let named = env::var_os(scratch.variable).map(PathBuf::from);
        return named.filter(|folder| is_of_launcher(scratch, folder)).into_iter().collect();
    };
    let own = format!(".{}", std::process::id());
    let is_for_this =
        |entry: PathBuf| name(&entry).is_some_and(|name| name.starts_with(client) && name.ends_with(&own));
    let launchers = entries(&base()).filter(|folder| is_of_launcher(scratch, folder));
    launchers.filter(|folder| entries(folder).any(is_for_this)).collect()
}

fn is_of_launcher(scratch: &Scratch, folder: &Path) -> bool {
    name(folder).is_some_and(|name| name.starts_with(scratch.launcher)) && belongs_to_this_user(folder)
}

/// Removes a launcher's folder, and the one around it if that is empty then, and not that for all temporary files.
pub(super) fn remove_launcher_folder(folder: &Path) {
    // Somebody else may be doing the same.
    let _ = fs::remove_dir_all(folder);
    let Some(scratch) = Family::of_this_process().and_then(|family| family.scratch.as_ref()) else { return };
    if let Some(around) = folder.parent().filter(|around| {
        name(around).is_some_and(|name| name.starts_with(scratch.process)) && belongs_to_this_user(around)
    }) {
        let _ = fs::remove_dir(around);
    }
}

/// In a guard that leaves: if its host is dead, it ends the launcher that has started it, and removes that one's folder.
pub(crate) fn clear_up_after(host: u32) {
    if !has_ended(host) {
        return;
    }
    end_widowed_launcher();
    let Some(scratch) = Family::of_this_process().and_then(|family| family.scratch.as_ref()) else { return };
    let Some(folder) = env::var_os(scratch.variable).map(PathBuf::from) else { return };
    let launcher = name(&folder)
        .filter(|name| name.starts_with(scratch.launcher))
        .and_then(|name| name.rsplit('.').next()?.parse::<u32>().ok());
    if launcher.is_some_and(has_ended) && belongs_to_this_user(&folder) {
        remove_launcher_folder(&folder);
    }
}

/// Where Open MPI and its launcher make their folders.
fn base() -> PathBuf {
    ["TMPDIR", "TEMP", "TMP"].into_iter().find_map(env::var_os).map_or_else(|| "/tmp".into(), PathBuf::from)
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// A real folder, which nobody else has put there.
fn belongs_to_this_user(folder: &Path) -> bool {
    fs::symlink_metadata(folder)
        .is_ok_and(|data| data.is_dir() && data.uid() == rustix::process::geteuid().as_raw())
}
