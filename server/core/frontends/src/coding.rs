//! The content codings of HTTP and gRPC: their names, and which of them a client wants back.

use http::{HeaderMap, HeaderValue, header};

/// A content coding that we read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// The zlib format, which is what HTTP and gRPC mean by "deflate".
    Deflate,
    Zstd,
}

/// What a client may be told to use instead of a coding that we do not know.
pub(crate) const SUPPORTED: &str = "gzip, deflate, zstd";

/// The same as gRPC lists them.
pub(crate) const GRPC_SUPPORTED: &str = "identity,gzip,deflate,zstd";

impl Coding {
    /// The coding of a header value; `None` for one that we do not know.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        let names: [(&[u8], Self); 4] = [
            (b"gzip", Self::Gzip),
            (b"x-gzip", Self::Gzip),
            (b"deflate", Self::Deflate),
            (b"zstd", Self::Zstd),
        ];
        names.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, coding)| coding)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }
}

/// How a client wants an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The coding that it likes best.
    pub(crate) coding: Option<Coding>,
    /// It takes nothing uncompressed.
    pub(crate) only_coded: bool,
}

impl Wanted {
    /// Read `Accept-Encoding`. `*` says nothing of a particular coding and is passed over, as Triton does;
    /// so is what cannot be read.
    ///
    /// Source: RFC 9110, 12.5.3.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let (mut best, mut identity) = (None, None);
        let values = headers.get_all(header::ACCEPT_ENCODING);
        for item in values.iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b',')) {
            let mut parts = item.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let Some(weight) = weight(parts) else { continue };
            if name.eq_ignore_ascii_case(b"identity") {
                identity = Some(weight);
            } else if let Some(coding) = Coding::from_name(name)
                && weight > best.map_or(0, |(_, weight)| weight)
            {
                best = Some((coding, weight));
            }
        }
        let best = best.filter(|&(_, weight)| weight >= identity.unwrap_or(0));
        Self { coding: best.map(|(coding, _)| coding), only_coded: identity == Some(0) }
    }

    /// Nothing that we can write is acceptable.
    pub(crate) fn is_impossible(self) -> bool {
        self.only_coded && self.coding.is_none()
    }
}

/// A weight in thousandths: `None` if it is malformed.
fn weight<'a>(parameters: impl Iterator<Item = &'a [u8]>) -> Option<u32> {
    let mut weight = 1000;
    for parameter in parameters {
        let Some(value) = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q=")) else {
            continue;
        };
        let value: f32 = std::str::from_utf8(value).ok()?.parse().ok()?;
        if !(0.0..=1.0).contains(&value) {
            return None;
        }
        // Between 0 and 1000.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let thousandths = (value * 1000.0).round() as u32;
        weight = thousandths;
    }
    Some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_likes_best_is_chosen() {
        let wanted = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(text));
            let wanted = Wanted::of(&headers);
            (wanted.coding, wanted.only_coded)
        };
        assert_eq!(wanted(""), (None, false));
        assert_eq!(wanted("gzip"), (Some(Coding::Gzip), false));
        assert_eq!(wanted("X-GZIP"), (Some(Coding::Gzip), false));
        assert_eq!(wanted("br, deflate, gzip"), (Some(Coding::Deflate), false));
        assert_eq!(wanted("gzip;q=0.5, zstd;q=0.501"), (Some(Coding::Zstd), false));
        assert_eq!(wanted("gzip ; q=0.5,deflate; Q=0.4"), (Some(Coding::Gzip), false));
        assert_eq!(wanted("gzip;q=0, br"), (None, false));
        assert_eq!(wanted("*"), (None, false));
        assert_eq!(wanted("*;q=0"), (None, false));
        assert_eq!(wanted("identity, gzip;q=0.9"), (None, false));
        assert_eq!(wanted("identity;q=0.5, gzip;q=0.5"), (Some(Coding::Gzip), false));
        assert_eq!(wanted("identity;q=0, zstd;q=0.001"), (Some(Coding::Zstd), true));
        assert_eq!(wanted("identity;q=0, br"), (None, true));
        for malformed in ["gzip;q=2", "gzip;q=-1", "gzip;q=x", "gzip;q=nan", ";q=1", ",,"] {
            assert_eq!(wanted(malformed), (None, false), "{malformed}");
        }
    }

    #[test]
    fn several_headers_are_read_as_one() {
        let mut headers = HeaderMap::new();
        headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0.1"));
        headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static("deflate"));
        assert_eq!(Wanted::of(&headers), Wanted { coding: Some(Coding::Deflate), only_coded: false });
    }
}
