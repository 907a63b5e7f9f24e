//! The store's public behaviour. One binary, because linking DataFusion is slow; one module per scenario.

#[path = "all/support.rs"]
mod support;

#[path = "all/block_store_conformance.rs"]
mod block_store_conformance;
#[path = "all/concurrency.rs"]
mod concurrency;
#[path = "all/crashes.rs"]
mod crashes;
#[path = "all/damage.rs"]
mod damage;
#[path = "all/fixture.rs"]
mod fixture;
#[path = "all/flush_and_reopen.rs"]
mod flush_and_reopen;
#[path = "all/model.rs"]
mod model;
#[path = "all/other_engines.rs"]
mod other_engines;
#[path = "all/retention.rs"]
mod retention;
#[path = "all/sql.rs"]
mod sql;
