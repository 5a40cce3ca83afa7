//! Who a member is in foca's eyes, and how foca's packets look on the wire.
//!
//! An identity is one *life* of a node: the stable id, the address and the bump. Foca keys on the stable id alone
//! (`Identity::Addr`), so a restart renames a member instead of adding one. An identity never renews itself: only
//! [`Membership`](super::Membership) may raise the bump, because it must be persisted.
//!
//! Everything decoded here is bounded by the packet; identities with a bump beyond [`MAX_BUMP`] are refused, which
//! keeps the values above it for our own tombstones of removed nodes.

use crate::ids::NodeId;
use crate::wire::codec;
use crate::wire::message::{MemberEntry, MemberState};
use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::net::{SocketAddr, SocketAddrV6};

/// No life of a node is ever numbered higher. A rumour that claims so is refused, so nobody can be pushed to the end.
pub(super) const MAX_BUMP: u64 = u64::MAX / 2;
/// Beats every life, see [`Identity::tombstone`].
const TOMBSTONE_BUMP: u64 = u64::MAX;
/// A header holds at most three identities of at most 45 bytes.
const MAX_ITEM_BYTES: usize = 192;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub node: NodeId,
    pub addr: SocketAddr,
    pub bump: u64,
}

impl Identity {
    pub fn new(node: NodeId, addr: SocketAddr, bump: u64) -> Self {
        // Flow label and scope don't travel, so they must not make two equal identities differ.
        let addr = match addr {
            SocketAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0)),
            v4 @ SocketAddr::V4(_) => v4,
        };
        Self { node, addr, bump }
    }

    /// Held as down in place of a removed node: no rumour can win against it.
    pub fn tombstone(node: NodeId) -> Self {
        Self { node, addr: SocketAddr::from(([0, 0, 0, 0], 0)), bump: TOMBSTONE_BUMP }
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        // The address only makes the order strict: one life has one address.
        (self.bump, self.addr) > (adversary.bump, adversary.addr)
    }
}

pub(super) type Member = foca::Member<Identity>;
pub(super) type Header = foca::Header<Identity>;
pub(super) type Timer = foca::Timer<Identity>;

pub(super) fn to_entry(member: &Member) -> MemberEntry {
    MemberEntry {
        node: member.id().node,
        addr: member.id().addr,
        bump: member.id().bump,
        incarnation: member.incarnation(),
        state: match member.state() {
            foca::State::Alive => MemberState::Alive,
            foca::State::Suspect => MemberState::Suspect,
            foca::State::Down => MemberState::Down,
        },
    }
}

pub(super) fn from_entry(entry: &MemberEntry) -> Member {
    let state = match entry.state {
        MemberState::Alive => foca::State::Alive,
        MemberState::Suspect => foca::State::Suspect,
        MemberState::Down => foca::State::Down,
    };
    Member::new(Identity::new(entry.node, entry.addr, entry.bump), entry.incarnation, state)
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PacketError {
    #[error("no room for another item in this packet")]
    Full,
    #[error("malformed item: {0}")]
    Malformed(codec::CodecError),
    #[error("bump {0} is beyond the highest allowed")]
    Bump(u64),
}

/// As all our bytes; a packet travels inside a versioned `Message`, so it carries no version of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct PacketCodec;

fn write<T: Serialize>(item: &T, mut buf: impl BufMut) -> Result<(), PacketError> {
    let mut scratch = [0u8; MAX_ITEM_BYTES];
    let used = codec::write_bare(item, &mut scratch).ok_or(PacketError::Full)?;
    let bytes = scratch.get(..used).ok_or(PacketError::Full)?;
    // Foca's contract: nothing is written when the whole doesn't fit.
    if bytes.len() > buf.remaining_mut() {
        return Err(PacketError::Full);
    }
    buf.put_slice(bytes);
    Ok(())
}

fn read<T: DeserializeOwned>(mut buf: impl Buf) -> Result<T, PacketError> {
    // Foca reads from one slice, so the first chunk is all there is.
    let chunk = buf.chunk();
    let (item, rest) = codec::read_bare(chunk).map_err(PacketError::Malformed)?;
    let used = chunk.len() - rest.len();
    buf.advance(used);
    Ok(item)
}

fn checked(identity: &Identity) -> Result<(), PacketError> {
    if identity.bump > MAX_BUMP { Err(PacketError::Bump(identity.bump)) } else { Ok(()) }
}

impl foca::Codec<Identity> for PacketCodec {
    type Error = PacketError;

    fn encode_header(&mut self, header: &Header, buf: impl BufMut) -> Result<(), PacketError> {
        write(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header, PacketError> {
        let header: Header = read(buf)?;
        checked(&header.src)?;
        checked(&header.dst)?;
        match &header.message {
            foca::Message::PingReq { target, .. } | foca::Message::IndirectAck { target, .. } => checked(target)?,
            foca::Message::IndirectPing { origin, .. } | foca::Message::ForwardedAck { origin, .. } => checked(origin)?,
            _ => {}
        }
        Ok(header)
    }

    fn encode_member(&mut self, member: &Member, buf: impl BufMut) -> Result<(), PacketError> {
        write(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member, PacketError> {
        let member: Member = read(buf)?;
        checked(member.id())?;
        Ok(member)
    }
}

/// What a packet says before foca has a look at it.
pub(super) struct Peek<'a> {
    pub header: Header,
    /// How many rumours ride along.
    pub updates: u16,
    head: &'a [u8],
    tail: &'a [u8],
}

pub(super) fn peek(packet: &[u8]) -> Result<Peek<'_>, PacketError> {
    let mut rest = packet;
    let header = foca::Codec::decode_header(&mut PacketCodec, &mut rest)?;
    let head = packet.get(..packet.len() - rest.len()).unwrap_or_default();
    let updates = if rest.len() >= 2 { rest.get_u16() } else { 0 };
    Ok(Peek { header, updates, head, tail: rest })
}

/// The sender's incarnation, as the head of a packet of our own tells it.
pub(super) fn peek_incarnation(packet: &[u8]) -> Option<u16> {
    codec::read_bare::<(Identity, u16)>(packet).ok().map(|((_, incarnation), _)| incarnation)
}

impl Peek<'_> {
    /// The packet without its rumours.
    pub fn bare(&self) -> &[u8] {
        self.head
    }

    /// The rumours; stops quietly at the first that can't be read.
    pub fn rumours(&self) -> Vec<Member> {
        let mut rest = self.tail;
        (0..self.updates).map_while(|_| foca::Codec::decode_member(&mut PacketCodec, &mut rest).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_GOSSIP_PACKET_BYTES;
    use crate::wire::message::Message;
    use foca::Codec as _;
    use foca::Identity as _;

    fn id(n: u128, bump: u64) -> Identity {
        Identity::new(NodeId::from_u128(n), "[fd00::1]:7946".parse().unwrap(), bump)
    }

    #[test]
    fn a_later_life_wins_and_a_tombstone_wins_always() {
        assert!(id(1, 2).win_addr_conflict(&id(1, 1)));
        assert!(!id(1, 1).win_addr_conflict(&id(1, 2)));
        assert!(!id(1, 1).win_addr_conflict(&id(1, 1)));
        assert!(Identity::tombstone(NodeId::from_u128(1)).win_addr_conflict(&id(1, MAX_BUMP)));
    }

    #[test]
    fn the_scope_of_an_address_does_not_make_another_identity() {
        let scoped = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 7, 3));
        let plain = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, 0));
        assert_eq!(Identity::new(NodeId::from_u128(1), scoped, 1), Identity::new(NodeId::from_u128(1), plain, 1));
    }

    #[test]
    fn writes_nothing_when_it_does_not_fit() {
        let member = Member::alive(id(7, 3));
        let mut whole = Vec::new();
        PacketCodec.encode_member(&member, &mut whole).unwrap();
        let mut short = Vec::new().limit(whole.len() - 1);
        assert!(PacketCodec.encode_member(&member, &mut short).is_err());
        assert!(short.get_ref().is_empty());
        assert_eq!(PacketCodec.decode_member(&mut whole.as_slice()).unwrap(), member);
    }

    #[test]
    fn the_largest_header_fits_its_scratch_and_the_largest_packet_a_datagram() {
        let header = Header {
            src: id(u128::MAX, MAX_BUMP),
            src_incarnation: u16::MAX,
            dst: id(u128::MAX, MAX_BUMP),
            message: foca::Message::PingReq { target: id(u128::MAX, MAX_BUMP), probe_number: u8::MAX },
        };
        let mut bytes = Vec::new();
        PacketCodec.encode_header(&header, &mut bytes).unwrap();
        assert_eq!(PacketCodec.decode_header(&mut bytes.as_slice()).unwrap(), header);

        let message = Message::Gossip(vec![0xff; MAX_GOSSIP_PACKET_BYTES]);
        assert!(codec::encode(&message).len() <= 1_160);
    }

    #[test]
    fn an_incarnation_is_read_off_a_packets_head() {
        let message = foca::Message::Ping(3);
        let header = Header { src: id(1, 2), src_incarnation: 700, dst: id(3, 4), message };
        let mut bytes = Vec::new();
        PacketCodec.encode_header(&header, &mut bytes).unwrap();
        assert_eq!(peek_incarnation(&bytes), Some(700));
        assert_eq!(peek_incarnation(&bytes[..20]), None);
    }

    #[test]
    fn refuses_a_bump_beyond_the_highest() {
        let mut bytes = Vec::new();
        PacketCodec.encode_member(&Member::alive(id(1, MAX_BUMP + 1)), &mut bytes).unwrap();
        assert!(matches!(PacketCodec.decode_member(&mut bytes.as_slice()), Err(PacketError::Bump(_))));
    }
}
