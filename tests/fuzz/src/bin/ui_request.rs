#![no_main]
//! The decoder of what `useChat` posts.

libfuzzer_sys::fuzz_target!(|data: &[u8]| smithgate_fuzz::ui_request(data));
