//! Parts of keys. What holds for them stands beside the function.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tachikoma_cache::fuzzing::key(data));
