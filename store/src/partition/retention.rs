//! Retention by age: whole blocks, oldest first, and never because a clock jumped.
//!
//! A block goes when its last sample is older than the retention, counted from the earlier of two times: the caller's
//! clock and the newest `received_at` in the log. So a clock that runs ahead alone deletes nothing. When both are wrong
//! (the machine's clock jumped while collecting) the step bounds the loss: at most `retention_step` of history in an
//! hour.

use std::sync::Arc;
use std::time::Duration;

use forewarn_schemas::Timestamp;

use super::Partition;
use crate::block::Block;
use crate::error::StoreError;
use crate::lock::{lock, read, write};

const STEP_INTERVAL: Duration = Duration::from_secs(3600);

/// What a retention step dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retained {
    /// Blocks dropped.
    pub blocks: usize,
    /// Samples in them.
    pub samples: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

impl Partition {
    pub(crate) fn retain(&self, now: Timestamp) -> Result<Retained, StoreError> {
        if self.shared.read_only {
            return Err(StoreError::ReadOnly);
        }
        let mut chain = lock(&self.chain);
        chain.check_open()?;
        self.collect()?;
        let mut retained_at = lock(&self.retained_at);
        if let Some(last) = *retained_at {
            if now < last {
                // The clock stepped back: count the hour from here.
                *retained_at = Some(now);
                return Ok(Retained::default());
            }
            if now.since(last) < STEP_INTERVAL {
                return Ok(Retained::default());
            }
        }
        let victims = self.expired(now);
        if victims.is_empty() {
            return Ok(Retained::default());
        }
        let mut delta = chain.draft();
        delta.remove = victims.iter().map(|b| b.meta.id.clone()).collect();
        chain.publish(delta)?;
        *retained_at = Some(now);

        let mut state = write(&self.state);
        let kept = state.blocks.iter().filter(|b| !victims.iter().any(|v| Arc::ptr_eq(v, b)));
        state.blocks = Arc::new(kept.cloned().collect());
        self.show(&state);
        drop(state);
        let mut out = Retained::default();
        for block in &victims {
            out.blocks += 1;
            out.samples += block.meta.samples;
            out.bytes += block.meta.bytes();
            self.shared.forget_block(block);
        }
        self.shared.metrics.blocks_retired.inc_by(out.blocks as u64);
        lock(&self.retired).extend(victims);
        if let Err(e) = self.collect() {
            tracing::warn!(partition = %self.id, error = %e, "could not delete the files of expired blocks yet");
        }
        Ok(out)
    }

    fn expired(&self, now: Timestamp) -> Vec<Arc<Block>> {
        let state = read(&self.state);
        let Some(received) = state.received_at else { return Vec::new() };
        let cutoff = (now.min(received) - self.shared.config.retention).as_millis();
        let old = || state.blocks.iter().filter(|b| b.meta.max_ts < cutoff);
        let Some(oldest) = old().map(|b| b.meta.max_ts).min() else { return Vec::new() };
        let step = i64::try_from(self.shared.config.retention_step.as_millis()).unwrap_or(i64::MAX);
        let end = oldest.saturating_add(step);
        old().filter(|b| b.meta.max_ts < end).cloned().collect()
    }
}
