//! The worker of the words. It is started by the pool of `two_programs`, not by hand.

mod words;

fn main() {
    offshoot::worker::serve()
}
