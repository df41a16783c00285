//! Netfilter netlink messages: building them, taking them apart, and one socket to carry them.
//!
//! A message is a header (length, type, flags, sequence, port), four bytes of netfilter's own, and attributes: length, type, value,
//! padded to four bytes, which may nest.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

pub const REQUEST: u16 = 0x1;
pub const ACK: u16 = 0x4;
pub const DUMP: u16 = 0x300;
pub const CREATE: u16 = 0x400;
pub const APPEND: u16 = 0x800;

pub const FAMILY_UNSPECIFIED: u8 = 0;
pub const FAMILY_IPV4: u8 = 2;

const HEADER_BYTES: usize = 20;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM_NFTABLES: u16 = 10;

/// A buffer of one or more messages.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

/// Where an open message or nested attribute begins.
#[derive(Debug, Clone, Copy)]
pub struct Mark(usize);

impl Writer {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Open a message; `resource` is the subsystem for batch markers, else 0.
    pub fn begin(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        family: u8,
        resource: u16,
    ) -> Mark {
        let mark = Mark(self.bytes.len());
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        mark
    }

    /// Close a message.
    pub fn end(&mut self, Mark(at): Mark) {
        let length = u32::try_from(self.bytes.len() - at)
            .unwrap_or(u32::MAX)
            .to_ne_bytes();
        self.overwrite(at, &length);
    }

    pub fn batch_begin(&mut self, sequence: u32) {
        let mark = self.begin(
            BATCH_BEGIN,
            REQUEST,
            sequence,
            FAMILY_UNSPECIFIED,
            SUBSYSTEM_NFTABLES,
        );
        self.end(mark);
    }

    pub fn batch_end(&mut self, sequence: u32) {
        let mark = self.begin(
            BATCH_END,
            REQUEST,
            sequence,
            FAMILY_UNSPECIFIED,
            SUBSYSTEM_NFTABLES,
        );
        self.end(mark);
    }

    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
    }

    /// An attribute that is a name: its text and a zero byte.
    pub fn name(&mut self, kind: u16, name: &str) {
        self.attribute(kind, &[name.as_bytes(), &[0]].concat());
    }

    pub fn nest(&mut self, kind: u16) -> Mark {
        let mark = Mark(self.bytes.len());
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        mark
    }

    pub fn end_nest(&mut self, Mark(at): Mark) {
        let length = u16::try_from(self.bytes.len() - at)
            .unwrap_or(u16::MAX)
            .to_ne_bytes();
        self.overwrite(at, &length);
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn overwrite(&mut self, at: usize, value: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(at).zip(value) {
            *place = *byte;
        }
    }
}

/// A received message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub kind: u16,
    pub sequence: u32,
    /// What follows the netlink header.
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Return the attributes of a netfilter message.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes {
            rest: self.payload.get(HEADER_BYTES - 16..).unwrap_or_default(),
        }
    }

    fn error(&self) -> i32 {
        self.payload
            .first_chunk::<4>()
            .map_or(0, |bytes| i32::from_ne_bytes(*bytes))
    }
}

/// Messages in a datagram.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*datagram.first_chunk::<4>()?) as usize;
        let message = datagram.get(..length)?;
        let found = Message {
            kind: u16_at(message, 4)?,
            sequence: u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?),
            payload: message.get(16..)?,
        };
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(found)
    })
}

/// Attributes in order, as (type, value).
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub fn of(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes { rest: bytes }
    }

    /// Return the value of the first attribute of this type.
    pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// Return the value at the end of a path of nested attributes.
    pub fn path(self, path: &[u16]) -> Option<&'a [u8]> {
        let (last, nests) = path.split_last()?;
        let mut here = self;
        for kind in nests {
            here = Attributes::of(here.find(*kind)?);
        }
        here.find(*last)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.rest, 0)?);
        let kind = u16_at(self.rest, 2)? & TYPE_MASK;
        let value = self.rest.get(4..length)?;
        self.rest = self
            .rest
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some((kind, value))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A blocking socket to netfilter.
#[derive(Debug)]
pub struct Netfilter {
    socket: Socket,
    sequence: u32,
}

impl Netfilter {
    pub fn open() -> io::Result<Netfilter> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        Ok(Netfilter {
            socket,
            sequence: 0,
        })
    }

    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Send messages numbered `first..=last` and await the answer to `last`, which asked for one. The first error is returned; one for
    /// `first`, which opens a batch, is the only answer.
    pub fn transact(&mut self, messages_out: &Writer, first: u32, last: u32) -> io::Result<()> {
        self.socket.send(messages_out.bytes(), 0)?;
        let mut first_error = 0;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages(&datagram) {
                if message.kind != MESSAGE_ERROR {
                    continue;
                }
                if first_error == 0 {
                    first_error = message.error();
                }
                let is_over =
                    message.sequence == last || (message.sequence == first && first_error != 0);
                if is_over {
                    return if first_error == 0 {
                        Ok(())
                    } else {
                        Err(io::Error::from_raw_os_error(-first_error))
                    };
                }
            }
        }
    }

    /// Send one dump request and hand every message of the answer to `take`.
    pub fn dump(&mut self, request: &Writer, mut take: impl FnMut(Message<'_>)) -> io::Result<()> {
        self.socket.send(request.bytes(), 0)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages(&datagram) {
                match message.kind {
                    MESSAGE_DONE => return Ok(()),
                    MESSAGE_ERROR if message.error() != 0 => {
                        return Err(io::Error::from_raw_os_error(-message.error()));
                    }
                    MESSAGE_ERROR => {}
                    _ => take(message),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        let message = writer.begin(0x0a0c, REQUEST, 7, FAMILY_IPV4, 0);
        writer.name(1, "table");
        let nest = writer.nest(3);
        writer.attribute(1, &[1, 2, 3]);
        writer.attribute(2, &[9]);
        writer.end_nest(nest);
        writer.end(message);
        assert_eq!(writer.len() % 4, 0);
        let found: Vec<Message<'_>> = messages(writer.bytes()).collect();
        assert_eq!(
            (found.len(), found[0].kind, found[0].sequence),
            (1, 0x0a0c, 7)
        );
        assert_eq!(found[0].attributes().find(1), Some(&b"table\0"[..]));
        assert_eq!(found[0].attributes().path(&[3, 1]), Some(&[1, 2, 3][..]));
        assert_eq!(found[0].attributes().path(&[3, 2]), Some(&[9][..]));
        assert_eq!(found[0].attributes().path(&[4, 2]), None);
    }

    #[test]
    fn a_cut_datagram_ends_the_iteration() {
        let mut writer = Writer::default();
        writer.batch_begin(1);
        for length in 0..writer.len() {
            assert_eq!(messages(&writer.bytes()[..length]).count(), 0);
        }
    }
}
