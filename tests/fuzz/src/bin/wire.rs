//! The decoder of messages: it ends, takes no more memory than it may, and what it reads it writes the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peer::limits::MAX_MESSAGE_BYTES;
use peer::wire::codec;
use peer::wire::message::Message;

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = codec::decode::<Message>(data, MAX_MESSAGE_BYTES) {
        let again = codec::decode::<Message>(&codec::encode(&message), usize::MAX).expect("what we wrote ourselves");
        assert_eq!(again, message);
    }
});
