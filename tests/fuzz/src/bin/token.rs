//! Join tokens: what is taken for one says the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peer::shell::identity::Token;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(token) = Token::parse(text) {
        assert_eq!(token.to_string(), text.trim());
    }
});
