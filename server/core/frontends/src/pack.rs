//! Compression of answers, a turn at a time. Knows no socket.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderValue, StatusCode, header};

use crate::coding::{Coding, Wanted};
use crate::connection::Shared;
use crate::message::HttpResponse;
use crate::status::Dialect;

/// Shorter answers are not worth it.
pub(crate) const LEAST_BYTES: usize = 1024;

/// Compressed at a time, before others on the thread have theirs: about a millisecond's work.
const TURN_BYTES: usize = 128 << 10;

/// Zstandard's fastest level with its ordinary matching.
const ZSTD_LEVEL: i32 = 1;

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Coding::Deflate => Self::Deflate(ZlibEncoder::new(Vec::new(), Compression::fast())),
            Coding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
        })
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(piece),
            Self::Deflate(encoder) => encoder.write_all(piece),
            Self::Zstd(encoder) => encoder.write_all(piece),
        }
    }

    fn written(&self) -> usize {
        match self {
            Self::Gzip(encoder) => encoder.get_ref().len(),
            Self::Deflate(encoder) => encoder.get_ref().len(),
            Self::Zstd(encoder) => encoder.get_ref().len(),
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Deflate(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// Compress pieces into one. `None` if that saves too little: the first turn says whether it will, since numbers
/// that look random, as the answers of many models do, stay as long as they are.
pub(crate) async fn pack(coding: Coding, pieces: &[Bytes], always: bool) -> Option<Bytes> {
    // Writing to memory fails only where memory does, and then the answer goes as it is.
    let mut encoder = Encoder::new(coding).ok()?;
    let (mut read, mut tried) = (0, always);
    for part in pieces.iter().flat_map(|piece| piece.chunks(TURN_BYTES)) {
        encoder.write(part).ok()?;
        read += part.len();
        if !tried && read >= TURN_BYTES {
            tried = true;
            if encoder.written() > read - read / 16 {
                return None;
            }
        }
        if part.len() == TURN_BYTES {
            tokio::task::yield_now().await;
        }
    }
    let packed = encoder.finish().ok()?;
    (always || packed.len() < read).then(|| packed.into())
}

/// Compress the body of an inference's answer as its client wants it.
pub(crate) async fn response(
    mut answered: HttpResponse,
    wanted: Wanted,
    dialect: Dialect,
    shared: &Shared,
) -> HttpResponse {
    if answered.status != StatusCode::OK || answered.streamed.is_some() {
        return answered;
    }
    let long = answered.body_bytes() >= LEAST_BYTES;
    if long {
        answered.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    let Some(coding) = wanted.coding.filter(|_| long || wanted.only_coded) else { return answered };
    let Some(packed) = pack(coding, &answered.pieces, wanted.only_coded).await else { return answered };
    let mut pieces = vec![packed];
    if let Err(error) = shared.memory.hold_answer(&mut pieces) {
        return dialect.error(&error);
    }
    answered.pieces = pieces;
    answered.with(header::CONTENT_ENCODING, coding.header())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Account, MemoryBudget};
    use crate::unpack::Unpack;

    const ALL: [Coding; 3] = [Coding::Gzip, Coding::Deflate, Coding::Zstd];

    #[tokio::test]
    async fn what_is_packed_is_unpacked_again() {
        let plain: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        let plain = Bytes::from(plain);
        let pieces = [plain.slice(..10), plain.slice(10..200_000), plain.slice(200_000..)];
        for coding in ALL {
            let packed = pack(coding, &pieces, false).await.unwrap();
            assert!(packed.len() < plain.len() / 10, "{coding:?}: {}", packed.len());
            let charge = Account::new(MemoryBudget::new(1 << 30)).open();
            assert_eq!(Unpack::whole(coding, packed, 1 << 20, charge).await.unwrap(), plain);
        }
    }

    #[tokio::test]
    async fn what_does_not_get_shorter_is_left_alone_unless_it_must_be_packed() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(TURN_BYTES + 1)
        .collect();
        let noise = [Bytes::from(noise)];
        for coding in ALL {
            assert_eq!(pack(coding, &noise, false).await, None);
            assert!(pack(coding, &noise, true).await.is_some());
            assert_eq!(pack(coding, &[Bytes::from_static(b"ab")], false).await, None);
        }
    }
}
