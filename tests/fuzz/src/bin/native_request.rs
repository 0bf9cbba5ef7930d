#![no_main]
//! The decoder of native run requests.

libfuzzer_sys::fuzz_target!(|data: &[u8]| smithgate_fuzz::native_request(data));
