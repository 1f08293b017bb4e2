//! Keep a client away from private addresses, whichever way a URL leads to them.
//!
//! Use it when others write the URLs: links of a page, webhooks, user input. `http_client` has it built in.
//!
//! | | |
//! |---|---|
//! | Order | none: requests are independent |
//! | Errors | [`Refused`] names the host and what was not allowed; from a client it is found in [`reqwest::Error`] by [`Refused::behind`] |
//! | Cancellation | dropping the request drops the wait for a name; a lookup that has begun ends on its own thread |
//! | Panics | none of its own; a panic of [`AddressGuard::address`] is the caller's |
//! | Memory | O(addresses) for each name that is being looked up |
//! | Backpressure | none: lookups are as many as connections being made |
//! | Clock | none of its own |
//!
//! There are three checks, because each alone can be passed by: the host of the parsed URL, where `2130706433` and `0x7f.1` have
//! become `127.0.0.1` and are never looked up; all that a name resolves to, at the moment of connecting, so that no
//! second lookup can answer otherwise; and both again at each redirect. A proxy would resolve names itself, so proxies are
//! switched off. The prefix of a network's own NAT64 cannot be known: if there is one, refuse it in `address`.
//!
//! ```
//! use scraping::{AddressGuard, Refused};
//!
//! #[tokio::main]
//! async fn main() {
//!     let guard = AddressGuard::default();
//!     assert!(guard.check(&"http://0x7f.1/admin".parse().unwrap()).is_err());
//!     assert!(guard.check(&"https://example.org/".parse().unwrap()).is_ok());
//! }
//! ```

use std::error::Error as _;
use std::iter::successors;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{ClientBuilder, Url};
use tokio::net::lookup_host;

/// What a client may fetch.
#[derive(Clone, Debug)]
pub struct AddressGuard {
    /// The schemes that are allowed, out of `http` and `https`.
    pub schemes: Vec<&'static str>,
    /// The ports that are allowed. Empty: every port.
    pub ports: Vec<u16>,
    /// Whether an address is allowed.
    pub address: fn(IpAddr) -> bool,
    /// How many redirects of one request are followed.
    pub redirects: usize,
}

impl Default for AddressGuard {
    /// http and https, ports 80 and 443, [public](is_public) addresses, 5 redirects.
    fn default() -> Self {
        let (schemes, ports) = (vec!["http", "https"], vec![80, 443]);
        AddressGuard { schemes, ports, address: is_public, redirects: 5 }
    }
}

/// A request that is not allowed, at first or at a redirect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host}: {reason}")]
pub struct Refused {
    /// The host that it would have gone to.
    pub host: String,
    /// What is not allowed.
    pub reason: Reason,
}

/// What is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// This scheme.
    #[error("the scheme {0} is not allowed")]
    Scheme(String),
    /// This port.
    #[error("port {0} is not allowed")]
    Port(u16),
    /// This address: the host itself, or the first that it resolves to, none of which is allowed.
    #[error("the address {0} is not allowed")]
    Address(IpAddr),
    /// More redirects than this.
    #[error("more than {0} redirects")]
    Redirects(usize),
}

impl Refused {
    /// The refusal that is behind the error of a client with a guard.
    pub fn behind(error: &reqwest::Error) -> Option<&Self> {
        successors(error.source(), |error| (*error).source()).find_map(|error| error.downcast_ref())
    }
}

impl AddressGuard {
    /// Makes the client check each address that a name resolves to and each redirect. Its proxies, its resolver and its
    /// redirect policy are replaced; what [`ClientBuilder::resolve`] maps to an address is trusted.
    ///
    /// The URL of a request itself passes by this: [`check`](AddressGuard::check) it before.
    pub fn apply(&self, client: ClientBuilder) -> ClientBuilder {
        let guard = self.clone();
        let policy = Policy::custom(move |attempt| guard.redirect(attempt));
        client.no_proxy().dns_resolver(self.clone()).redirect(policy)
    }

    /// Checks scheme, port and, when the host is an address, the address. A name is checked when it is looked up.
    pub fn check(&self, url: &Url) -> Result<(), Refused> {
        // The brackets of an IPv6 address are not part of it.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let refused = |reason| Err(Refused { host: host.into(), reason });
        if !self.schemes.contains(&url.scheme()) {
            return refused(Reason::Scheme(url.scheme().into()));
        }
        // A scheme without a port of its own is none that reqwest speaks.
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.ports.is_empty() && !self.ports.contains(&port) {
            return refused(Reason::Port(port));
        }
        match host.parse() {
            Ok(address) if !(self.address)(address) => refused(Reason::Address(address)),
            _ => Ok(()),
        }
    }

    fn redirect(&self, attempt: Attempt<'_>) -> Action {
        // The first of the previous ones is the request itself.
        if attempt.previous().len() > self.redirects {
            let host = attempt.url().host_str().unwrap_or_default().into();
            return attempt.error(Refused { host, reason: Reason::Redirects(self.redirects) });
        }
        match self.check(attempt.url()) {
            Ok(()) => attempt.follow(),
            Err(refused) => attempt.error(refused),
        }
    }

    /// What is allowed of the addresses that `host` resolves to.
    fn filter(&self, host: &str, mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
        let first = found.first().map(SocketAddr::ip);
        found.retain(|address| (self.address)(address.ip()));
        match first {
            Some(address) if found.is_empty() => {
                Err(Refused { host: host.into(), reason: Reason::Address(address) })
            }
            _ => Ok(found),
        }
    }
}

impl Resolve for AddressGuard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            // Port 0 is replaced by that of the URL.
            let found = lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(guard.filter(name.as_str(), found)?.into_iter()) as Addrs)
        })
    }
}

/// Whether the address belongs to the public Internet, by IANA's registries of special-purpose addresses.
///
/// Addresses for protocols, documentation, tests and future use are none, nor is multicast. An IPv6 address that stands
/// for an IPv4 address (mapped, 6to4, NAT64) is as public as that.
pub fn is_public(address: IpAddr) -> bool {
    let address = match address {
        IpAddr::V4(address) => return is_public_v4(address),
        IpAddr::V6(address) => address,
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => is_public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))),
        // Protocols, Teredo among them; documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Everything else is special, or not in use.
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127 | 224.., ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(guard: &AddressGuard, url: &str) -> Option<Reason> {
        guard.check(&url.parse().unwrap()).err().map(|refused| refused.reason)
    }

    fn public(address: &str) -> bool {
        is_public(address.parse().unwrap())
    }

    #[test]
    fn errors_name_what_is_not_allowed() {
        let guard = AddressGuard { schemes: vec!["https"], ..AddressGuard::default() };
        let refused = guard.check(&"http://example.org/".parse().unwrap()).unwrap_err();
        assert_eq!(refused.to_string(), "example.org: the scheme http is not allowed");
        assert_eq!(refusal(&guard, "file:///etc/passwd"), Some(Reason::Scheme("file".into())));
        assert_eq!(refusal(&guard, "https://example.org:6379/"), Some(Reason::Port(6379)));
        assert_eq!(refusal(&guard, "https://example.org/"), None);
    }

    #[test]
    fn errors_come_for_every_spelling_of_an_address() {
        let spelled =
            ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "１２７.0.0.1", "%31%32%37.0.0.1"];
        let in_brackets =
            ["[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[2002:7f00:1::]", "[64:ff9b::7f00:1]"];
        for host in spelled.iter().chain(&in_brackets) {
            let reason = refusal(&AddressGuard::default(), &format!("http://user@{host}/"));
            assert!(matches!(reason, Some(Reason::Address(_))), "{host}: {reason:?}");
        }
        let any_port = AddressGuard { ports: Vec::new(), address: |_| true, ..AddressGuard::default() };
        assert_eq!(refusal(&any_port, "http://127.0.0.1:8080/"), None);
    }

    #[test]
    fn errors_only_when_no_address_of_a_name_is_allowed() {
        let guard = AddressGuard::default();
        let found =
            |texts: &[&str]| texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect();
        let public: Vec<SocketAddr> = found(&["93.184.215.14"]);
        assert_eq!(guard.filter("mixed", found(&["10.0.0.1", "93.184.215.14", "::1"])), Ok(public));
        let refused = guard.filter("inside", found(&["10.0.0.1", "::1"])).unwrap_err();
        assert_eq!(refused.to_string(), "inside: the address 10.0.0.1 is not allowed");
        assert_eq!(guard.filter("nowhere", Vec::new()), Ok(Vec::new()));
    }

    #[test]
    fn memory_of_a_lookup_is_that_of_its_addresses() {
        let found = vec![SocketAddr::from(([8, 8, 8, 8], 0)); 1000];
        assert_eq!(AddressGuard::default().filter("many", found).map(|allowed| allowed.len()), Ok(1000));
    }

    #[test]
    fn errors_follow_the_registries() {
        for address in
            ["8.8.8.8", "100.63.255.255", "172.32.0.1", "192.31.196.1", "2606:4700::1111", "::ffff:8.8.8.8"]
        {
            assert!(public(address), "{address}");
        }
        for address in
            ["0.0.0.0", "100.64.0.1", "169.254.169.254", "255.255.255.255", "::", "fe80::1", "fd00::1"]
        {
            assert!(!public(address), "{address}");
        }
        for address in [
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "100::1",
            "64:ff9b:1::1",
            "::7f00:1",
            "2002:a00:1::",
        ] {
            assert!(!public(address), "{address}");
        }
    }

    #[tokio::test]
    async fn cancellation_drops_the_lookup_and_a_private_name_is_refused() {
        let guard = AddressGuard::default();
        drop(guard.resolve("localhost".parse().unwrap()));
        let Err(error) = guard.resolve("localhost".parse().unwrap()).await else {
            panic!("localhost is public")
        };
        assert!(matches!(error.downcast_ref(), Some(Refused { reason: Reason::Address(_), .. })), "{error}");
    }
}
