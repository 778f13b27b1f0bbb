//! What the primes worker can do.

offshoot::tasks! {
    in "primes";

    /// How many primes there are below a limit.
    pub(crate) fn count_below(limit: u32) -> usize {
        Ok((2..limit).filter(|n| (2..*n).all(|divisor| n % divisor != 0)).count())
    }
}
