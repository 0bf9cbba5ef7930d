//! The gateway in-process, over real sockets, against a scripted provider that speaks each
//! provider's wire with recorded-like bytes.

mod agent_tools;
mod api;
mod assets;
mod attachments;
mod chaos;
mod cli;
mod clients;
mod connector;
mod contract;
mod control;
mod crash;
mod decoders;
mod edge;
mod faults;
mod forward;
mod mcp_hard;
mod mcp_host;
mod mcp_quirks;
mod mock;
mod mounts;
mod nodes;
mod packages;
mod plans;
mod quirks;
mod requests;
mod responses;
mod retrieval;
mod routing;
mod runs;
mod store;
mod support;
mod tools;
mod ui;
mod webhooks;
mod wires;
