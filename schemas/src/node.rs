//! Whose series it is: node identity and family.

use crate::label::Labels;

/// The label that names the node.
pub const NODE: &str = "node";
/// The label that names the family: nodes that run the same release.
pub const FAMILY: &str = "family";
/// The identity of what names no node at all.
pub const UNKNOWN: &str = "_";

/// Returns the node that a series belongs to: the label `node`, else `service.instance.id`, then `host.name` (OTLP),
/// else `instance`, else `_`. Applied once, at the edge; it decides the partition.
pub fn node_of(labels: &Labels) -> &str {
    [NODE, "service.instance.id", "host.name", "instance"].iter().find_map(|n| labels.get(n)).unwrap_or(UNKNOWN)
}

/// Returns the family by default: the label `family`, else `release`, else the Kubernetes owner, else `job` with
/// `role` when there is one, else the node alone.
pub fn family_of(labels: &Labels) -> String {
    for name in [FAMILY, "release", "workload", "k8s.deployment.name"] {
        if let Some(v) = labels.get(name) {
            return v.to_owned();
        }
    }
    match (labels.get("job"), labels.get("role")) {
        (Some(job), Some(role)) => format!("{job}/{role}"),
        (Some(job), None) => job.to_owned(),
        _ => node_of(labels).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_in_order_of_preference() {
        let l = |p: &[(&str, &str)]| Labels::from_pairs(p.iter().copied()).unwrap();
        assert_eq!(node_of(&l(&[("node", "a"), ("instance", "b")])), "a");
        assert_eq!(node_of(&l(&[("host.name", "h"), ("service.instance.id", "s")])), "s");
        assert_eq!(node_of(&l(&[("host.name", "h"), ("instance", "b:1")])), "h");
        assert_eq!(node_of(&l(&[("instance", "b:1")])), "b:1");
        assert_eq!(node_of(&Labels::empty()), "_");
        assert_eq!(family_of(&l(&[("job", "j"), ("node", "n")])), "j");
        assert_eq!(family_of(&l(&[("node", "n")])), "n");
    }
}
