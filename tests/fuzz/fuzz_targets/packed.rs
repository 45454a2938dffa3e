#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rdbkeeper_fuzz::targets::packed(data));
