#![no_main]
//! The decoder of Chat Completions requests.

libfuzzer_sys::fuzz_target!(|data: &[u8]| smithgate_fuzz::chat_request(data));
