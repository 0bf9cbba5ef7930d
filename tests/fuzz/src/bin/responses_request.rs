#![no_main]
//! The decoder of Responses requests, and the items of what they say.

libfuzzer_sys::fuzz_target!(|data: &[u8]| smithgate_fuzz::responses_request(data));
