//! Who may talk to the listener: TLS, users and tokens with roles, and which names it answers to.
//!
//! Without users or tokens everything is open, which is why listening beyond loopback is then refused unless
//! `web.insecure` says that it is meant. The `Host` allow-list stops pages of other sites from reading this one
//! through a name that they point at it (DNS rebinding).

pub mod access;
pub mod config;

pub use access::{Access, Gate, Role};
pub use config::WebConfig;
