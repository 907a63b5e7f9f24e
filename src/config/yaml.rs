//! Reads YAML and finds every error of a file at once, each with its line and, for a misspelt key, the nearest real
//! one.
//!
//! serde stops at the first error. So that a person need not mend one to see the next, the offending entry is blanked
//! out of the text and the rest is read again, until it is read whole or an error has no entry that could be left out.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_saphyr::Error;

/// Errors reported of one file at most.
const PROBLEMS_MAX: usize = 100;

/// One error of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 when the error has no place.
    pub line: u64,
    /// Column, from 1; 0 when the error has no place.
    pub column: u64,
    /// What is wrong, and the nearest right key where there is one.
    pub message: String,
}

impl Problem {
    /// Makes a problem that has no place in the text.
    pub fn anywhere(message: String) -> Self {
        Self { line: 0, column: 0, message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => f.write_str(&self.message),
            (line, column) => write!(f, "{line}:{column}: {}", self.message),
        }
    }
}

/// Reads `text` as a `T`; an empty text is its default.
///
/// # Errors
/// Every problem of the text, by line.
pub fn parse<T: DeserializeOwned + Default>(text: &str) -> Result<T, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut rest = text.to_owned();
    while problems.len() < PROBLEMS_MAX {
        let error = match serde_saphyr::from_str::<Option<T>>(&rest) {
            Ok(value) if problems.is_empty() => return Ok(value.unwrap_or_default()),
            Ok(_) => break,
            Err(error) => error,
        };
        let problem = describe(error.without_snippet());
        let blanked = blank_entry(&rest, problem.line, problem.column);
        problems.push(problem);
        match blanked {
            Some(text) => rest = text,
            None => break,
        }
    }
    problems.sort_by_key(|p| (p.line, p.column));
    problems.dedup();
    Err(problems)
}

fn describe(error: &Error) -> Problem {
    let (line, column) = error.location().map_or((0, 0), |l| (l.line(), l.column()));
    let message = match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => unknown("value", variant, expected),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("{unexpected} stands where {expected} is expected")
        }
        Error::SerdeMissingField { field, .. } => format!("the key {field:?} is missing"),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key:?} stands twice"),
        Error::Message { msg, .. } => msg.clone(),
        other => first_line(&other.to_string()),
    };
    Problem { line, column, message }
}

fn unknown(what: &str, word: &str, expected: &[&str]) -> String {
    match nearest(word, expected) {
        Some(near) => format!("unknown {what} {word:?}; did you mean {near:?}?"),
        None if expected.is_empty() => format!("unknown {what} {word:?}; none is known here"),
        None => format!("unknown {what} {word:?}; known here: {}", expected.join(", ")),
    }
}

/// Returns the candidate that `word` most likely meant, if any is close.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|c| (strsim::jaro_winkler(word, c), *c))
        .filter(|(score, _)| *score >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

/// The first line, without the place that some messages repeat.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.rsplit_once(" at line ").map_or(line, |(message, _)| message).to_owned()
}

/// Blanks the entry of a block mapping or sequence that the given place is in: its line and all deeper ones below it,
/// and the entry above when nothing is left in that. `None` when there is nothing to blank.
fn blank_entry(text: &str, line: u64, column: u64) -> Option<String> {
    let at = usize::try_from(line).ok()?.checked_sub(1)?;
    let column = usize::try_from(column).ok()?.checked_sub(1)?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let first = lines.get(at).filter(|l| !l.trim().is_empty())?;
    // Within `- key: value` the entry begins behind the dash, unless the place is the dash itself.
    let indent = (first.len() - first.trim_start_matches([' ', '-']).len()).min(column);
    lines[at] = first.chars().take(indent).collect();
    let mut below = at + 1;
    while lines.get(below).is_some_and(|l| l.trim().is_empty() || depth(l) > indent) {
        lines[below].clear();
        below += 1;
    }
    blank_childless(&mut lines, at);
    Some(lines.join("\n"))
}

/// Blanks the lines at and above `at` that head a mapping or sequence of which nothing is left.
fn blank_childless(lines: &mut [String], at: usize) {
    for i in (0..=at).rev() {
        let line = lines[i].trim();
        if line.is_empty() {
            continue;
        }
        let heads = line.chars().all(|c| c == '-' || c == ' ') || (line.ends_with(':') && i < at);
        let own = indent_of(&lines[i]);
        let follower = lines[i + 1..].iter().find(|l| !l.trim().is_empty());
        // A sequence may stand at the indentation of its key.
        let has_child = follower.is_some_and(|f| {
            indent_of(f) > own || (line.ends_with(':') && indent_of(f) == own && f.trim_start().starts_with('-'))
        });
        if !heads || has_child {
            return;
        }
        lines[i].clear();
    }
}

/// The indentation of a line's content; a dash at it belongs to the entry above.
fn depth(line: &str) -> usize {
    indent_of(line) + usize::from(line.trim_start().starts_with("- "))
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Outer {
        listen: String,
        inner: Inner,
        items: Vec<Inner>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        interval: u32,
        name: String,
    }

    fn problems(text: &str) -> Vec<String> {
        parse::<Outer>(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_error_with_line_and_nearest_key() {
        let text = "lisen: x\ninner:\n  intervall: 3\n  name: n\n  bogus:\n    deep: [1]\nitems:\n  - interval: many\n    nam: x\n";
        let found = problems(text);
        assert_eq!(found.len(), 5, "{found:#?}");
        assert_eq!(found[0], "1:1: unknown key \"lisen\"; did you mean \"listen\"?");
        assert_eq!(found[1], "3:3: unknown key \"intervall\"; did you mean \"interval\"?");
        assert!(found[2].starts_with("5:3: unknown key \"bogus\"; known here: "), "{}", found[2]);
        assert!(found[3].starts_with("8:"), "{}", found[3]);
        assert_eq!(found[4], "9:5: unknown key \"nam\"; did you mean \"name\"?");
    }

    #[test]
    fn a_sound_file_and_an_empty_one_are_read() {
        assert_eq!(parse::<Outer>("").unwrap(), Outer::default());
        assert_eq!(parse::<Outer>("# nothing\n").unwrap(), Outer::default());
        assert_eq!(parse::<Outer>("inner: {interval: 4}").unwrap().inner.interval, 4);
    }

    #[test]
    fn broken_yaml_is_one_error_and_ends() {
        assert!(!problems("inner: [1, 2\nlisten: }").is_empty());
        assert!(!problems("inner: {bogus: 1, interval: x}").is_empty());
        assert!(problems(&"x: 1\n".repeat(500)).len() <= PROBLEMS_MAX);
    }
}
