//! From forecasts to people: which alerts there are, who is told, when, and that nobody is told twice.
//!
//! The way of an alert, which is also the order to read in:
//!
//! 1. [`rules`]: forecasts become alerts. Pure; absurd forecasts are refused and what they said before is held.
//! 2. [`config`], [`route`]: `route` and `receivers` as in `alertmanager.yml`; which receivers get which alert.
//! 3. [`router`]: the state machine: groups and their timers, the notification log, the outbox. Time is passed in, its
//!    only I/O is the [`state_log`].
//! 4. [`state_log`]: durable keyed records behind one seam (`docs/formats/state-log-v1.md`).
//! 5. [`notification`], [`receiver`]: what is sent, and the integrations that send it.
//! 6. [`driver`]: the task that feeds the router, sleeps until it is due and sends.
//!
//! [`metrics`] has every series. `docs/alerts.md` is the same for a person who is paged.
//!
//! Invariants:
//! - A change counts once it is a record. An intent is a record before the send, its result after: a crash costs at
//!   most one repeat under the same key, and a restart sends nothing new.
//! - `exhausted` is the top state of the same alert as `critical`, never a resolve. Missing or absurd data never
//!   resolves anything.
//! - A state log that refuses writes does not silence the pager: see [`router::Router`].
//!
//! Deliberately absent: silences, inhibition, mute times and templates (the stages that would go between grouping and
//! sending), and judgement about resources, which is `forewarn-analyze`.

pub mod config;
pub mod driver;
pub mod error;
pub mod metrics;
pub mod notification;
pub mod receiver;
pub mod route;
pub mod router;
pub mod rules;
pub mod secret;
pub mod state_log;

pub use config::AlertConfig;
pub use driver::{Handle, Input, run};
pub use error::Error;
pub use metrics::Metrics;
pub use receiver::{Notifier, Receivers, SendError};
pub use router::{AlertView, Router, RouterConfig};
pub use state_log::{EmbeddedStateLog, MemoryStateLog, StateLog};
