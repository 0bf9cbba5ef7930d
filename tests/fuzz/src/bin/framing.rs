#![no_main]
//! Where an HTTP/1.1 answer ends: the same whatever the reads are.

libfuzzer_sys::fuzz_target!(|data: &[u8]| smithgate_fuzz::framing(data));
