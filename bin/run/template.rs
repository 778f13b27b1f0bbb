//! `--args`: from a line of input to a command, by GNU parallel's habits.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A command with places for the line (`{}`) and its number (`{#}`).
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Line,
    Number,
}

impl Template {
    pub(crate) fn parse(text: &OsStr) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text.as_bytes();
        let mut plain = Vec::new();
        while let [first, others @ ..] = rest {
            let (piece, length) = match rest {
                [b'{', b'}', ..] => (Piece::Line, 2),
                [b'{', b'#', b'}', ..] => (Piece::Number, 3),
                _ => {
                    plain.push(*first);
                    rest = others;
                    continue;
                }
            };
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
            pieces.push(piece);
            rest = &rest[length..];
        }
        if pieces.is_empty() {
            plain.push(b' ');
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
            pieces.push(Piece::Line);
        }
        pieces.push(Piece::Text(plain));
        Self { pieces }
    }

    pub(crate) fn fill(&self, line: &[u8], number: u64) -> Vec<u8> {
        let mut command = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => command.extend_from_slice(text),
                Piece::Line => quote(line, &mut command),
                Piece::Number => command.extend_from_slice(number.to_string().as_bytes()),
            }
        }
        command
    }
}

/// One word of a shell command that means exactly these bytes.
fn quote(word: &[u8], command: &mut Vec<u8>) {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./,:+@%^".contains(byte);
    if !word.is_empty() && word.iter().all(harmless) {
        command.extend_from_slice(word);
        return;
    }
    command.push(b'\'');
    for &byte in word {
        match byte {
            b'\'' => command.extend_from_slice(b"'\\''"),
            _ => command.push(byte),
        }
    }
    command.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, line: &str) -> String {
        String::from_utf8(Template::parse(template.as_ref()).fill(line.as_bytes(), 7)).expect("it was UTF-8")
    }

    #[test]
    fn places_are_filled_and_the_rest_stays() {
        assert_eq!(fill("gzip -k {}", "a.txt"), "gzip -k a.txt");
        assert_eq!(fill("mv {} {#}-{}", "x"), "mv x 7-x");
        assert_eq!(fill("awk '{print}' {}", "x"), "awk '{print}' x");
        assert_eq!(fill("{", "x"), "{ x");
    }

    #[test]
    fn a_template_without_places_gets_the_line_at_its_end() {
        assert_eq!(fill("gzip -k", "a.txt"), "gzip -k a.txt");
        assert_eq!(fill("touch {#}", "a.txt"), "touch 7", "as GNU parallel has it");
    }

    #[test]
    fn what_the_shell_would_read_is_quoted() {
        assert_eq!(fill("echo", "a b"), "echo 'a b'");
        assert_eq!(fill("echo", "it's"), r"echo 'it'\''s'");
        assert_eq!(fill("echo", "$HOME; rm *"), "echo '$HOME; rm *'");
        assert_eq!(fill("echo", "{} {#}"), "echo '{} {#}'", "what was filled in is not filled again");
        assert_eq!(fill("echo", "~"), "echo '~'");
        assert_eq!(fill("X={}", "a=b"), "X='a=b'");
    }
}
