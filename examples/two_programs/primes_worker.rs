//! The worker of the primes. It is started by the pool of `two_programs`, not by hand.

mod primes;

fn main() {
    offshoot::worker::serve()
}
