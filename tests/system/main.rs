//! Whole-system tests: the binary under test as a user runs it, with real servers where its name says `needs_<suite>_`.
//! `tests/run` runs them; by hand: `cargo test --test system`.

mod bad_input;
mod cardinality;
mod erlang_leaks;
mod host_leaks;
mod kill;
mod page;
mod prometheus;
mod secured;
mod start;
mod support;
