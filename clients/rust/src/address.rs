//! A server's address, read from a URL. Opens no socket.

use std::fmt;

use crate::{Error, Result};

/// How to speak with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Grpc,
    Frame,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp {
        scheme: Scheme,
        secure: bool,
        host: String,
        port: u16,
        /// What stands before every path over HTTP; without a slash at its end.
        prefix: String,
    },
    Unix {
        path: String,
    },
}

const SCHEMES: [(&str, Scheme, bool, u16); 5] = [
    ("http", Scheme::Http, false, 80),
    ("https", Scheme::Http, true, 443),
    ("grpc", Scheme::Grpc, false, 8000),
    ("grpcs", Scheme::Grpc, true, 443),
    ("frame", Scheme::Frame, false, 8000),
];

impl Address {
    /// Read `http://`, `https://`, `grpc://`, `grpcs://`, `frame://` with host and port, or `unix:/path`.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(Error::invalid(format!("the address '{url}' has no path")));
            }
            return Ok(Self::Unix { path: path.to_owned() });
        }
        let unknown = || {
            let known = SCHEMES.map(|(name, ..)| format!("{name}://host:port")).join(", ");
            Error::invalid(format!("the address '{url}' is none of {known}, unix:/path"))
        };
        let (name, rest) = url.split_once("://").ok_or_else(unknown)?;
        let (_, scheme, secure, default_port) =
            SCHEMES.into_iter().find(|(known, ..)| *known == name).ok_or_else(unknown)?;
        if rest.contains(['@', '?', '#']) {
            return Err(Error::invalid(format!(
                "the address '{url}' may have no user, query or fragment; say the token to the builder instead"
            )));
        }
        let (authority, path) =
            rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let prefix = path.trim_end_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        if !prefix.is_empty() && scheme != Scheme::Http {
            return Err(Error::invalid(format!("the address '{url}' may have no path")));
        }
        let (host, port) = split_authority(authority).ok_or_else(unknown)?;
        let port = match port {
            None => default_port,
            Some(port) => port
                .parse()
                .map_err(|_| Error::invalid(format!("the address '{url}': '{port}' is no port")))?,
        };
        let writable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !writable(host) || !writable(&prefix) {
            return Err(unknown());
        }
        Ok(Self::Tcp { scheme, secure, host: host.to_owned(), port, prefix })
    }

    /// Host and port as they stand in a `Host` header.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            Self::Unix { .. } => "localhost".to_owned(),
        }
    }

    /// Whether TLS is spoken.
    pub(crate) fn is_secure(&self) -> bool {
        matches!(self, Self::Tcp { secure: true, .. })
    }

    /// Whether a token can travel: in a header of HTTP or gRPC.
    pub(crate) fn takes_token(&self) -> bool {
        matches!(self, Self::Tcp { scheme: Scheme::Http | Scheme::Grpc, .. })
    }
}

/// Host and port, if one is said; IPv6 stands in brackets.
fn split_authority(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest {
            "" => Some((host, None)),
            rest => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { path } => write!(formatter, "unix:{path}"),
            Self::Tcp { scheme, secure, prefix, .. } => {
                let name = SCHEMES.iter().find(|known| known.1 == *scheme && known.2 == *secure);
                let name = name.map_or("", |known| known.0);
                write!(formatter, "{name}://{}{prefix}", self.authority())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_is_read_and_written_back() {
        for url in [
            "http://h:1",
            "https://h:443/a/b",
            "grpc://h:2",
            "grpcs://[::1]:3",
            "frame://127.0.0.1:4",
            "unix:/a/b",
        ] {
            assert_eq!(Address::parse(url).unwrap().to_string(), url);
        }
        assert_eq!(Address::parse("http://h/").unwrap().to_string(), "http://h:80");
        assert_eq!(Address::parse("grpc://h").unwrap().authority(), "h:8000");
        assert_eq!(Address::parse("unix:///a").unwrap(), Address::parse("unix:/a").unwrap());
    }

    #[test]
    fn what_is_no_address_is_named() {
        for url in [
            "",
            "h:1",
            "ftp://h",
            "http://",
            "http://:1",
            "http://h:x",
            "http://h:99999",
            "grpc://h/a",
            "unix:",
            "http://u@h",
            "http://h?q",
            "http://a:b:c",
            "http://[::1",
            "http://h /",
            "http://h/ä",
        ] {
            let error = Address::parse(url).unwrap_err();
            assert!(error.message().contains(&format!("'{url}'")), "{error}");
        }
    }
}
