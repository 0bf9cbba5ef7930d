#![no_main]
//! The decoder of the provider wire `openai_responses`.

use smithgate::config::ProviderWire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| smithgate_fuzz::provider(
    ProviderWire::OpenaiResponses,
    data
));
