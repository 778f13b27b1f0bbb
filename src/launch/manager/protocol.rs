//! The language of PMI-1, which an MPI of the MPICH family speaks with its process manager: bytes in, requests out, and
//! the answers.
//!
//! Pure: nothing here knows sockets or processes, nor what an answer depends on. Whoever has the other end may send
//! anything, so that lengths and numbers are bounded, and nonsense is an error. A request is a line, `cmd=NAME` and
//! words `key=value`; only a spawn is many lines, from `mcmd=spawn` to `endcmd`, once for each command (MPICH,
//! `src/pmi/maint/pmi-1.1.txt`).

use thiserror::Error;

/// The longest line. MPICH itself reads 4 KiB.
const LINE_MAX: usize = 8 << 10;
/// The longest spawn, all lines of it.
const SPAWN_MAX: usize = 1 << 20;
/// The most processes that one spawn may start.
const PROCESSES_MAX: u32 = 1024;

/// What lengths MPICH is told: of a name, a key and a value.
pub(super) const NAME_MAX: usize = 256;
pub(super) const KEY_MAX: usize = 64;
pub(super) const VALUE_MAX: usize = 1024;

/// A spawn with this key in its info starts nothing. The library has opened a port for it, as for any other, and says what
/// that is called.
pub(crate) const ASKS_FOR_PORT: &str = "offshoot_asks_for_port";

/// What came makes no sense.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub(super) struct Nonsense(&'static str);

/// What a process asks of its process manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// It begins, and speaks this version.
    Init {
        version: u32,
    },
    /// How long names, keys and values may be.
    Maxes,
    UniverseSize,
    AppNumber,
    /// What the store of its job is called.
    Name,
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Get {
        key: Vec<u8>,
    },
    /// It waits until all of its job do.
    Barrier,
    Spawn(Spawn),
    Finalize,
    Abort {
        code: i32,
    },
    /// To tell others of a port under a name, which nobody here does.
    Publish,
    Unpublish,
    Lookup,
}

/// Processes that are to be started, one job of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spawn {
    pub(super) commands: Vec<Command>,
    /// What is to be in the store of the job from the start.
    pub(super) values: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One of the commands of a spawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) executable: Vec<u8>,
    pub(super) arguments: Vec<Vec<u8>>,
    /// How many processes.
    pub(super) count: u32,
    /// Keys and values of the info.
    pub(super) info: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Spawn {
    /// How many processes in all.
    pub(super) fn size(&self) -> u32 {
        self.commands.iter().map(|command| command.count).sum()
    }

    /// Whether it is only made for the name of its port ([`ASKS_FOR_PORT`]).
    pub(super) fn asks_for_port(&self) -> bool {
        self.commands.iter().any(|command| command.hint(ASKS_FOR_PORT).is_some())
    }
}

impl Command {
    /// What the info says under this key.
    pub(super) fn hint(&self, key: &str) -> Option<&[u8]> {
        self.info.iter().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| &value[..])
    }
}

/// Makes requests of what comes from one process.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    bytes: Vec<u8>,
}

impl Splitter {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next request that is whole.
    pub(super) fn next_request(&mut self) -> Result<Option<Request>, Nonsense> {
        const MANY: &[u8] = b"mcmd=";
        let is_many = self.bytes.starts_with(MANY);
        let (whole, max) = if is_many {
            (whole_spawn(&self.bytes)?, SPAWN_MAX)
        } else {
            (self.bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1), LINE_MAX)
        };
        let Some(length) = whole.filter(|length| *length <= max) else {
            return if self.bytes.len() > max { Err(Nonsense("a request without an end")) } else { Ok(None) };
        };
        let request: Vec<u8> = self.bytes.drain(..length).collect();
        if is_many { parse_spawn(&request).map(Some) } else { parse_line(&request).map(Some) }
    }
}

/// The length of a spawn that is there as a whole.
fn whole_spawn(bytes: &[u8]) -> Result<Option<usize>, Nonsense> {
    let (mut commands, mut wanted, mut length) = (0, None, 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        length += line.len();
        if let Some(count) = line.trim_ascii_end().strip_prefix(b"totspawns=") {
            wanted = Some(number::<u32>(count)?.min(PROCESSES_MAX));
        }
        if line == b"endcmd\n" {
            commands += 1;
            let wanted = wanted.ok_or(Nonsense("a spawn that does not say how many commands it has"))?;
            if commands >= wanted {
                return Ok(Some(length));
            }
        }
    }
    Ok(None)
}

fn parse_spawn(text: &[u8]) -> Result<Request, Nonsense> {
    let mut spawn = Spawn::default();
    let mut command = Command::default();
    // By kind and number, until their values come.
    let mut keys: Vec<(&[u8], &[u8])> = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let (key, value) = field(line);
        let numbered = |prefix: &str| key.strip_prefix(prefix.as_bytes());
        let key_of = |prefix: &str| {
            numbered(prefix).map(|at| [prefix.trim_end_matches("val_").as_bytes(), b"key_", at].concat())
        };
        match key {
            b"execname" => command.executable = value.to_vec(),
            b"nprocs" => command.count = number(value)?,
            b"endcmd" => {
                let mut done = std::mem::take(&mut command);
                // No more than is refused.
                done.count = done.count.min(PROCESSES_MAX + 1);
                spawn.commands.push(done);
                keys.clear();
            }
            _ if numbered("preput_key_").or(numbered("info_key_")).is_some() => keys.push((key, value)),
            // `argcnt` is none.
            _ if numbered("arg").is_some_and(|index| number::<u32>(index).is_ok()) => {
                command.arguments.push(value.to_vec());
            }
            _ => {
                let Some(its_key) = key_of("preput_val_").or(key_of("info_val_")) else { continue };
                let found = keys.iter().find(|(key, _)| *key == its_key).map(|(_, name)| name.to_vec());
                let pair = (found.ok_or(Nonsense("a value without its key"))?, value.to_vec());
                if numbered("preput_val_").is_some() {
                    spawn.values.push(pair)
                } else {
                    command.info.push(pair)
                }
            }
        }
    }
    let is_named = |command: &Command| !command.executable.is_empty();
    if spawn.commands.is_empty() || !spawn.commands.iter().all(is_named) {
        return Err(Nonsense("a spawn of nothing"));
    }
    if !(1..=PROCESSES_MAX).contains(&spawn.size()) {
        return Err(Nonsense("a spawn of no process, or of too many"));
    }
    Ok(Request::Spawn(spawn))
}

fn parse_line(line: &[u8]) -> Result<Request, Nonsense> {
    let words = line.trim_ascii_end().split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let fields: Vec<(&[u8], &[u8])> = words.map(field).collect();
    let find = |key: &str| fields.iter().find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| *value);
    let bounded = |key: &str, max: usize| {
        let value = find(key).ok_or(Nonsense("a request without what it is about"))?;
        if value.len() < max { Ok(value.to_vec()) } else { Err(Nonsense("a key or value of too many bytes")) }
    };
    let Some((b"cmd", command)) = fields.first().copied() else {
        return Err(Nonsense("no request at all"));
    };
    Ok(match command {
        b"init" => Request::Init { version: find("pmi_version").map_or(Ok(0), number)? },
        b"get_maxes" => Request::Maxes,
        b"get_universe_size" => Request::UniverseSize,
        b"get_appnum" => Request::AppNumber,
        b"get_my_kvsname" => Request::Name,
        b"put" => Request::Put { key: bounded("key", KEY_MAX)?, value: bounded("value", VALUE_MAX)? },
        b"get" => Request::Get { key: bounded("key", KEY_MAX)? },
        b"barrier_in" => Request::Barrier,
        b"finalize" => Request::Finalize,
        b"abort" => Request::Abort { code: find("exitcode").map_or(Ok(-1), number)? },
        b"publish_name" => Request::Publish,
        b"unpublish_name" => Request::Unpublish,
        b"lookup_name" => Request::Lookup,
        _ => return Err(Nonsense("a request that is unknown")),
    })
}

/// `key=value`, or a key alone.
fn field(word: &[u8]) -> (&[u8], &[u8]) {
    match word.iter().position(|byte| *byte == b'=') {
        Some(at) => (&word[..at], &word[at + 1..]),
        None => (word, b""),
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Result<T, Nonsense> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Nonsense("what should be a number"))
}

/// What a process is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// Whether it can be spoken with.
    Init(bool),
    Maxes,
    UniverseSize(u32),
    /// None for a process that nobody has started for MPI.
    AppNumber(Option<u32>),
    Name(&'a str),
    Put(bool),
    Get(Option<&'a [u8]>),
    BarrierOut,
    /// Whether the processes that it has spawned, so many, are there.
    Spawned(u32, bool),
    Finalized,
    /// Nobody here knows names of ports.
    NoNames(&'static str),
}

/// The code of a process that could not be started; MPICH makes an error of any but 0.
const NOT_SPAWNED: &str = "1";

impl Answer<'_> {
    /// As a line.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            // 1.1: with 1.2 come barriers of groups, and locks in the library that nobody here needs.
            Self::Init(true) => b"cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\n".to_vec(),
            Self::Init(false) => b"cmd=response_to_init rc=-1 pmi_version=1 pmi_subversion=1\n".to_vec(),
            Self::Maxes => {
                format!("cmd=maxes rc=0 kvsname_max={NAME_MAX} keylen_max={KEY_MAX} vallen_max={VALUE_MAX}\n")
                    .into()
            }
            Self::UniverseSize(size) => format!("cmd=universe_size rc=0 size={size}\n").into(),
            Self::AppNumber(number) => {
                let number = number.map_or("-1".to_owned(), |number| number.to_string());
                format!("cmd=appnum rc=0 appnum={number}\n").into()
            }
            Self::Name(name) => format!("cmd=my_kvsname rc=0 kvsname={name}\n").into(),
            Self::Put(true) => b"cmd=put_result rc=0 msg=success\n".to_vec(),
            Self::Put(false) => b"cmd=put_result rc=-1 msg=no_room\n".to_vec(),
            Self::Get(Some(value)) => {
                [b"cmd=get_result rc=0 msg=success found=TRUE value=", *value, b"\n"].concat()
            }
            Self::Get(None) => b"cmd=get_result rc=-1 msg=key_not_found found=FALSE value=unknown\n".to_vec(),
            Self::BarrierOut => b"cmd=barrier_out rc=0\n".to_vec(),
            Self::Spawned(count, is_there) => {
                let code = if *is_there { "0" } else { NOT_SPAWNED };
                let codes = vec![code; *count as usize].join(",");
                format!("cmd=spawn_result rc=0 errcodes={codes}\n").into()
            }
            Self::Finalized => b"cmd=finalize_ack rc=0\n".to_vec(),
            Self::NoNames(answer) => format!("cmd={answer} rc=-1 info=failed msg=not_supported\n").into(),
        }
    }
}
