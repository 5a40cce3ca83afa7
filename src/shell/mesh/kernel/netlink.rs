//! As much of netlink as the kernel path needs: requests to netfilter, whole dumps, and attributes. A length that doesn't
//! fit ends what is read; the answers come from the kernel alone.

use std::io::{self, Read};
use std::time::Duration;

const AF_NETLINK: i32 = 16;
const NETLINK_NETFILTER: i32 = 12;
const HEADER_BYTES: usize = 16;
/// Behind it: family, version, resource id.
const NF_HEADER_BYTES: usize = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// The kernel answers at once, or never.
const PATIENCE: Duration = Duration::from_secs(2);
const BUFFER_BYTES: usize = 64 * 1024;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;

pub struct Netlink {
    socket: socket2::Socket,
    seq: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    pub fn open() -> io::Result<Self> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_NETFILTER)))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, seq: 0, buffer: vec![0; BUFFER_BYTES] })
    }

    /// The attributes of each message of the answer.
    pub fn dump(&mut self, kind: u16, family: u8, attributes: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
        self.ask(kind, NLM_F_DUMP, family, attributes, each)
    }

    pub fn act(&mut self, kind: u16, family: u8, attributes: &[u8]) -> io::Result<()> {
        self.ask(kind, NLM_F_ACK, family, attributes, |_| ())
    }

    /// Rises with every change that anybody makes to the rules of this network namespace.
    pub fn generation(&mut self) -> io::Result<u32> {
        let mut generation = None;
        let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN;
        self.ask(kind, NLM_F_ACK, 0, &[], |attributes| {
            generation = Attributes(attributes).find(|(kind, _)| *kind == NFTA_GEN_ID).and_then(|(_, v)| be32(v));
        })?;
        generation.ok_or_else(|| io::Error::other("the kernel told no generation of its rules"))
    }

    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        attributes: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        let length = (HEADER_BYTES + NF_HEADER_BYTES + attributes.len()) as u32;
        let mut request = Vec::with_capacity(length as usize);
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend(self.seq.to_ne_bytes());
        request.extend(0u32.to_ne_bytes());
        request.extend([family, 0, 0, 0]);
        request.extend(attributes);
        self.socket.send(&request)?;
        loop {
            let got = (&self.socket).read(&mut self.buffer)?;
            for message in Messages(&self.buffer[..got]) {
                if message.seq != self.seq {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = message.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => each(message.body.get(NF_HEADER_BYTES..).unwrap_or_default()),
                }
            }
        }
    }
}

struct Message<'a> {
    kind: u16,
    seq: u32,
    body: &'a [u8],
}

struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = u32::from_ne_bytes(*self.0.first_chunk()?) as usize;
        let message = self.0.get(..length).filter(|m| m.len() >= HEADER_BYTES)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        let seq = u32::from_ne_bytes([message[8], message[9], message[10], message[11]]);
        Some(Message { kind, seq, body: &message[HEADER_BYTES..] })
    }
}

/// Kind and value of each.
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let [l0, l1, k0, k1, ..] = *self.0 else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        // The upper two bits say "nested" and "in network order".
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    }
}

pub fn put(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    into.extend((4 + value.len() as u16).to_ne_bytes());
    into.extend(kind.to_ne_bytes());
    into.extend(value);
    into.resize(aligned(into.len()), 0);
}

pub fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

pub fn be16(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}
