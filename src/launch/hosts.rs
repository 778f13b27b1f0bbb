//! How many workers fit, and where: what Slurm, a host file and this machine say of it.
//!
//! Everything but [`Slots::find`] and its like is a function from text to hosts. Nothing here asks the MPI:
//! what it calls the universe size is too small as a rule, and wrong in a singleton.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::slots::{HostSlots, Slots, SlotsError, Source};

/// Names the host file, for pools that are told of none.
const HOST_FILE_VARIABLE: &str = "OFFSHOOT_HOSTFILE";
/// The hosts of a job. In a step, `SLURM_TASKS_PER_NODE` describes the step, and is not used.
const NODES_VARIABLE: &str = "SLURM_JOB_NODELIST";
const CPUS_VARIABLE: &str = "SLURM_JOB_CPUS_PER_NODE";

/// More hosts than this, or slots on one of them, are a mistake in the list.
const COUNT_MAX: usize = 1_000_000;

impl Slots {
    /// What this process finds: the allocation, the host file that `OFFSHOOT_HOSTFILE` names, its cores.
    ///
    /// # Errors
    /// [`SlotsError`] if one of them is there and makes no sense.
    pub fn find() -> Result<Self, SlotsError> {
        Self::find_with(None)
    }

    /// As [`Slots::find`], with this host file.
    ///
    /// # Errors
    /// [`SlotsError`] if one of them is there and makes no sense.
    pub fn find_in(host_file: impl AsRef<Path>) -> Result<Self, SlotsError> {
        Self::find_with(Some(host_file.as_ref()))
    }

    pub(crate) fn find_with(host_file: Option<&Path>) -> Result<Self, SlotsError> {
        let named = env::var_os(HOST_FILE_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        let file = match host_file.map(Path::to_owned).or(named) {
            Some(path) => Some((read_host_file(&path)?, path)),
            None => None,
        };
        let own = own_name();
        let slurm = match env::var(NODES_VARIABLE) {
            Ok(nodes) if !nodes.is_empty() => {
                Some(slurm_hosts(&nodes, &env::var(CPUS_VARIABLE).unwrap_or_default())?)
            }
            _ => None,
        };
        match (slurm, file) {
            (Some(hosts), None) => Ok(Self { hosts: marked(hosts, &own), source: Source::Slurm }),
            (Some(allocated), Some((chosen, path))) => {
                let hosts = choose(&allocated, &chosen, &own, &path)?;
                Ok(Self { hosts: marked(hosts, &own), source: Source::Slurm })
            }
            (None, Some((hosts, path))) => {
                Ok(Self { hosts: marked(hosts, &own), source: Source::HostFile(path) })
            }
            (None, None) => Ok(Self::of_cores()),
        }
    }

    /// This host alone, with a worker for each core that this process may use.
    pub(crate) fn of_cores() -> Self {
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get().try_into().unwrap_or(1));
        let own = HostSlots { name: own_name(), slots: cores, is_own: true };
        Self { hosts: vec![own], source: Source::Cores }
    }
}

/// A host and how many workers fit; no number where none was given.
type Named = (String, Option<u32>);

/// How this host calls itself.
pub(crate) fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn marked(hosts: Vec<Named>, own: &str) -> Vec<HostSlots> {
    // One worker where no number is given, as MPICH has it. Open MPI would look at that host's cores.
    let marked = hosts.into_iter().map(|(name, slots)| HostSlots {
        is_own: is_same_host(&name, own),
        name,
        slots: slots.unwrap_or(1),
    });
    marked.collect()
}

/// Whether `name` means the host that calls itself `own`. Of two names one may lack its domain.
fn is_same_host(name: &str, own: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    match (name.contains('.'), own.contains('.')) {
        _ if name == "localhost" || name.starts_with("127.") => true,
        // An address that a socket can be bound to is one of this host.
        _ if is_address => std::net::UdpSocket::bind((name, 0)).is_ok(),
        (true, true) => name.eq_ignore_ascii_case(own),
        (true, false) | (false, true) | (false, false) => short(name) == short(own),
    }
}

fn read_host_file(path: &Path) -> Result<Vec<Named>, SlotsError> {
    let refused = |reason: String| SlotsError::HostFile { path: path.to_owned(), reason };
    let text = fs::read_to_string(path).map_err(|error| refused(format!("cannot be read: {error}")))?;
    let hosts = host_file(&text, path)?;
    if hosts.is_empty() { Err(refused("names no host".to_owned())) } else { Ok(hosts) }
}

/// Reads both spellings: `host slots=4 max_slots=8`, `host:4`. A host on several lines has all their slots.
fn host_file(text: &str, path: &Path) -> Result<Vec<Named>, SlotsError> {
    let mut hosts: Vec<Named> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (name, slots) = host_line(line).map_err(|reason| SlotsError::line(path, index + 1, reason))?;
        match hosts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum = Some(sum.unwrap_or(1).saturating_add(slots.unwrap_or(1))),
            None => hosts.push((name, slots)),
        }
    }
    Ok(hosts)
}

fn host_line(line: &str) -> Result<Named, String> {
    let spaced = line.replace('=', " = ");
    let mut words = spaced.split_whitespace();
    let host = words.next().unwrap_or_default();
    let (name, mut slots) = match host.split_once(':') {
        Some((_, number)) if number.contains(':') => {
            return Err(format!("`{host}` looks like an IPv6 address: write a host name"));
        }
        Some((name, number)) => (name, Some(count(number)?)),
        None => (host, None),
    };
    check_name(name)?;
    let mut most = None;
    while let Some(key) = words.next() {
        let (Some("="), Some(value)) = (words.next(), words.next()) else {
            return Err(format!("`{key}` is not of the form `slots=4`"));
        };
        let setting = match key {
            "slots" => &mut slots,
            "max_slots" | "max-slots" => &mut most,
            _ => return Err(format!("`{key}` is not known here: `slots` and `max_slots` are")),
        };
        if setting.replace(count(value)?).is_some() {
            return Err(format!("the number of `{key}` is given twice"));
        }
    }
    match (slots, most) {
        (Some(slots), Some(most)) if slots > most => {
            Err(format!("{slots} slots are more than max_slots={most}"))
        }
        _ => Ok((name.to_owned(), slots)),
    }
}

fn count(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(0) => Err("no slot on a host: leave its line out".to_owned()),
        Ok(number) if number as usize <= COUNT_MAX => Ok(number),
        _ => Err(format!("`{text}` is no number of slots")),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_fine) {
        return Ok(());
    }
    let hint = if name.contains('@') { " (a user's name belongs into the settings of ssh)" } else { "" };
    Err(format!("`{name}` is no name of a host{hint}"))
}

/// The hosts of a Slurm job.
fn slurm_hosts(nodes: &str, cpus: &str) -> Result<Vec<Named>, SlotsError> {
    let wrong =
        |variable, value: &str, reason| SlotsError::Slurm { variable, value: value.to_owned(), reason };
    let names = expand_nodes(nodes).map_err(|reason| wrong(NODES_VARIABLE, nodes, reason))?;
    let numbers = expand_cpus(cpus).map_err(|reason| wrong(CPUS_VARIABLE, cpus, reason))?;
    if names.len() != numbers.len() {
        let reason =
            format!("it counts {} host(s), and {NODES_VARIABLE} names {}", numbers.len(), names.len());
        return Err(wrong(CPUS_VARIABLE, cpus, reason));
    }
    Ok(names.into_iter().zip(numbers.into_iter().map(Some)).collect())
}

/// `n[01-03,7],gpu2` as single names.
fn expand_nodes(list: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for pattern in split_outside_brackets(list)? {
        let expanded = expand_brackets(pattern.trim())?;
        for name in &expanded {
            check_name(name)?;
        }
        names.extend(expanded);
        if names.len() > COUNT_MAX {
            return Err(format!("it names more than {COUNT_MAX} hosts"));
        }
    }
    Ok(names)
}

fn split_outside_brackets(list: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut is_inside) = (Vec::new(), 0, false);
    for (at, c) in list.char_indices() {
        match c {
            '[' if is_inside => return Err("a `[` stands inside of another".to_owned()),
            '[' => is_inside = true,
            ']' if !is_inside => return Err("a `]` has no `[`".to_owned()),
            ']' => is_inside = false,
            ',' if !is_inside => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if is_inside {
        return Err("a `[` has no `]`".to_owned());
    }
    parts.push(&list[start..]);
    Ok(parts)
}

/// One pattern: text and brackets in turn, `rack[1-2]node[01-16]`.
fn expand_brackets(pattern: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = pattern.split_once('[') else { return Ok(vec![pattern.to_owned()]) };
    let (ranges, after) = rest.split_once(']').ok_or("a `[` has no `]`")?;
    let (numbers, ends) = (expand_ranges(ranges)?, expand_brackets(after)?);
    if numbers.len().saturating_mul(ends.len()) > COUNT_MAX {
        return Err(format!("it names more than {COUNT_MAX} hosts"));
    }
    let with_ends = |number: &String| ends.iter().map(move |end| format!("{before}{number}{end}")).collect();
    Ok(numbers.iter().flat_map::<Vec<_>, _>(with_ends).collect())
}

/// `01-03,7` as single numbers. They have as many digits as the first of their range.
fn expand_ranges(ranges: &str) -> Result<Vec<String>, String> {
    let mut numbers = Vec::new();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<usize>()
                .ok()
                .filter(|_| digits)
                .ok_or_else(|| format!("`{range}` is no range of numbers"))
        };
        let (from, to) = (number(first)?, number(last)?);
        if from > to || to - from >= COUNT_MAX {
            return Err(format!("`{range}` is no range of numbers"));
        }
        numbers.extend((from..=to).map(|number| format!("{number:0width$}", width = first.len())));
    }
    Ok(numbers)
}

/// `2(x3),1` as single numbers.
fn expand_cpus(list: &str) -> Result<Vec<u32>, String> {
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (number, times) = match part.split_once("(x") {
            Some((number, times)) => {
                (number, times.strip_suffix(')').ok_or(format!("`{part}` lacks a `)`"))?)
            }
            None => (part, "1"),
        };
        let (number, times) = (count(number.trim())?, count(times)? as usize);
        if numbers.len() + times > COUNT_MAX {
            return Err(format!("it counts more than {COUNT_MAX} hosts"));
        }
        numbers.extend(std::iter::repeat_n(number, times));
    }
    Ok(numbers)
}

/// The hosts of the file, which must be of the allocation; as many workers as both allow.
fn choose(allocated: &[Named], chosen: &[Named], own: &str, path: &Path) -> Result<Vec<Named>, SlotsError> {
    let is_same = |one: &str, other: &str| {
        is_same_host(one, other) || (is_same_host(one, own) && is_same_host(other, own))
    };
    let limited = chosen.iter().map(|(name, slots)| {
        let Some((known, most)) = allocated.iter().find(|(known, _)| is_same(name, known)) else {
            let reason = format!("names `{name}`, which is not in the allocation of Slurm");
            return Err(SlotsError::HostFile { path: path.to_owned(), reason });
        };
        let slots = match (slots, most) {
            (Some(slots), Some(most)) => Some(*slots.min(most)),
            (None, most) => *most,
            (slots, None) => *slots,
        };
        Ok((known.clone(), slots))
    });
    limited.collect()
}

#[cfg(test)]
mod tests;
