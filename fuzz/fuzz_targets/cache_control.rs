//! `Cache-Control`. What holds for it stands beside the function.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tachikoma_http_cache::fuzzing::cache_control(data));
