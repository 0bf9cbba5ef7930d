#![no_main]
//! The SSE splitter: the same events whatever the reads are.

libfuzzer_sys::fuzz_target!(|data: &[u8]| smithgate_fuzz::sse(data));
