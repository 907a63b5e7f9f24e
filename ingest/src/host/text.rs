//! The few shapes that files of the kernel have: one number, `name value` lines, columns.

use std::path::Path;

use super::error::Error;
use super::tree::read_text;

/// Reads a file that holds one number.
pub(super) fn read_number(path: &Path) -> Result<u64, Error> {
    read_text(path)?.trim().parse().map_err(|_| Error::malformed(path, "number"))
}

/// Returns the first number of the line that starts with `name`, where blanks, a colon or an equals sign follow it.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with([' ', '\t', ':', '=']) {
            return None;
        }
        rest.trim_start_matches([' ', '\t', ':', '=']).split_ascii_whitespace().next()?.parse().ok()
    })
}

/// Returns the number in the column, counted from zero, of the first line.
pub(super) fn column<T: std::str::FromStr>(text: &str, index: usize) -> Option<T> {
    text.lines().next()?.split_ascii_whitespace().nth(index)?.parse().ok()
}

/// Makes text of what the kernel gives as bytes: invalid UTF-8 and control characters become U+FFFD.
pub(super) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "anon_thp 7\nanon 5\nMemTotal:     12 kB\nsize                            4    99\n";
        assert_eq!(field(text, "anon"), Some(5));
        assert_eq!(field(text, "MemTotal"), Some(12));
        assert_eq!(field(text, "Mem"), None);
        assert_eq!(field("anon\n", "anon"), None);
        assert_eq!(field("anon x\n", "anon"), None);
        assert_eq!(column::<u64>("520\t0\t2466183\n", 2), Some(2_466_183));
        assert_eq!(column::<u64>("", 0), None);
        assert_eq!(printable(b"a\xffb\nc"), "a\u{fffd}b\u{fffd}c");
    }
}
