//! What the words worker can do. The group's name is the same in every executable that includes this.

offshoot::tasks! {
    in "words";

    /// How many words a text has.
    pub(crate) fn count(text: String) -> usize {
        Ok(text.split_whitespace().count())
    }
}
