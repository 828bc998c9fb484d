//! `Vary` and two requests. What holds for them stands beside the function.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tachikoma_http_cache::fuzzing::vary(data));
