//! The BEAM collector: watches Erlang and Elixir nodes from outside, over their own distribution protocol.
//!
//! Nothing is installed on a node, nothing is compiled into its release. The collector joins as a hidden node under
//! one fixed name, asks a fixed list of questions, and leaves nothing behind but that name. Read in this order:
//!
//! 1. [`config`]: what to watch. `discovery` and `node`: who is watched, and one task for each.
//! 2. `call`: the closed list of functions that are called on a node, and the only way to call one.
//! 3. `link`: one connection (`dial` makes it); `wire` and `term`: its bytes. Both treat the peer as hostile.
//! 4. `poll`, `mailbox`: the two cycles of questions; `host_text`: files of `/proc` and the cgroup as the node sees
//!    them; `series`: what is written, and the markers that end it.
//!
//! Invariants: every wait has a deadline; a reply is refused by its length before anything is allocated for it; what
//! a node does costs its own connection and no other; the cookie is never printed.
//!
//! Deliberately absent: `erl_eval`, code loading, tracing, message contents, and anything that changes a node.
//! The series are described in `docs/metrics-beam.md`, what we call and what it costs in `docs/beam-security.md`.

mod call;
mod cookie;
mod dial;
mod discovery;
mod epmd;
mod host_text;
mod link;
mod mailbox;
mod node;
mod poll;
mod series;
mod socket_owner;
mod term;
mod wire;

pub mod config;

pub use config::{BeamConfig, NodeConfig};
pub use discovery::run;
