//! Any bytes, in pieces of any size: the decoder and both parsers refuse or understand them.
//!
//! The first byte says how large the pieces are.

#![no_main]

use boxyard_agent::protocol::{Decoder, FromAgent, FromHost, MAX_DATA, MAX_DOCUMENT};
use libfuzzer_sys::fuzz_target;

/// A frame as it was seen: channel, kind, stream and payload.
type Seen = (u32, u8, u8, Vec<u8>);

fuzz_target!(|input: &[u8]| {
    let Some((&step, bytes)) = input.split_first() else {
        return;
    };
    let in_pieces = decode(bytes, usize::from(step).max(1));
    let at_once = decode(bytes, bytes.len().max(1));
    assert_eq!(in_pieces, at_once, "the size of the pieces means something");
});

/// Cuts bytes into frames; returns them, and whether the stream was of use to its end.
fn decode(bytes: &[u8], step: usize) -> (Vec<Seen>, bool) {
    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    for piece in bytes.chunks(step) {
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= MAX_DATA.max(MAX_DOCUMENT));
                    if let Ok(message) = FromHost::parse(frame) {
                        reads_back_from_host(&message);
                    }
                    if let Ok(message) = FromAgent::parse(frame) {
                        reads_back_from_agent(&message);
                    }
                    let header = frame.header;
                    let payload = frame.payload.to_vec();
                    seen.push((header.channel, header.kind, header.stream, payload));
                }
                Ok(None) => break,
                Err(_) => return (seen, false),
            }
        }
    }
    (seen, true)
}

fn reads_back_from_host(message: &FromHost<'_>) {
    let mut decoder = Decoder::new();
    // A document may be longer than a frame when it is spelt another way.
    if message.encode(decoder.buffer()).is_ok() {
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!(FromHost::parse(frame).as_ref(), Ok(message));
    }
}

fn reads_back_from_agent(message: &FromAgent<'_>) {
    let mut decoder = Decoder::new();
    if message.encode(decoder.buffer()).is_ok() {
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!(FromAgent::parse(frame).as_ref(), Ok(message));
    }
}
