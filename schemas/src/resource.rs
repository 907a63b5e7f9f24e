//! What can be exhausted.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A resource's identity. `object` is the mount, queue, table, cgroup or process name, empty when the node has only
/// one; never a pid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceKey {
    /// The node that has it.
    pub node: String,
    /// Its name in the catalogue: `memory`, `disk`, `processes`, `atoms`.
    pub resource: String,
    /// Which one of several on the node.
    pub object: String,
}

/// Writes `node/resource` or `node/resource/object`.
impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.resource)?;
        if self.object.is_empty() { Ok(()) } else { write!(f, "/{}", self.object) }
    }
}

/// What reaching the limit means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// Ends at its limit: disk, atoms, processes, descriptors.
    Hard,
    /// Reclaimed near its limit: page cache, garbage-collected heaps. The floor counts.
    Elastic,
    /// Lives at its limit by design. Pages only on harm.
    Bounded,
    /// Levels and rates, but no time to exhaustion.
    Pressure,
}

/// Which way lies exhaustion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// `used` grows towards the limit.
    #[default]
    Up,
    /// `used` is what is left and falls towards the limit.
    Down,
}
