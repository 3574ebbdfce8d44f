//! Where header and payloads lie in a frame.
//!
//! `magic (8) | header length u32 | payload count u32 | header | padding | payload | padding | ...`
//! Header and payloads are each followed by padding up to a multiple of 64, so every payload, and
//! every frame after a frame, starts at a multiple of 64.

use flatbuffers::VerifierOptions;
use kingpole_values::{Error, Result};

use crate::MAX_TENSORS;
use crate::generated::frame as fb;

/// The first bytes of every frame; the last of them is the version.
pub const MAGIC: [u8; 8] = *b"KINGPOL\x01";
/// Bytes before the header.
pub const PRELUDE_BYTES: usize = 16;
/// Payloads, and the frame's end, are at multiples of this.
pub const ALIGNMENT: usize = 64;
/// The longest header.
pub const MAX_HEADER_BYTES: usize = 256 * 1024;

/// A well-formed header nests 4 deep; each of its tensors and parameters is a table.
const VERIFIER: VerifierOptions = VerifierOptions {
    max_depth: 16,
    max_tables: 1000,
    max_apparent_size: 4 * MAX_HEADER_BYTES,
    ignore_missing_null_terminator: false,
};

/// The next multiple of 64.
pub(super) const fn padded(nbytes: usize) -> usize {
    nbytes.next_multiple_of(ALIGNMENT)
}

/// What the first 16 bytes say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prelude {
    pub(super) header_bytes: usize,
    pub(super) payloads: usize,
}

impl Prelude {
    /// Read the prelude; `None` when `bytes` is a good beginning of one.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>> {
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            let only_version_differs = seen == MAGIC.len() && bytes[..7] == MAGIC[..7];
            return Err(if only_version_differs {
                Error::invalid(format!("frame version {} is not known; this side speaks 1", bytes[7]))
            } else {
                Error::invalid("not a Kingpole frame: it does not start with KINGPOL and a version")
            });
        }
        let Some(prelude) = bytes.first_chunk::<PRELUDE_BYTES>() else { return Ok(None) };
        let word =
            |at: usize| u32::from_le_bytes([prelude[at], prelude[at + 1], prelude[at + 2], prelude[at + 3]]);
        let (header_bytes, payloads) = (word(8) as usize, word(12) as usize);
        if header_bytes > MAX_HEADER_BYTES {
            return Err(Error::exhausted(format!(
                "the frame's header says {header_bytes} bytes; at most {MAX_HEADER_BYTES} are taken"
            )));
        }
        if payloads > MAX_TENSORS {
            return Err(Error::exhausted(format!(
                "the frame says {payloads} payloads; at most {MAX_TENSORS} are taken"
            )));
        }
        Ok(Some(Self { header_bytes, payloads }))
    }

    /// Where the first payload starts.
    pub(super) const fn payloads_at(self) -> usize {
        padded(PRELUDE_BYTES + self.header_bytes)
    }
}

/// Verify and view the header.
pub(super) fn read_header(header: &[u8]) -> Result<fb::Header<'_>> {
    fb::root_as_header_with_opts(&VERIFIER, header).map_err(|error| {
        let mut text = error.to_string();
        if let Some(end) = text.find(['\n', '\t']) {
            text.truncate(end);
        }
        Error::invalid(format!("malformed frame header: {}", text.trim_end_matches('.')))
    })
}

/// The range of each payload and the frame's whole size, from what the header announces.
pub(super) fn payload_ranges(
    prelude: Prelude,
    header: &fb::Header<'_>,
) -> Result<(Vec<(usize, usize)>, usize)> {
    let announced = header.payloads().map_or(0, |payloads| payloads.len());
    if announced != prelude.payloads {
        return Err(Error::invalid(format!(
            "the frame says {} payloads, its header {announced}",
            prelude.payloads
        )));
    }
    let mut at = prelude.payloads_at();
    let mut ranges = Vec::with_capacity(announced);
    for nbytes in header.payloads().into_iter().flatten() {
        let end = usize::try_from(nbytes)
            .ok()
            .and_then(|nbytes| at.checked_add(nbytes))
            .filter(|&end| end < usize::MAX - ALIGNMENT)
            .ok_or_else(|| Error::exhausted("the frame's payloads are too large together"))?;
        ranges.push((at, end));
        at = padded(end);
    }
    Ok((ranges, at))
}
