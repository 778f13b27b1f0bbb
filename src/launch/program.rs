//! A program: which worker executable to spawn, and how.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::BuildError;
use crate::task::{Call, Definition, Task};
use crate::wire::codec;
use crate::wire::control::{Start, Watch};
use crate::wire::message::PAYLOAD_MAX;

/// What to spawn: a worker executable with arguments, environment and working directory.
///
/// The executable calls [`offshoot::init`](crate::init) or
/// [`offshoot::worker::serve`](crate::worker::serve) as the first line of its `main`. A program that is
/// its own worker needs no file beside itself:
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// use offshoot::Program;
///
/// let own = Program::this_executable();
/// let other = Program::new("/opt/model/worker").arg("--steps=100").env("MODEL_CACHE", "/tmp");
/// # assert_eq!(other.path().to_str(), Some("/opt/model/worker"));
/// # let _ = own;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Program {
    parts: Arc<Parts>,
}

#[derive(Clone)]
struct Parts {
    path: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    initializer: Option<Initializer>,
}

/// A call that each worker runs before its first task.
#[derive(Clone)]
pub(crate) struct Initializer {
    pub(crate) definition: &'static Definition,
    pub(crate) arguments: Result<Bytes, String>,
}

impl Program {
    /// The executable of this process, under the name that it has now.
    #[must_use]
    pub fn this_executable() -> Self {
        // Where /proc is missing the name is empty, and the check before the spawn says so.
        Self::new(env::current_exe().unwrap_or_default())
    }

    /// An executable. A relative path is one from the host's current directory; `PATH` is not searched.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let path = std::path::absolute(&path).unwrap_or(path);
        let parts = Parts { path, arguments: vec![], variables: vec![], directory: None, initializer: None };
        Self { parts: Arc::new(parts) }
    }

    /// Adds an argument. The worker finds it in [`std::env::args`], nothing of ours among them.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.edit().arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Sets an environment variable of the worker; all others are the host's.
    ///
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.edit().variables.push((name.into(), value.into()));
        self
    }

    /// Sets the worker's working directory; it is the host's otherwise.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.edit().directory = Some(directory.into());
        self
    }

    /// Sets a call that each worker runs once, before its first task. If it fails, the worker is not
    /// used, and its error is in what the pool reports.
    #[must_use]
    pub fn initializer<T: Task>(mut self, call: Call<T>) -> Self {
        let arguments = codec::encode_value(call.args()).map(Bytes::from).map_err(|error| error.to_string());
        self.edit().initializer = Some(Initializer { definition: T::DEFINITION, arguments });
        self
    }

    /// The executable.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.parts.path
    }

    pub(crate) fn arguments(&self) -> &[OsString] {
        &self.parts.arguments
    }

    pub(crate) fn variables(&self) -> &[(OsString, OsString)] {
        &self.parts.variables
    }

    pub(crate) fn start_initializer(&self) -> Option<&Initializer> {
        self.parts.initializer.as_ref()
    }

    /// Where the worker starts: as told, or where the host is now.
    pub(crate) fn directory(&self) -> Result<PathBuf, String> {
        match &self.parts.directory {
            Some(directory) => Ok(directory.clone()),
            None => {
                env::current_dir().map_err(|error| format!("the host's current directory is gone: {error}"))
            }
        }
    }

    /// What a guard is told to start, and to do for it.
    pub(crate) fn start(&self, watch: Watch) -> Result<Start, String> {
        let bytes = |text: &OsStr| text.as_bytes().to_vec();
        Ok(Start {
            executable: bytes(self.path().as_os_str()),
            arguments: self.arguments().iter().map(|argument| bytes(argument)).collect(),
            variables: self.variables().iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
            directory: bytes(self.directory()?.as_os_str()),
            watch,
        })
    }

    /// The program of such a start, in the process that makes it in another's place.
    pub(crate) fn of_start(start: Start) -> Self {
        let text = OsString::from_vec;
        let Start { executable, arguments, variables, directory, watch: _ } = start;
        let parts = Parts {
            path: text(executable).into(),
            arguments: arguments.into_iter().map(text).collect(),
            variables: variables.into_iter().map(|(name, value)| (text(name), text(value))).collect(),
            directory: Some(text(directory).into()),
            initializer: None,
        };
        Self { parts: Arc::new(parts) }
    }

    /// What can be said against it before anything is started.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let refuse =
            |reason: String| Err(BuildError::Program { program: self.path().display().to_string(), reason });
        let zero = |text: &OsStr| text.as_encoded_bytes().contains(&0);
        let names = self.variables().iter().map(|(name, _)| name.as_os_str());
        if names.clone().any(|name| name.is_empty() || name.as_encoded_bytes().contains(&b'=')) {
            return refuse("the name of an environment variable is empty or has a `=` in it".to_owned());
        }
        let values = self.variables().iter().map(|(_, value)| value.as_os_str());
        if self.arguments().iter().map(OsString::as_os_str).chain(names).chain(values).any(zero) {
            return refuse("an argument or variable has a zero byte in it".to_owned());
        }
        match self.start_initializer().map(|initializer| &initializer.arguments) {
            Some(Ok(arguments)) if arguments.len() > PAYLOAD_MAX => {
                let length = arguments.len();
                refuse(format!(
                    "the arguments of its initializer take {length} bytes, more than {PAYLOAD_MAX}"
                ))
            }
            Some(Err(error)) => refuse(format!("the arguments of its initializer {error}")),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    fn edit(&mut self) -> &mut Parts {
        Arc::make_mut(&mut self.parts)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("path", &self.parts.path)
            .field("arguments", &self.parts.arguments)
            .field("variables", &self.parts.variables)
            .field("directory", &self.parts.directory)
            .finish_non_exhaustive()
    }
}

impl Default for Program {
    fn default() -> Self {
        Self::this_executable()
    }
}
