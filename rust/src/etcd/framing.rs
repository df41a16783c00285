//! Messages in the body of a call: a byte that says whether it is compressed, four bytes of length, the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::status::{Code, Result, Status};

/// etcd's limit of a request, in bytes.
pub(super) const REQUEST_BYTES_MAX: usize = 3 << 19;

/// What is read of a request at most: etcd leaves this much room for what frames it.
const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + (512 << 10);

pub(super) const PREFIX_LEN: usize = 5;

/// Cuts the chunks of a body into messages. A message that came in one chunk is not copied.
#[derive(Debug, Default)]
pub(super) struct Messages {
    chunk: Bytes,
    /// The beginning of a message that did not come in one chunk.
    partial: BytesMut,
}

impl Messages {
    pub(super) fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() && self.partial.is_empty() {
            self.chunk = chunk;
            return;
        }
        if self.partial.is_empty() {
            self.partial.reserve(self.chunk.len() + chunk.len());
        }
        self.partial.put(std::mem::take(&mut self.chunk));
        self.partial.put(chunk);
    }

    /// The next whole message, None when more must be pushed first.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>> {
        let ahead = if self.partial.is_empty() {
            &self.chunk[..]
        } else {
            &self.partial[..]
        };
        let Some((flag, length)) = prefix(ahead) else {
            return Ok(None);
        };
        if flag != 0 {
            let what = "grpc: Decompressor is not installed for the message's compression";
            return Err(Status::new(Code::Unimplemented, what));
        }
        if length > MESSAGE_BYTES_MAX {
            let what = format!(
                "grpc: received message larger than max ({length} vs. {MESSAGE_BYTES_MAX})"
            );
            return Err(Status::new(Code::ResourceExhausted, what));
        }
        if ahead.len() - PREFIX_LEN < length {
            return Ok(None);
        }
        if self.partial.is_empty() {
            self.chunk.advance(PREFIX_LEN);
            return Ok(Some(self.chunk.split_to(length)));
        }
        self.partial.advance(PREFIX_LEN);
        Ok(Some(self.partial.split_to(length).freeze()))
    }

    /// Whether a body that ends here ends between two messages.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.chunk.is_empty() && self.partial.is_empty()
    }
}

fn prefix(bytes: &[u8]) -> Option<(u8, usize)> {
    let (prefix, _) = bytes.split_first_chunk::<PREFIX_LEN>()?;
    let [flag, length @ ..] = *prefix;
    Some((flag, u32::from_be_bytes(length) as usize))
}

pub(super) fn decode<M: Message + Default>(message: Bytes) -> Result<M> {
    M::decode(message).map_err(|error| {
        let what = format!("grpc: error unmarshalling request: {error}");
        Status::new(Code::Internal, what)
    })
}

/// Write what stands before a message of `length` bytes.
pub(super) fn put_prefix(out: &mut BytesMut, length: usize) -> Result<()> {
    let length = u32::try_from(length)
        .map_err(|_| Status::new(Code::ResourceExhausted, "grpc: message too large"))?;
    out.put_u8(0);
    out.put_u32(length);
    Ok(())
}

/// `message` as it stands in a body.
pub(super) fn framed(message: &impl Message) -> Result<Bytes> {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_LEN + length);
    put_prefix(&mut out, length)?;
    // The room was reserved, and nothing else can go wrong.
    let _ = message.encode(&mut out);
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_gives_the_same_messages_however_it_is_cut() {
        let messages = [&b"first"[..], b"", b"third of them"];
        let mut body = BytesMut::new();
        for message in messages {
            put_prefix(&mut body, message.len()).unwrap();
            body.put(message);
        }
        let body = body.freeze();
        for size in 1..=body.len() {
            let mut cut = Messages::default();
            let mut found = Vec::new();
            for start in (0..body.len()).step_by(size) {
                cut.push(body.slice(start..body.len().min(start + size)));
                while let Some(message) = cut.next().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, messages, "chunks of {size}");
            assert!(cut.is_empty());
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_is_read() {
        let mut cut = Messages::default();
        cut.push(Bytes::from_static(b"\0\x00\x20\x00\x01"));
        assert_eq!(
            cut.next().unwrap_err().message,
            "grpc: received message larger than max (2097153 vs. 2097152)"
        );
    }

    #[test]
    fn a_compressed_message_is_refused() {
        let mut cut = Messages::default();
        cut.push(Bytes::from_static(b"\x01\0\0\0\0"));
        assert_eq!(cut.next().unwrap_err().code, Code::Unimplemented);
    }
}
