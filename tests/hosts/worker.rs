//! A worker executable of its own, which tells how it was started.

mod report;

use offshoot::{Registry, worker};

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--without-tasks") {
        worker::serve_with(Registry::empty());
    }
    worker::serve()
}
