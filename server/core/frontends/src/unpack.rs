//! Decompression that counts against the body limit as it goes. Knows no socket.

use std::io::Write;

use bytes::Bytes;
use flate2::write::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use kingpole_values::Error;

use crate::body::BodyError;
use crate::budget::Charge;
use crate::gather::Gathered;

type Result<T> = std::result::Result<T, BodyError>;

/// A content coding that we decompress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// The zlib format, which is what HTTP and gRPC mean by "deflate".
    Deflate,
}

impl Coding {
    /// The coding of a header value; `None` for one that we do not know.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") {
            Some(Self::Gzip)
        } else if name.eq_ignore_ascii_case(b"deflate") {
            Some(Self::Deflate)
        } else {
            None
        }
    }
}

/// The refusal of a body that is, or becomes, longer than the limit.
pub(crate) fn too_long(limit: usize) -> Error {
    Error::exhausted(format!("the request is longer than the {limit} bytes that this server accepts"))
}

/// A body being decompressed piece by piece.
pub(crate) enum Unpack {
    Gzip(Box<GzDecoder<Limited>>),
    Deflate { zlib: Box<Decompress>, unpacked: Limited, ended: bool },
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
        let unpacked = Limited { gathered: Gathered::new(0, charge), limit, refused: None };
        match coding {
            Coding::Gzip => Self::Gzip(Box::new(GzDecoder::new(unpacked))),
            Coding::Deflate => {
                Self::Deflate { zlib: Box::new(Decompress::new(true)), unpacked, ended: false }
            }
        }
    }

    /// Decompress the next piece.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<()> {
        match self {
            Self::Gzip(gzip) => {
                gzip.write_all(piece).and_then(|()| gzip.flush()).map_err(|_| refusal(gzip.get_mut(), "gzip"))
            }
            Self::Deflate { zlib, unpacked, ended } => feed_zlib(zlib, unpacked, ended, piece),
        }
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
        }
    }

    /// Decompress something that is there whole.
    pub(crate) fn whole(coding: Coding, packed: &[u8], limit: usize, charge: Charge) -> Result<Bytes> {
        let mut unpack = Self::new(coding, limit, charge);
        unpack.feed(packed)?;
        unpack.finish()
    }
}

fn corrupt(name: &str) -> BodyError {
    BodyError::Other(Error::invalid(format!("the request's {name} data is corrupt or cut off")))
}

fn refusal(unpacked: &mut Limited, name: &str) -> BodyError {
    unpacked.refused.take().unwrap_or_else(|| corrupt(name))
}

fn feed_zlib(zlib: &mut Decompress, unpacked: &mut Limited, ended: &mut bool, piece: &[u8]) -> Result<()> {
    let mut rest = piece;
    let mut block = [0u8; 16 * 1024];
    loop {
        if *ended {
            return if rest.is_empty() { Ok(()) } else { Err(corrupt("deflate")) };
        }
        let (read, written) = (zlib.total_in(), zlib.total_out());
        let status =
            zlib.decompress(rest, &mut block, FlushDecompress::None).map_err(|_| corrupt("deflate"))?;
        let read = usize::try_from(zlib.total_in() - read).unwrap_or(rest.len());
        let written = usize::try_from(zlib.total_out() - written).unwrap_or(0);
        unpacked.write_all(&block[..written]).map_err(|_| refusal(unpacked, "deflate"))?;
        rest = &rest[read..];
        *ended = status == Status::StreamEnd;
        if !*ended && read == 0 && written == 0 {
            return Ok(());
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

    fn packed(coding: Coding, plain: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    #[test]
    fn pieces_of_any_size_give_the_same_bytes() {
        let plain: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = packed(coding, &plain);
            for size in [1, 7, packed.len()] {
                let mut unpack = Unpack::new(coding, plain.len(), charge());
                packed.chunks(size).for_each(|piece| unpack.feed(piece).unwrap());
                assert_eq!(unpack.finish().unwrap(), plain, "{coding:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = packed(coding, &vec![0; 10_000_000]);
            assert!(packed.len() < 60_000);
            let error = Error::from(Unpack::whole(coding, &packed, 9_999_999, charge()).unwrap_err());
            assert_eq!(error.code, Code::ResourceExhausted, "{coding:?}: {error}");
        }
    }

    #[test]
    fn what_is_unpacked_counts_against_the_memory_of_all() {
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = packed(coding, &vec![0; 10_000_000]);
            let budget = MemoryBudget::new(1 << 20);
            let charge = Account::new(std::sync::Arc::clone(&budget)).open();
            let refused = Unpack::whole(coding, &packed, 1 << 30, charge).unwrap_err();
            assert!(matches!(refused, BodyError::NoRoom(_)), "{coding:?}: {refused:?}");
            assert_eq!(budget.used_bytes(), 0);
        }
    }

    #[test]
    fn corrupt_and_cut_off_input_is_the_callers_fault() {
        for coding in [Coding::Gzip, Coding::Deflate] {
            let whole = packed(coding, b"some text that is long enough to be cut in the middle");
            for bad in [&whole[..whole.len() - 3], &b"not compressed at all"[..], b""] {
                let error = Error::from(Unpack::whole(coding, bad, 1 << 20, charge()).unwrap_err());
                assert_eq!(error.code, Code::InvalidArgument, "{coding:?}: {bad:?}");
            }
            let mut trailing = whole.clone();
            trailing.extend_from_slice(b"more");
            assert!(
                Unpack::whole(coding, &trailing, 1 << 20, charge()).is_err(),
                "{coding:?} with trailing bytes"
            );
        }
    }
}
