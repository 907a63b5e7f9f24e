//! What can go wrong: only what comes from outside, a catalogue file or a snapshot.

use std::fmt;

/// Why a catalogue or a snapshot is refused. Samples are never refused here: nonsense among them counts as missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnalyzeError {
    /// The catalogue has mistakes; all of them.
    #[error("catalogue: {}", list(.0))]
    Catalogue(Vec<CatalogueError>),
    /// The settings contradict themselves.
    #[error("analyze.{field}: {reason}")]
    Config {
        /// The setting's name.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes that do not begin as a snapshot does.
    #[error("not an analyze snapshot: it does not begin with FWAN")]
    SnapshotMagic,
    /// Written by a newer forewarn.
    #[error("analyze snapshot version {0} is newer than {1}: upgrade forewarn to read it")]
    SnapshotVersion(u16, u16),
    /// The checksum does not agree.
    #[error("analyze snapshot checksum mismatch")]
    SnapshotChecksum,
    /// The checksum agrees but the content is not what the format says.
    #[error("analyze snapshot content: {0} at byte {1}")]
    SnapshotContent(&'static str, usize),
}

/// One mistake in a catalogue file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueError {
    /// Line of the entry, from 1; `None` when the parser could not say.
    pub line: Option<usize>,
    /// The resource's name, empty when the mistake is not inside an entry.
    pub resource: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.resource.is_empty() {
            write!(f, "resource {}: ", self.resource)?;
        }
        f.write_str(&self.reason)
    }
}

fn list(errors: &[CatalogueError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
