//! Smithgate: a self-hosted gateway for AI agents. One base URL for every client wire.
//!
//! The binary is a thin shell around this library, which tests and benches drive too. Data flows
//! one way: `edge` → `auth` → `wire` (decode) → `run` → `model` → frames → `wire` (encode) →
//! `edge`. Each module's documentation says what lives there and what it may import.

mod answers;
pub mod api;
pub mod auth;
mod block;
pub mod bodies;
pub mod bus;
pub mod channel;
pub mod coding;
pub mod config;
pub mod connection;
mod cron;
pub mod demo;
pub mod edge;
pub mod error;
pub mod frame;
pub mod gateway;
pub mod ids;
pub mod json;
mod lane;
pub mod lenient;
pub mod limit;
pub mod metrics;
pub mod model;
pub mod overload;
pub mod prices;
pub mod retention;
pub mod retrieval;
mod routes;
pub mod run;
mod schedule;
pub mod secrets;
pub mod server;
pub mod silence;
pub mod sse;
pub mod store;
mod tended;
pub mod tools;
pub mod untrusted;
pub mod upstream;
pub mod webhook;
pub mod wire;
pub mod work;
