//! Lines that need no shell: a program and its arguments, in words of plain letters, are what any shell would start,
//! and starting them at once saves the start of the shell.
//!
//! Whatever might mean something to a shell is left to the shell: quotes, variables, patterns, redirections, comments,
//! assignments, and every name that is a builtin or a reserved word of some shell.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use serde_bytes::ByteBuf;

/// Names that shells (dash, bash, ksh, busybox) know themselves, and sort to what they do.
const SHELLS_OWN: &[&str] = &[
    ".",
    ":",
    "[",
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cd",
    "chdir",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "echo",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "false",
    "fc",
    "fg",
    "fi",
    "for",
    "function",
    "getopts",
    "hash",
    "help",
    "history",
    "if",
    "in",
    "jobs",
    "kill",
    "let",
    "local",
    "logout",
    "mapfile",
    "popd",
    "printf",
    "pushd",
    "pwd",
    "read",
    "readarray",
    "readonly",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "test",
    "then",
    "time",
    "times",
    "trap",
    "true",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "while",
];

/// A program and its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) program: PathBuf,
    /// As the line has it: what the program finds as its own name.
    pub(crate) name: OsString,
    pub(crate) arguments: Vec<OsString>,
}

/// What a line starts, if it needs no shell for that. A name without a slash is looked for in the line's own `PATH`.
pub(crate) fn plain(line: &[u8], environment: &[(ByteBuf, ByteBuf)]) -> Option<Plain> {
    if !line.iter().all(|byte| is_plain(*byte)) {
        return None;
    }
    let words = line.split(|byte| [b' ', b'\t'].contains(byte)).filter(|word| !word.is_empty());
    let mut words = words.map(|word| OsString::from_vec(word.to_vec()));
    let name = words.next()?;
    let is_shells = name.to_str().is_none_or(|name| SHELLS_OWN.binary_search(&name).is_ok());
    // An assignment is no program.
    if is_shells || name.as_bytes().contains(&b'=') {
        return None;
    }
    let program = find(&name, environment)?;
    Some(Plain { program, name, arguments: words.collect() })
}

/// Whether a byte is itself to every shell, wherever in a line it stands.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" \t/._-+,:@%=".contains(&byte)
}

fn find(name: &OsStr, environment: &[(ByteBuf, ByteBuf)]) -> Option<PathBuf> {
    let is_program = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if name.as_bytes().contains(&b'/') {
        // A relative one is the line's directory's business.
        return Some(PathBuf::from(name)).filter(|path| path.is_absolute() && is_program(path));
    }
    let (_, folders) = environment.iter().find(|(variable, _)| variable.as_slice() == b"PATH")?;
    let folders = std::env::split_paths(OsStr::from_bytes(folders));
    folders
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|path| is_program(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(folders: &str) -> Vec<(ByteBuf, ByteBuf)> {
        let bytes = |text: &str| ByteBuf::from(text.as_bytes().to_vec());
        vec![(bytes("PATH"), bytes(folders))]
    }

    #[test]
    fn the_names_are_in_order() {
        assert!(SHELLS_OWN.is_sorted());
    }

    #[test]
    fn a_program_and_plain_words_need_no_shell() {
        let plain = plain(b"  /bin/sh -c\tx=1 a:b,c@d%e_f+g.h ", &path("")).expect("it is plain");
        assert_eq!((plain.program.as_path(), &*plain.name), (Path::new("/bin/sh"), OsStr::new("/bin/sh")));
        assert_eq!(plain.arguments, ["-c", "x=1", "a:b,c@d%e_f+g.h"]);
    }

    #[test]
    fn a_name_is_looked_for_in_the_path_of_the_line() {
        let found = plain(b"sleep 1", &path("relative:/nowhere:/bin:/usr/bin")).expect("it is there");
        assert_eq!((found.program.as_path(), &*found.name), (Path::new("/bin/sleep"), OsStr::new("sleep")));
        assert_eq!(plain(b"sleep 1", &path("/nowhere:bin")), None);
        assert_eq!(plain(b"sleep 1", &[]), None);
    }

    #[test]
    fn what_may_mean_something_is_left_to_the_shell() {
        for line in [
            "",
            "  ",
            "echo x",
            "true",
            "X=1 /bin/true",
            "bin/true",
            "./true",
            "/nowhere/x",
            "/bin",
            "/etc/passwd",
            "/bin/true; x",
            "/bin/true $X",
            "/bin/true *",
            "/bin/true \"a b\"",
            "/bin/true 'x'",
            "/bin/true \\x",
            "/bin/true > x",
            "/bin/true | cat",
            "/bin/true &",
            "/bin/true ~",
            "/bin/true #x",
            "/bin/true {a,b}",
            "/bin/true [a]",
            "/bin/true x?",
            "/bin/true !x",
            "/bin/true (x)",
            "/bin/true `x`",
            "/bin/true\nx",
            "/bin/true \u{e4}",
            "if x",
            "/bin/true a^b",
        ] {
            assert_eq!(plain(line.as_bytes(), &path("/bin:/usr/bin")), None, "{line}");
        }
    }
}
