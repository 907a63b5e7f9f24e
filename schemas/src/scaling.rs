//! Scaling requests: what is asked of an autoscaler.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScalingAction {
    /// At least `wanted` units of capacity. A forecast raises a floor, it never lowers one.
    Raise,
    /// Replace the node: a leak that more capacity would not cure.
    Recycle,
}

/// A request for capacity, absolute and idempotent: sent twice it means the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ScalingRequest {
    /// Same key, same request.
    pub idempotency_key: String,
    /// Grows with each router that takes over; an older one is a zombie's and is dropped.
    pub epoch: u64,
    /// Whose capacity.
    pub family: String,
    /// Which resource runs out.
    pub resource: String,
    /// What is asked.
    pub action: ScalingAction,
    /// Capacity now.
    pub current: f64,
    /// Capacity wanted by the deadline.
    pub wanted: f64,
    /// When it must be there (milliseconds since the epoch).
    pub deadline: Timestamp,
    /// Seconds after which the request means nothing any more.
    pub ttl_seconds: u64,
    /// Why, for a person, with the numbers it rests on.
    pub evidence: String,
}
