//! The `tasks!` macro: from a function to a [`Task`](crate::Task), its registration, and a function
//! of the same name that makes a [`Call`](crate::Call).

/// Declares functions that workers can run.
///
/// Each function body is what a worker runs; it returns `anyhow::Result` of the declared type. What
/// remains under the function's name is a constructor of a [`Call`](crate::Call), to be submitted.
/// A first argument `context: &mut Context` is passed by the worker, not by the caller.
///
/// ```
/// offshoot::tasks! {
///     /// Sum of a vector.
///     pub fn sum(values: Vec<f64>) -> f64 {
///         Ok(values.iter().sum())
///     }
///
///     /// Where am I?
///     pub fn whereabouts(context: &mut Context) -> String {
///         Ok(format!("{} on {}", context.worker(), context.host()))
///     }
/// }
///
/// let call = sum(vec![1.0, 2.0]);
/// assert_eq!(call.args(), &(vec![1.0, 2.0],));
/// ```
///
/// A task is known by its module path and name. Where host and worker are separate executables that
/// include one source file under different paths, name the group yourself:
///
/// ```
/// offshoot::tasks! {
///     in "jobs";
///
///     fn double(x: i64) -> i64 { Ok(2 * x) }
/// }
/// # use offshoot::Task;
/// # fn main() {
/// assert_eq!(double::NAME, "jobs::double");
/// # }
/// ```
#[macro_export]
macro_rules! tasks {
    (in $group:literal; $($functions:tt)*) => { $crate::__tasks! { [$group] $($functions)* } };
    ($($functions:tt)*) => { $crate::__tasks! { [::core::module_path!()] $($functions)* } };
}

/// One function at a time; first those that take a context, then those that do not.
#[doc(hidden)]
#[macro_export]
macro_rules! __tasks {
    ([$($group:tt)*]) => {};
    (
        [$($group:tt)*]
        $(#[$meta:meta])* $visibility:vis fn $name:ident(
            $context:ident: &mut Context $(, $argument:ident: $type:ty)* $(,)?
        ) $(-> $output:ty)? $body:block
        $($rest:tt)*
    ) => {
        $crate::__task! {
            [$($group)*] [$(#[$meta])*] [$visibility] $name [$context] [$($argument: $type),*] [$($output)?] $body
        }
        $crate::__tasks! { [$($group)*] $($rest)* }
    };
    (
        [$($group:tt)*]
        $(#[$meta:meta])* $visibility:vis fn $name:ident(
            $($argument:ident: $type:ty),* $(,)?
        ) $(-> $output:ty)? $body:block
        $($rest:tt)*
    ) => {
        $crate::__task! {
            [$($group)*] [$(#[$meta])*] [$visibility] $name [_context] [$($argument: $type),*] [$($output)?] $body
        }
        $crate::__tasks! { [$($group)*] $($rest)* }
    };
}

/// The items of one task.
#[doc(hidden)]
#[macro_export]
macro_rules! __task {
    ([$($group:tt)*] [$($meta:tt)*] [$visibility:vis] $name:ident [$context:ident] [$($argument:ident: $type:ty),*] [] $body:block) => {
        $crate::__task! { [$($group)*] [$($meta)*] [$visibility] $name [$context] [$($argument: $type),*] [()] $body }
    };
    ([$($group:tt)*] [$($meta:tt)*] [$visibility:vis] $name:ident [$context:ident] [$($argument:ident: $type:ty),*] [$output:ty] $body:block) => {
        $($meta)*
        #[must_use = "a call does nothing until it is submitted to a pool"]
        #[allow(clippy::too_many_arguments)]
        $visibility fn $name($($argument: $type),*) -> $crate::Call<$name> {
            $crate::Call::new(($($argument,)*))
        }

        /// The task behind the function of the same name.
        #[allow(non_camel_case_types)]
        $visibility struct $name {}

        impl $crate::Task for $name {
            const NAME: &'static str =
                ::core::concat!($($group)*, "::", ::core::stringify!($name));
            const SIGNATURE: &'static str = ::core::stringify!(($($type),*) -> $output);
            const SOURCE: (&'static str, u32) = (::core::file!(), ::core::line!());
            type Args = ($($type,)*);
            type Output = $output;

            #[allow(unused_variables)]
            fn show_arguments(
                ($($argument,)*): &mut Self::Args,
                show: &mut dyn FnMut(&mut dyn ::core::any::Any),
            ) {
                $(show($argument);)*
            }

            #[allow(unused_variables, unused_mut, clippy::unnecessary_wraps)]
            fn run(
                $context: &mut $crate::Context,
                ($($argument,)*): Self::Args,
            ) -> $crate::__private::anyhow::Result<$output> {
                $body
            }
        }

        $crate::__private::inventory::submit! {
            $crate::__private::Linked(<$name as $crate::Task>::DEFINITION)
        }
    };
}
