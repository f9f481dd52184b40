//! Vecdis: a vector server that speaks the Redis protocol. `ARCHITECTURE.md` is the map.

#[cfg(target_endian = "big")]
compile_error!("data files hold little-endian numbers and are used in place");

pub mod access;
pub mod cli;
pub mod clock;
pub mod collection;
pub mod command;
pub mod config;
pub mod disk;
pub mod document;
pub mod embed;
pub mod glob;
pub mod graph;
pub mod heap;
pub mod hex;
pub mod logging;
pub mod metrics;
pub mod server;
pub mod store;
pub mod text;
pub mod tls;
pub mod vector;
