//! The other processes on this machine, as the kernel's table has them (`/proc/ID/stat`).

use std::fs;

/// One process, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: i32,
    pub(crate) parent: i32,
    pub(crate) name: String,
    pub(crate) has_ended: bool,
}

pub(crate) fn processes() -> Vec<Entry> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    ids.filter_map(look_at).collect()
}

/// Whether a process is gone, on its way there, or nobody has waited for it yet.
pub(crate) fn has_ended(id: impl TryInto<i32>) -> bool {
    id.try_into().ok().and_then(look_at).is_none_or(|process| process.has_ended)
}

fn look_at(id: i32) -> Option<Entry> {
    parse(id, &fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

/// Among the flags of a process, one that runs none of its own code any more (`PF_EXITING`, linux/sched.h). Its connections
/// are closed some time before it is a zombie, and whoever learns of its end from them comes to look in between.
const EXITING: u64 = 0x4;

/// Reads a line of the table. The name in its second column may hold anything, the last `)` ends it.
fn parse(id: i32, stat: &str) -> Option<Entry> {
    let (before, after) = stat.rsplit_once(')')?;
    let columns: Vec<&str> = after.split_ascii_whitespace().collect();
    let [state, parent, _group, _session, _terminal, _foreground, flags, ..] = columns[..] else {
        return None;
    };
    Some(Entry {
        id,
        name: before.split_once('(')?.1.to_owned(),
        has_ended: matches!(state, "Z" | "X") || flags.parse::<u64>().ok()? & EXITING != 0,
        parent: parent.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_process_table_is_understood() {
        let process = parse(12, "12 (hydra (x) proxy) Z 3 4 5 0 -1 4228100 77").expect("it is well formed");
        let expected = Entry { id: 12, parent: 3, name: "hydra (x) proxy".to_owned(), has_ended: true };
        assert_eq!(process, expected);
        assert_eq!(parse(12, "nonsense"), None);
    }

    #[test]
    fn a_process_that_was_killed_has_ended_before_it_is_a_zombie() {
        let has_ended = |line| parse(12, line).expect("it is well formed").has_ended;
        assert!(!has_ended("12 (orted) S 3 4 5 0 -1 4194560 77"));
        assert!(has_ended("12 (orted) R 3 4 5 0 -1 4195340 77"));
    }

    #[test]
    fn this_process_lives() {
        assert!(!has_ended(std::process::id()));
        assert!(has_ended(u32::MAX));
    }
}
