//! Decompression that counts against the body limit as it goes. Knows no socket.

use std::io::Write;

use bytes::{Buf, Bytes};
use flate2::write::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use kingpole_values::Error;
use zstd::stream::raw::{DParameter, Decoder, Operation};

use crate::body::BodyError;
use crate::budget::Charge;
use crate::coding::Coding;
use crate::gather::Gathered;

type Result<T> = std::result::Result<T, BodyError>;

/// What is unpacked before others on the thread have their turn: about a millisecond's work. A few bytes can
/// become as much as the limit allows.
const TURN_BYTES: usize = 256 << 10;

/// The largest window of Zstandard that a decoder should be asked for.
///
/// Source: RFC 9659.
const WINDOW_LOG: u32 = 23;

/// What a decoder of Zstandard needs beside its window.
const ZSTD_BYTES: usize = 128 << 10;

/// The longest header of a frame.
const ZSTD_HEADER_BYTES: usize = 18;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The refusal of a body that is, or becomes, longer than the limit.
pub(crate) fn too_long(limit: usize) -> Error {
    Error::exhausted(format!("the request is longer than the {limit} bytes that this server accepts"))
}

/// A body being decompressed piece by piece.
pub(crate) enum Unpack {
    Gzip(Box<GzDecoder<Limited>>),
    Deflate { zlib: Box<Decompress>, unpacked: Limited, ended: bool },
    Zstd(Box<Zstd>),
}

/// A frame of Zstandard, of which nothing is decoded before its header says how much memory that takes.
pub(crate) struct Zstd {
    header: Vec<u8>,
    decoder: Option<Decoder<'static>>,
    /// What the decoder holds.
    working: Charge,
    unpacked: Limited,
    ended: bool,
}

/// A buffer that refuses to pass its limit, or to hold more than there is room for.
pub(crate) struct Limited {
    gathered: Gathered,
    limit: usize,
    refused: Option<BodyError>,
}

impl Write for Limited {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        let added = if piece.len() > self.limit - self.gathered.len() {
            Err(BodyError::TooLong(too_long(self.limit)))
        } else {
            self.gathered.add(piece).map_err(BodyError::NoRoom)
        };
        if let Err(refused) = added {
            self.refused = Some(refused);
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Unpack {
    pub(crate) fn new(coding: Coding, limit: usize, charge: Charge) -> Self {
        let working = charge.another();
        let unpacked = Limited { gathered: Gathered::new(0, charge), limit, refused: None };
        match coding {
            Coding::Gzip => Self::Gzip(Box::new(GzDecoder::new(unpacked))),
            Coding::Deflate => {
                Self::Deflate { zlib: Box::new(Decompress::new(true)), unpacked, ended: false }
            }
            Coding::Zstd => Self::Zstd(Box::new(Zstd {
                header: Vec::new(),
                decoder: None,
                working,
                unpacked,
                ended: false,
            })),
        }
    }

    /// Decompress as much of the next piece as makes one turn, and take that from it. True once all of it is done.
    pub(crate) fn turn(&mut self, piece: &mut Bytes) -> Result<bool> {
        match self {
            Self::Gzip(gzip) => {
                let before = gzip.get_ref().gathered.len();
                while !piece.is_empty() {
                    match gzip.write(piece) {
                        Ok(read) if read > 0 => piece.advance(read),
                        // Nothing is taken where nothing may follow.
                        _ => return Err(refusal(gzip.get_mut(), "gzip")),
                    }
                    if gzip.get_ref().gathered.len() - before >= TURN_BYTES {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Deflate { zlib, unpacked, ended } => {
                turn_by_blocks("deflate", unpacked, ended, piece, |packed, block| {
                    let (read, written) = (zlib.total_in(), zlib.total_out());
                    let status = zlib.decompress(packed, block, FlushDecompress::None).ok()?;
                    let read = usize::try_from(zlib.total_in() - read).ok()?;
                    let written = usize::try_from(zlib.total_out() - written).ok()?;
                    Some(Step { read, written, ended: status == Status::StreamEnd })
                })
            }
            Self::Zstd(zstd) => zstd.turn(piece),
        }
    }

    /// Decompress a whole piece, giving way to others between turns.
    pub(crate) async fn feed(&mut self, mut piece: Bytes) -> Result<()> {
        while !self.turn(&mut piece)? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The whole, once every piece was fed. Input that was cut off is refused.
    pub(crate) fn finish(self) -> Result<Bytes> {
        match self {
            Self::Gzip(mut gzip) => {
                gzip.try_finish().map_err(|_| refusal(gzip.get_mut(), "gzip"))?;
                let unpacked = gzip.finish().map_err(|_| corrupt("gzip"))?;
                Ok(unpacked.gathered.finish())
            }
            Self::Deflate { unpacked, ended: true, .. } => Ok(unpacked.gathered.finish()),
            Self::Deflate { .. } => Err(corrupt("deflate")),
            Self::Zstd(zstd) if zstd.ended => Ok(zstd.unpacked.gathered.finish()),
            Self::Zstd(_) => Err(corrupt("zstd")),
        }
    }

    /// Decompress something that is there whole.
    #[cfg(test)]
    pub(crate) async fn whole(coding: Coding, packed: Bytes, limit: usize, charge: Charge) -> Result<Bytes> {
        let mut unpack = Self::new(coding, limit, charge);
        unpack.feed(packed).await?;
        unpack.finish()
    }
}

impl Zstd {
    fn turn(&mut self, piece: &mut Bytes) -> Result<bool> {
        if self.decoder.is_none() {
            let missing = ZSTD_HEADER_BYTES - self.header.len();
            self.header.extend_from_slice(&piece.split_to(piece.len().min(missing)));
            if !self.open()? {
                return Ok(true);
            }
            let mut header = std::mem::take(&mut self.header).into();
            // Of so few bytes comes little more than a turn.
            while !self.decode(&mut header)? {}
        }
        self.decode(piece)
    }

    /// Make the decoder once the header is there.
    fn open(&mut self) -> Result<bool> {
        if self.header.iter().zip(&ZSTD_MAGIC).any(|(given, magic)| given != magic) {
            return Err(corrupt("zstd"));
        }
        let Some(window_bytes) = window_bytes(&self.header) else { return Ok(false) };
        let limit = 1 << WINDOW_LOG;
        if window_bytes > limit {
            return Err(BodyError::Other(Error::invalid(format!(
                "the request's zstd window is {window_bytes} bytes, and at most {limit} are supported"
            ))));
        }
        let window_bytes = usize::try_from(window_bytes).unwrap_or(usize::MAX / 2);
        self.working.cover(window_bytes + ZSTD_BYTES).map_err(BodyError::NoRoom)?;
        let decoder = Decoder::new().and_then(|mut decoder| {
            decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
            Ok(decoder)
        });
        let no_memory =
            |_| BodyError::NoRoom(Error::exhausted("there is no memory to read zstd; try again later"));
        self.decoder = Some(decoder.map_err(no_memory)?);
        Ok(true)
    }

    fn decode(&mut self, piece: &mut Bytes) -> Result<bool> {
        let Self { decoder, unpacked, ended, .. } = self;
        turn_by_blocks("zstd", unpacked, ended, piece, |packed, block| {
            let status = decoder.as_mut()?.run_on_buffers(packed, block).ok()?;
            Some(Step {
                read: status.bytes_read,
                written: status.bytes_written,
                ended: status.remaining == 0,
            })
        })
    }
}

/// The window that a frame of Zstandard needs; `None` while too little of its header is there.
///
/// Source: RFC 8878, 3.1.1.1.
fn window_bytes(header: &[u8]) -> Option<u64> {
    let descriptor = *header.get(4)?;
    if descriptor & 0x20 == 0 {
        let window = *header.get(5)?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // A single segment: the window is all of the content, whose length stands behind the dictionary's number.
    let start = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = 1usize << (descriptor >> 6);
    let field = header.get(start..start + size)?;
    let length = field.iter().rev().fold(0, |length, &byte| length << 8 | u64::from(byte));
    Some(if size == 2 { length + 256 } else { length })
}

fn corrupt(name: &str) -> BodyError {
    BodyError::Other(Error::invalid(format!("the request's {name} data is corrupt or cut off")))
}

fn refusal(unpacked: &mut Limited, name: &str) -> BodyError {
    unpacked.refused.take().unwrap_or_else(|| corrupt(name))
}

/// What one call of a decoder did.
struct Step {
    read: usize,
    written: usize,
    ended: bool,
}

/// One turn of a decoder that fills blocks; it gives `None` for corrupt input.
fn turn_by_blocks(
    name: &str,
    unpacked: &mut Limited,
    ended: &mut bool,
    piece: &mut Bytes,
    mut decode: impl FnMut(&[u8], &mut [u8]) -> Option<Step>,
) -> Result<bool> {
    let mut block = [0u8; 16 * 1024];
    let mut turned = 0;
    loop {
        if *ended {
            return if piece.is_empty() { Ok(true) } else { Err(corrupt(name)) };
        }
        let step = decode(piece, &mut block).ok_or_else(|| corrupt(name))?;
        unpacked.write_all(&block[..step.written]).map_err(|_| refusal(unpacked, name))?;
        piece.advance(step.read);
        *ended = step.ended;
        if !step.ended && piece.is_empty() && step.written < block.len() {
            return Ok(true);
        }
        if !step.ended && step.read == 0 && step.written == 0 {
            return Err(corrupt(name));
        }
        turned += step.written;
        if turned >= TURN_BYTES {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use kingpole_values::Code;

    use crate::budget::{Account, MemoryBudget};

    fn charge() -> Charge {
        Account::new(MemoryBudget::new(1 << 30)).open()
    }

    const ALL: [Coding; 3] = [Coding::Gzip, Coding::Deflate, Coding::Zstd];

    fn packed(coding: Coding, plain: &[u8]) -> Bytes {
        match coding {
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap().into()
            }
            Coding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap().into()
            }
            Coding::Zstd => zstd::bulk::compress(plain, 1).unwrap().into(),
        }
    }

    async fn unpacked(coding: Coding, packed: impl Into<Bytes>, limit: usize) -> Result<Bytes> {
        Unpack::whole(coding, packed.into(), limit, charge()).await
    }

    #[tokio::test]
    async fn pieces_of_any_size_give_the_same_bytes() {
        let plain: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        for coding in ALL {
            let packed = packed(coding, &plain);
            for size in [1, 7, packed.len()] {
                let mut unpack = Unpack::new(coding, plain.len(), charge());
                for piece in packed.chunks(size) {
                    unpack.feed(Bytes::copy_from_slice(piece)).await.unwrap();
                }
                assert_eq!(unpack.finish().unwrap(), plain, "{coding:?} in pieces of {size}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_read_back_as_nothing() {
        for coding in ALL {
            assert_eq!(unpacked(coding, packed(coding, b""), 0).await.unwrap(), b""[..], "{coding:?}");
        }
    }

    #[tokio::test]
    async fn a_bomb_is_refused_at_the_limit() {
        for coding in ALL {
            let packed = packed(coding, &vec![0; 2_000_000]);
            assert!(packed.len() < 200_000);
            let error = Error::from(unpacked(coding, packed, 1_999_999).await.unwrap_err());
            assert_eq!(error.code, Code::ResourceExhausted, "{coding:?}: {error}");
        }
    }

    #[test]
    fn a_turn_makes_no_more_than_a_little() {
        for coding in ALL {
            let mut packed = packed(coding, &vec![0; 2_000_000]);
            let budget = MemoryBudget::new(1 << 30);
            let mut unpack =
                Unpack::new(coding, 1 << 30, Account::new(std::sync::Arc::clone(&budget)).open());
            let mut turns = 1;
            while !unpack.turn(&mut packed).unwrap() {
                turns += 1;
            }
            assert!(turns > 2_000_000 / (2 * TURN_BYTES), "{coding:?} took {turns}");
        }
    }

    #[tokio::test]
    async fn what_is_unpacked_counts_against_the_memory_of_all() {
        for coding in ALL {
            let packed = packed(coding, &vec![0; 2_000_000]);
            let budget = MemoryBudget::new(1 << 20);
            let charge = Account::new(std::sync::Arc::clone(&budget)).open();
            let refused = Unpack::whole(coding, packed, 1 << 30, charge).await.unwrap_err();
            assert!(matches!(refused, BodyError::NoRoom(_)), "{coding:?}: {refused:?}");
            assert_eq!(budget.used_bytes(), 0);
        }
    }

    #[tokio::test]
    async fn corrupt_and_cut_off_input_is_the_callers_fault() {
        for coding in ALL {
            let whole = packed(coding, b"some text that is long enough to be cut in the middle");
            for bad in
                [whole.slice(..whole.len() - 3), Bytes::from_static(b"not compressed at all"), Bytes::new()]
            {
                let error = Error::from(unpacked(coding, bad.clone(), 1 << 20).await.unwrap_err());
                assert_eq!(error.code, Code::InvalidArgument, "{coding:?}: {bad:?}");
            }
            for trailing in [&b"more"[..], &whole] {
                let trailing = [&whole, trailing].concat();
                let refused = unpacked(coding, trailing, 1 << 20).await;
                assert!(refused.is_err(), "{coding:?} with trailing bytes");
            }
        }
    }

    #[tokio::test]
    async fn a_window_of_zstd_is_limited_and_charged_before_it_is_made() {
        // A frame of no single segment, with the window in its sixth byte.
        let frame = |window: u8| [&ZSTD_MAGIC[..], &[0, window, 1, 0, 0]].concat();
        assert_eq!(unpacked(Coding::Zstd, frame(13 << 3), 1).await.unwrap(), b""[..]);
        for window in [13 << 3 | 1, 255] {
            let error = Error::from(unpacked(Coding::Zstd, frame(window), 1).await.unwrap_err());
            assert_eq!(error.code, Code::InvalidArgument);
            assert!(error.message.contains("8388608"), "{error}");
        }
        let small = Account::new(MemoryBudget::new(8 << 20)).open();
        let refused = Unpack::whole(Coding::Zstd, frame(13 << 3).into(), 1, small).await;
        assert!(matches!(refused, Err(BodyError::NoRoom(_))));
    }

    #[test]
    fn the_window_is_read_from_every_form_of_header() {
        let header = |rest: &[u8]| window_bytes(&[&ZSTD_MAGIC[..], rest].concat());
        assert_eq!(header(&[]), None);
        assert_eq!(header(&[0]), None);
        assert_eq!(header(&[0, 0]), Some(1 << 10));
        assert_eq!(header(&[0, 1 << 3 | 3]), Some(2048 + 3 * 256));
        assert_eq!(header(&[0x20, 77]), Some(77));
        assert_eq!(header(&[0x63, 1, 2, 3, 4, 1]), None);
        assert_eq!(header(&[0x63, 1, 2, 3, 4, 1, 2]), Some(0x201 + 256));
        assert_eq!(header(&[0xa1, 9, 1, 0, 0, 1]), Some(0x0100_0001));
        assert_eq!(header(&[0xe0, 255, 255, 255, 255, 255, 255, 255, 255]), Some(u64::MAX));
    }
}
