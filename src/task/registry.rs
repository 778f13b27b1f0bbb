//! The set of tasks that a worker knows: those linked into the executable, or an explicit list.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Definition, Task};
use crate::wire::message::KnownTask;

/// The tasks that a worker knows.
///
/// [`Registry::linked`] has every task that a [`tasks!`](crate::tasks) block linked into the
/// executable; [`Registry::empty`] and [`Registry::with`] make an explicit list, for those who
/// dislike macros. [`init`](crate::init) and [`worker::serve`](crate::worker::serve) use the first.
///
/// ```no_run
/// # use offshoot::{Context, Registry, Task};
/// # struct Cube;
/// # impl Task for Cube {
/// #     const NAME: &'static str = "example::Cube";
/// #     const SIGNATURE: &'static str = "(f64) -> f64";
/// #     type Args = (f64,);
/// #     type Output = f64;
/// #     fn run(_: &mut Context, (side,): (f64,)) -> anyhow::Result<f64> { Ok(side.powi(3)) }
/// # }
/// fn main() {
///     offshoot::init_with(Registry::empty().with::<Cube>());
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Registry {
    tasks: BTreeMap<&'static str, &'static Definition>,
}

impl Registry {
    /// No tasks at all.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Every task that a `tasks!` block linked into this executable.
    ///
    /// # Panics
    /// If two of them have one name, which only `tasks! { in "…": … }` or a hand-written
    /// [`Task::NAME`] can bring about.
    #[must_use]
    pub fn linked() -> Self {
        inventory::iter::<Linked>.into_iter().fold(Self::empty(), |registry, linked| registry.and(linked.0))
    }

    /// This registry and one more task.
    ///
    /// # Panics
    /// If another task has the same name.
    #[must_use]
    pub fn with<T: Task>(self) -> Self {
        self.and(T::DEFINITION)
    }

    fn and(mut self, definition: &'static Definition) -> Self {
        match self.tasks.entry(definition.name) {
            Entry::Vacant(entry) => {
                entry.insert(definition);
            }
            // One source file may be included twice; two functions of one name are a mistake.
            Entry::Occupied(entry) => assert!(
                entry.get().source == definition.source && entry.get().signature == definition.signature,
                "two tasks are named `{}`: {:?} at {:?} and {:?} at {:?}",
                definition.name,
                entry.get(),
                entry.get().source,
                definition,
                definition.source,
            ),
        }
        self
    }

    /// The tasks, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &'static Definition> + '_ {
        self.tasks.values().copied()
    }

    /// Whether there is no task in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The tasks in the order in which a worker numbers them: [`WireKind`](crate::wire::message::WireKind)
    /// is the index.
    pub(crate) fn numbered(&self) -> Vec<&'static Definition> {
        self.iter().collect()
    }

    /// What the hello tells of the tasks.
    pub(crate) fn known(&self) -> Vec<KnownTask> {
        self.iter()
            .map(|definition| KnownTask {
                name: definition.name.to_owned(),
                signature: definition.signature.to_owned(),
            })
            .collect()
    }
}

/// A task that a `tasks!` block linked into the executable.
#[doc(hidden)]
pub struct Linked(pub &'static Definition);

inventory::collect!(Linked);
