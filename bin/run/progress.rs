//! The progress bar: on a terminal only, and out of the way when something is printed.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::input::Lines;

const WITH_TOTAL: &str = "{bar:32} {pos}/{len} lines{msg}, {elapsed} gone, {eta} to go";
const WITHOUT_TOTAL: &str = "{spinner} {pos} lines{msg}, {elapsed} gone";
const REDRAW: Duration = Duration::from_millis(200);

/// A bar, or nothing.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `count`, if there is one, is read through for the total.
    pub(crate) fn start(wanted: bool, count: Option<Lines>) -> Self {
        if !wanted || !io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let bar = ProgressBar::new_spinner().with_style(style(WITHOUT_TOTAL));
        bar.enable_steady_tick(REDRAW);
        if let Some(lines) = count {
            let counted = bar.clone();
            let body = move || {
                counted.set_length(lines.count() as u64);
                counted.set_style(style(WITH_TOTAL));
            };
            // Without a thread there is no total.
            let _ = thread::Builder::new().name("count".to_owned()).spawn(body);
        }
        Self { bar: Some(bar) }
    }

    pub(crate) fn show(&self, ended: u64, failed: u64) {
        let Some(bar) = &self.bar else { return };
        bar.set_position(ended);
        if failed > 0 {
            bar.set_message(format!(", {failed} failed"));
        }
    }

    /// Takes the bar away while something else is printed.
    pub(crate) fn aside<R>(&self, print: impl FnOnce() -> R) -> R {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well formed")
}
