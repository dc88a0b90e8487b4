//! Ends that do not keep to the protocol, and lines that do not keep.

mod agent;
mod host;
mod loss;

use boxyard_agent::protocol::Header;

fn header(kind: u8, channel: u32, stream: u8, length: usize) -> Vec<u8> {
    let header = Header {
        length: u32::try_from(length).unwrap(),
        channel,
        kind,
        stream,
    };
    header.to_bytes().to_vec()
}
