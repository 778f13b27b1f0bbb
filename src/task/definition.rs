//! The trait beneath `tasks!`, and its type-erased form: a name, a signature, a function over bytes.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use serde::{Serialize, de::DeserializeOwned};

use super::Context;
use crate::wire::codec;
use crate::wire::message::Failure;
use crate::wire::payload::Payload;

/// A function that workers can run.
///
/// [`tasks!`](crate::tasks) implements it for each function that it is given. By hand:
///
/// ```
/// use offshoot::{Call, Context, Task};
///
/// struct Cube;
///
/// impl Task for Cube {
///     const NAME: &'static str = "example::Cube";
///     const SIGNATURE: &'static str = "(f64) -> f64";
///     type Args = (f64,);
///     type Output = f64;
///
///     fn run(_context: &mut Context, (side,): (f64,)) -> anyhow::Result<f64> {
///         Ok(side.powi(3))
///     }
/// }
///
/// let call = Call::<Cube>::new((2.0,));
/// assert_eq!(call.args(), &(2.0,));
/// ```
pub trait Task: 'static {
    /// The name by which host and worker know the task. Unique among the tasks of a worker.
    const NAME: &'static str;
    /// Types of arguments and result, as text. Host and worker must agree on it.
    const SIGNATURE: &'static str;
    /// The arguments, a tuple as a rule.
    type Args: Serialize + DeserializeOwned + Send + 'static;
    /// What the task returns.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Runs the task, on a worker.
    ///
    /// # Errors
    /// Whatever the task returns: the caller sees it, with its causes, as
    /// [`TaskError::Failed`](crate::TaskError::Failed).
    fn run(context: &mut Context, args: Self::Args) -> anyhow::Result<Self::Output>;

    /// Shows each argument. Large arrays that are arguments by themselves are then not copied on their way.
    #[doc(hidden)]
    fn show_arguments(args: &mut Self::Args, show: &mut dyn FnMut(&mut dyn Any)) {
        show(args);
    }

    /// Where the task is written, as file and line; it tells two tasks of one name apart.
    const SOURCE: (&'static str, u32) = ("", 0);

    /// The task without its types.
    const DEFINITION: &'static Definition = &Definition {
        name: Self::NAME,
        signature: Self::SIGNATURE,
        source: Self::SOURCE,
        run: run_erased::<Self>,
    };
}

/// A task without its types, as a registry keeps it.
#[derive(Clone, Copy)]
pub struct Definition {
    pub(crate) name: &'static str,
    pub(crate) signature: &'static str,
    pub(crate) source: (&'static str, u32),
    run: fn(&mut Context, Payload) -> Result<Payload, Failure>,
}

impl Definition {
    /// The name by which host and worker know the task.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Types of arguments and result, as text.
    #[must_use]
    pub fn signature(&self) -> &'static str {
        self.signature
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.signature)
    }
}

fn run_erased<T: Task + ?Sized>(context: &mut Context, arguments: Payload) -> Result<Payload, Failure> {
    let args = codec::decode_payload::<T::Args>(arguments)
        .map_err(|error| Failure::Arguments { reason: bounded(error.to_string()) })?;
    let output = T::run(context, args).map_err(|error| Failure::Returned { causes: describe(&error) })?;
    codec::encode_owned(output, |output, show| show(output))
        .map_err(|error| Failure::Result { reason: bounded(error.to_string()) })
}

/// The most causes of an error, and characters of a text, that travel back to the host.
const CAUSES_MAX: usize = 64;
const TEXT_MAX: usize = 16 << 10;

/// An error and its causes, outermost first.
fn describe(error: &anyhow::Error) -> Vec<String> {
    error.chain().take(CAUSES_MAX).map(|cause| bounded(cause.to_string())).collect()
}

fn bounded(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Runs a task and turns a panic in it into a [`Failure`] that says where it happened.
pub(crate) fn run_guarded(
    definition: &Definition,
    context: &mut Context,
    arguments: Payload,
) -> Result<Payload, Failure> {
    note_panic_locations();
    LAST_PANIC.with_borrow_mut(Option::take);
    // A task that panics may leave its worker's state half changed; it is the state of the user's own
    // functions, as with a poisoned lock, and documented at `Context::state`.
    panic::catch_unwind(AssertUnwindSafe(|| (definition.run)(context, arguments))).unwrap_or_else(|payload| {
        let message = panic_message(payload.as_ref());
        Err(Failure::Panicked {
            message: bounded(message),
            location: LAST_PANIC.with_borrow_mut(Option::take),
        })
    })
}

/// What a panic said.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "something that is not a string".to_owned())
}

thread_local! {
    /// Where this thread last panicked: `catch_unwind` alone does not tell.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Puts a panic hook before the one that is there; that one still runs and prints as it always did.
fn note_panic_locations() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let location = info.location().map(ToString::to_string);
            LAST_PANIC.with_borrow_mut(|last| *last = location);
            previous(info);
        }));
    });
}
