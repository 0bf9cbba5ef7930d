//! The gateway in-process, over real sockets, against a scripted provider that speaks each
//! provider's wire with recorded-like bytes.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside, where there is no guard"
)]

mod agent_tools;
mod api;
mod assets;
mod attachments;
mod attacks;
mod cached;
mod chaos;
mod cli;
mod clients;
mod connector;
mod contract;
mod control;
mod crash;
mod cycles;
mod decisions;
mod decoders;
mod discord;
mod edge;
mod email;
mod faults;
mod fields;
mod filters;
mod forward;
mod gemini;
mod histories;
mod hostile;
mod iac;
mod idempotency;
mod ids;
mod mcp_hard;
mod mcp_host;
mod mcp_quirks;
mod memory;
mod messages;
mod mock;
mod mounts;
mod nodes;
mod packages;
mod pages;
mod plans;
mod prices;
mod quirks;
mod relay;
mod requests;
mod responses;
mod retention;
mod retrieval;
mod routing;
mod runs;
mod schedules;
mod secrets;
mod shapes;
mod skills;
mod slack;
mod slack_platform;
mod speaker;
mod startup;
mod storage;
mod store;
mod support;
mod telegram;
mod telegram_packages;
mod threads;
mod tidy;
mod tools;
mod typed;
mod ui;
mod virtual_keys;
mod webhooks;
mod webpage;
mod whatsapp;
mod wide;
mod wires;
mod work;
