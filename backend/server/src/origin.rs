//! Where people reach the server, where that is not where it listens: behind a reverse proxy, or at another port of a container's machine.

use crate::guard::parse_host;
use axum::http::uri::Authority;
use std::fmt;
use std::str::FromStr;

/// Scheme, host and port of an address, without a path, as browsers name the origin of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    secure: bool,
    authority: Authority,
}

impl Origin {
    /// Whether browsers come by TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host, without the port.
    pub fn host(&self) -> &str {
        self.authority.host()
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let read = || {
            let (scheme, rest) = lower.split_once("://")?;
            let secure = match scheme {
                "https" => true,
                "http" => false,
                _ => return None,
            };
            // The slash is that of an address which was copied from a browser.
            let authority = parse_host(rest.strip_suffix('/').unwrap_or(rest)).ok()?;
            Some(Self { secure, authority })
        };
        read().ok_or_else(|| "allowed is http:// or https:// and a host, with a port where it has one and without a path".into())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_no_more() {
        for (text, shown, secure, host) in [
            ("https://lab.example.org", "https://lab.example.org", true, "lab.example.org"),
            ("HTTPS://Lab.Example.org/", "https://lab.example.org", true, "lab.example.org"),
            ("http://localhost:8080", "http://localhost:8080", false, "localhost"),
            ("https://[::1]:8443", "https://[::1]:8443", true, "[::1]"),
        ] {
            let origin: Origin = text.parse().unwrap();
            assert_eq!((origin.to_string().as_str(), origin.is_secure(), origin.host()), (shown, secure, host));
        }
        for text in [
            "lab.example.org",
            "lab.example.org:8080",
            "ftp://lab.example.org",
            "https://",
            "https:///",
            "https://lab.example.org/lab",
            "https://lab.example.org?a=b",
            "https://lab.example.org/#a",
            "https://ada@lab.example.org",
            "https://lab.example.org:",
            "https://lab.example.org:99999",
            "https://a b",
            "",
        ] {
            let why = text.parse::<Origin>().unwrap_err();
            assert!(why.starts_with("allowed is http:// or https://"), "{text}: {why}");
        }
    }
}
