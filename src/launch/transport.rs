//! Which transport the MPI is to use, so that a worker's death in the middle of a transfer is survived, or why none
//! is chosen; and how a guard and its worker come to use the same as their host.
//!
//! MPI hands its environment on to what it spawns on some machines and not on others, and two processes with
//! different transports never find each other. So the host's settings are in the argument list of each guard,
//! which sets them before anything else.

use std::env;
use std::fs;
use std::ops::Not;
use std::sync::OnceLock;

use super::family::{Family, OfJob, Setting, Survivable, Value};
use super::installation::{Installation, mapped_files, own_maps};
use super::preflight::Job;
use crate::containment::{Containment, VARIABLE};
use crate::error::BuildError;
use crate::finding::Finding;
use crate::process;
use crate::wire::flow::Flow;

/// What was chosen for this process.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) containment: Containment,
    /// In what portions frames travel, if not whole.
    pub(crate) flow: Option<Flow>,
    /// What [`super::findings`] says about it.
    pub(super) finding: Finding,
    /// What the host's guards and workers are to have in their environment too.
    pub(super) settings: Vec<String>,
}

const CHECK: &str = "containment";

/// Chooses. What survives is set by the caller, from [`Family::survivable`], if that is what this comes to.
pub(super) fn choose(family: Option<&'static Family>, installation: &Installation) -> Transport {
    let wish = env::var_os(VARIABLE).map_or(Ok(Containment::default()), |wish| {
        let name = wish.to_string_lossy();
        name.parse().map_err(|()| {
            let found = format!("{VARIABLE} is `{name}`, which is none");
            Finding::failure(CHECK, found, format!("export {VARIABLE}=survivable, or fast"))
        })
    });
    let fast =
        |finding| Transport { containment: Containment::Fast, flow: None, finding, settings: Vec::new() };
    match wish {
        Err(finding) => fast(finding),
        Ok(Containment::Fast) => {
            let found = format!(
                "fast, as {VARIABLE} says: a worker's death in the middle of a transfer may end this process"
            );
            let remedy = Some(format!("if it is not to, export {VARIABLE}=survivable"));
            fast(Finding { remedy, ..Finding::ok(CHECK, found) })
        }
        Ok(Containment::Survivable) => match survivable(family, installation) {
            Ok(means) => {
                let found =
                    "survivable: a worker's death in the middle of a transfer does not end this process";
                let finding = Finding::ok(CHECK, found);
                Transport {
                    containment: Containment::Survivable,
                    flow: means.flow,
                    finding,
                    settings: Vec::new(),
                }
            }
            Err((why, remedy)) => {
                let found =
                    format!("fast: {why}; a worker's death in the middle of a transfer may end this process");
                fast(Finding::warning(CHECK, found, remedy))
            }
        },
    }
}

/// What survives here, or why nothing does, and what to do about that.
fn survivable(
    family: Option<&'static Family>,
    installation: &Installation,
) -> Result<&'static Survivable, (String, String)> {
    let another = || "use one of the MPIs that docs/MPI.md lists as survivable".to_owned();
    let family = family.ok_or_else(|| ("this MPI is unknown".to_owned(), another()))?;
    let means = family.survivable.as_ref().map_err(|why| ((*why).to_owned(), another()))?;
    // Too late to choose: whatever is set now would only keep the workers from finding their host.
    if mpi::environment::is_initialized() {
        let why = "MPI was initialized before `offshoot::init()` was called".to_owned();
        return Err((why, "call `offshoot::init()` first".to_owned()));
    }
    if !(means.is_there)(installation) {
        return Err((format!("this {} was built without {}", family.name, means.component), another()));
    }
    if let Some(OfJob { option, variable, value }) = &means.of_job
        && Job::of_this_process().is_some()
        && env::var(variable).is_ok_and(|theirs| theirs == *value).not()
    {
        let why =
            format!("the launcher of this job ends all of it when a worker dies, for want of `{option}`");
        return Err((why, format!("start it with `mpiexec {option} -n ...`")));
    }
    for setting in means.settings() {
        let theirs = env::var(setting.name).ok();
        if let (Value::Set(ours), Some(theirs)) = (setting.value, theirs)
            && theirs != ours
        {
            let why = format!("{}={theirs} is yours, and `{ours}` is what survives", setting.name);
            return Err((why, format!("unset {}", setting.name)));
        }
    }
    Ok(means)
}

impl Survivable {
    /// Everything that must be in the host's environment.
    pub(super) fn settings(&self) -> impl Iterator<Item = &'static Setting> {
        self.environment.iter().chain(self.host_only)
    }
}

impl Transport {
    /// Notes what this process's environment says of transports, whoever has set it.
    pub(super) fn note_settings(&mut self, family: Option<&'static Family>) {
        let means = family.and_then(|family| family.survivable.as_ref().ok());
        let (ours, host_only) =
            means.map_or((&[][..], &[][..]), |means| (means.environment, means.host_only));
        self.settings = ours
            .iter()
            .filter_map(|setting| Some(format!("{}={}", setting.name, env::var(setting.name).ok()?)))
            .chain(host_only.iter().map(|setting| format!("{NOT}{}", setting.name)))
            .chain(self.flow.map(|flow| format!("{FLOW_VARIABLE}={}", tell_flow(flow))))
            .collect();
    }
}

/// Refuses a pool that is to have another containment than it would have: `has`, or, as long as MPI has not been
/// started, what was prepared.
pub(crate) fn check_containment(
    asked: Option<Containment>,
    has: Option<Containment>,
) -> Result<(), BuildError> {
    let Some((asked, prepared)) = asked.zip(super::prepared()) else { return Ok(()) };
    let transport = &prepared.transport;
    let has = has.unwrap_or(transport.containment);
    if asked == has {
        return Ok(());
    }
    let reason = match (asked, transport.containment) {
        (Containment::Survivable, Containment::Survivable) => {
            "the host has initialized MPI itself, so that nothing is known of it; build the pool first"
                .to_owned()
        }
        (Containment::Survivable, Containment::Fast) => transport.finding.to_string(),
        (Containment::Fast, _) => {
            format!("that is chosen when the process starts; export {VARIABLE}=fast before that")
        }
    };
    Err(BuildError::Containment { asked, has, reason })
}

/// Before the name of a variable that guard and worker are not to have.
const NOT: char = '!';
/// How a worker is told in what portions frames travel.
const FLOW_VARIABLE: &str = "OFFSHOOT_FLOW";

/// The variables that this process may have, and what it starts may not.
pub(super) fn host_only_variables() -> impl Iterator<Item = &'static str> {
    let family = super::prepared().and_then(|prepared| prepared.family);
    let means = family.and_then(|family| family.survivable.as_ref().ok());
    means.into_iter().flat_map(|means| means.host_only).map(|setting| setting.name)
}

static FLOW: OnceLock<Option<Flow>> = OnceLock::new();

/// In what portions frames travel between this process, a host or a worker, and the other.
pub(crate) fn flow() -> Option<Flow> {
    *FLOW.get_or_init(|| super::prepared().and_then(|prepared| prepared.transport.flow))
}

/// In a guard: takes over what its host has set, for itself and its worker.
pub(super) fn agree(settings: &[String]) {
    process::remove_variable(FLOW_VARIABLE);
    for setting in settings {
        match parse_setting(setting) {
            Some((name, Some(value))) => process::set_variable(name, value.as_ref()),
            Some((name, None)) => process::remove_variable(name),
            None => {}
        }
    }
}

/// A variable, and what it is to be if it is to be there; if the system can have a variable of that name.
fn parse_setting(setting: &str) -> Option<(&str, Option<&str>)> {
    let (name, value) = match setting.strip_prefix(NOT) {
        Some(name) => (name, None),
        None => setting.split_once('=').map(|(name, value)| (name, Some(value)))?,
    };
    let is_possible = !name.is_empty() && !name.contains('=') && !setting.contains('\0');
    is_possible.then_some((name, value))
}

/// What must hold of settings (`fuzzing.rs`).
#[cfg(any(test, fuzzing))]
pub(super) fn settings_property(text: &str) {
    if let Some(flow) = parse_flow(text) {
        assert!(flow.is_sound());
        assert_eq!(parse_flow(&tell_flow(flow)), Some(flow));
    }
    if let Some((name, value)) = parse_setting(text) {
        // A child's environment refuses what the own one panics of.
        let name_is_fine = !name.is_empty() && !name.contains(['=', '\0']);
        assert!(name_is_fine && !value.is_some_and(|value| value.contains('\0')));
    }
}

/// In a worker: takes what concerns it alone out of its environment.
///
/// # Errors
/// If it makes no sense.
pub(super) fn take_flow() -> Result<(), String> {
    let Ok(text) = env::var(FLOW_VARIABLE) else { return Ok(()) };
    process::remove_variable(FLOW_VARIABLE);
    let flow =
        parse_flow(&text).ok_or_else(|| format!("{FLOW_VARIABLE} is `{text}`, which makes no sense"))?;
    let _ = FLOW.set(Some(flow));
    Ok(())
}

fn tell_flow(flow: Flow) -> String {
    format!("{}/{}", flow.message_max, flow.window)
}

fn parse_flow(text: &str) -> Option<Flow> {
    let (message_max, window) = text.split_once('/')?;
    let flow = Flow { message_max: message_max.parse().ok()?, window: window.parse().ok()? };
    flow.is_sound().then_some(flow)
}

/// Whether the library that is loaded uses this other library, or has it in itself, by a text that it contains.
pub(super) fn uses_library(installation: &Installation, name: &str, text: &[u8]) -> bool {
    let is_it = |path: &str| path.rsplit('/').next().is_some_and(|file| file.starts_with(name));
    let is_loaded = mapped_files(&own_maps()).any(is_it);
    is_loaded
        || installation
            .library
            .as_deref()
            .and_then(|library| fs::read(library).ok())
            .is_some_and(|bytes| bytes.windows(text.len()).any(|window| window == text))
}

#[cfg(test)]
mod tests {
    use super::super::family::FAMILIES;
    use super::*;

    #[test]
    fn a_worker_reads_what_its_host_told() {
        let flow = Flow { message_max: 1000, window: 4000 };
        assert_eq!(parse_flow(&tell_flow(flow)), Some(flow));
        for nonsense in ["", "1000", "1000/x", "0/0", "0/4000", "15/4000", "4000/4000", "-1/4000"] {
            assert_eq!(parse_flow(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn what_survives_can_be_set_and_keeps_moving() {
        for means in FAMILIES.into_iter().flat_map(|family| family.survivable.iter()) {
            assert!(means.flow.is_none_or(Flow::is_sound), "{means:?}");
            assert!(means.settings().all(|setting| matches!(setting.value, Value::Set(_))), "{means:?}");
        }
    }
}
