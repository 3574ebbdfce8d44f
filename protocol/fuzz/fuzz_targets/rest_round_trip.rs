#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kingpole_fuzz::rest_round_trip(input));
