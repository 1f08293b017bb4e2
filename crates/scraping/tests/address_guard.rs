//! The addresses beside IANA's registries, and a client with a guard before a real server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use reqwest::dns::Resolve;
use reqwest::{Client, Proxy};
use scraping::{AddressGuard, Reason, Refused, is_public};
use server::{answer, redirect, serve};
use support::sweep::{Ended, Scene, sweep};

mod server;

/// What is not globally reachable by the registry, and multicast: network and length.
const SPECIAL_V4: [(&str, u32); 16] = [
    ("0.0.0.0", 8),
    ("10.0.0.0", 8),
    ("100.64.0.0", 10),
    ("127.0.0.0", 8),
    ("169.254.0.0", 16),
    ("172.16.0.0", 12),
    ("192.0.0.0", 24),
    ("192.0.2.0", 24),
    ("192.88.99.0", 24),
    ("192.168.0.0", 16),
    ("198.18.0.0", 15),
    ("198.51.100.0", 24),
    ("203.0.113.0", 24),
    ("224.0.0.0", 4),
    ("240.0.0.0", 4),
    ("255.255.255.255", 32),
];
/// Within the only block that is in use, 2000::/3.
const SPECIAL_V6: [(&str, u32); 3] = [("2001::", 23), ("2001:db8::", 32), ("3fff::", 20)];
/// Where an IPv4 address is embedded: network, length, and how many bits stand behind it.
const EMBEDDED: [(&str, u32, u32); 3] = [("::ffff:0:0", 96, 0), ("64:ff9b::", 96, 0), ("2002::", 16, 80)];

fn bits_v4(text: &str) -> u32 {
    text.parse::<Ipv4Addr>().expect("written here").to_bits()
}

fn bits_v6(text: &str) -> u128 {
    text.parse::<Ipv6Addr>().expect("written here").to_bits()
}

fn within_v4(address: u32, (network, length): (&str, u32)) -> bool {
    (address ^ bits_v4(network)).checked_shr(32 - length).unwrap_or(0) == 0
}

fn within_v6(address: u128, network: &str, length: u32) -> bool {
    (address ^ bits_v6(network)) >> (128 - length) == 0
}

fn public_v4(address: u32) -> bool {
    !SPECIAL_V4.into_iter().any(|network| within_v4(address, network))
}

fn public_v6(address: u128) -> bool {
    for (network, length, behind) in EMBEDDED {
        if within_v6(address, network, length) {
            return public_v4((address >> behind) as u32);
        }
    }
    let special = SPECIAL_V6.into_iter().any(|(network, length)| within_v6(address, network, length));
    within_v6(address, "2000::", 3) && !special
}

/// The first and the last address of each network, and their neighbours.
#[test]
fn errors_at_every_edge_of_the_registries() {
    for (network, length) in SPECIAL_V4 {
        let first = bits_v4(network);
        let last = first | u32::MAX.checked_shr(length).unwrap_or(0);
        for address in [first.wrapping_sub(1), first, last, last.wrapping_add(1)] {
            let ip = IpAddr::V4(Ipv4Addr::from_bits(address));
            assert_eq!(is_public(ip), public_v4(address), "{ip}");
        }
    }
    let embedded = EMBEDDED.map(|(network, length, _)| (network, length));
    for (network, length) in SPECIAL_V6.into_iter().chain(embedded).chain([("2000::", 3), ("fc00::", 7)]) {
        let first = bits_v6(network);
        let last = first | (u128::MAX >> length);
        for address in [first.wrapping_sub(1), first, last, last.wrapping_add(1)] {
            let ip = IpAddr::V6(Ipv6Addr::from_bits(address));
            assert_eq!(is_public(ip), public_v6(address), "{ip}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn errors_by_the_registry_for_any_ipv4(address: u32) {
        prop_assert_eq!(is_public(IpAddr::V4(Ipv4Addr::from_bits(address))), public_v4(address));
    }

    #[test]
    fn errors_by_the_registry_for_any_ipv6(address: u128, low: u32, place in 0..4_usize) {
        // One of four is any address, the others have an IPv4 address inside.
        let address = match EMBEDDED.get(place) {
            Some((network, _, behind)) => bits_v6(network) | u128::from(low) << behind,
            None => address,
        };
        prop_assert_eq!(is_public(IpAddr::V6(Ipv6Addr::from_bits(address))), public_v6(address));
    }

    /// No text that a URL may have as its host gets a private address past the check.
    #[test]
    fn errors_for_any_spelling(address: u32, spelling in 0..5_usize) {
        let [a, b, c, d] = address.to_be_bytes();
        let host = match spelling {
            0 => format!("{a}.{b}.{c}.{d}"),
            1 => address.to_string(),
            2 => format!("{a:#x}.{:#x}", address & 0xff_ffff),
            3 => format!("0{a:o}.{b}.{}", address & 0xffff),
            _ => format!("[::ffff:{a}.{b}.{c}.{d}]"),
        };
        let url = format!("http://{host}/").parse().unwrap();
        prop_assert_eq!(AddressGuard::default().check(&url).is_ok(), public_v4(address));
    }
}

/// Loopback is allowed by its IPv4 address only, so that a redirect can lead to what is not.
fn local() -> AddressGuard {
    let address = |address: IpAddr| is_public(address) || address == Ipv4Addr::LOCALHOST;
    AddressGuard { ports: Vec::new(), address, ..AddressGuard::default() }
}

fn client(guard: &AddressGuard) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    guard.apply(Client::builder().tls_certs_only([])).build().expect("no system certificates are needed")
}

async fn reason(client: &Client, url: &str) -> Option<Reason> {
    let error = client.get(url).send().await.err()?;
    Some(Refused::behind(&error).expect("the guard has refused it").reason.clone())
}

#[tokio::test]
async fn errors_at_each_redirect() {
    let server = serve(|path| match path {
        "/end" => answer("200 OK", b"here"),
        "/literal" => redirect("http://169.254.169.254/latest/meta-data"),
        "/number" => redirect("http://167772161/"),
        "/mapped" => redirect("http://[::ffff:10.0.0.1]/"),
        "/scheme" => redirect("file:///etc/passwd"),
        "/loop" => redirect("/loop"),
        path => match path.strip_prefix("/hops/").and_then(|left| left.parse::<u32>().ok()) {
            Some(0) => redirect("/end"),
            Some(left) => redirect(&format!("/hops/{}", left - 1)),
            None => answer("404 Not Found", b""),
        },
    })
    .await;
    let client = client(&local());
    for (path, address) in
        [("/literal", "169.254.169.254"), ("/number", "10.0.0.1"), ("/mapped", "::ffff:10.0.0.1")]
    {
        let expected = Reason::Address(address.parse().unwrap());
        assert_eq!(reason(&client, &server.url(path)).await, Some(expected), "{path}");
    }
    assert_eq!(reason(&client, &server.url("/loop")).await, Some(Reason::Redirects(5)));
    assert_eq!(reason(&client, &server.url("/hops/4")).await, None, "five redirects");
    assert_eq!(reason(&client, &server.url("/hops/5")).await, Some(Reason::Redirects(5)), "six redirects");
    let error = client.get(server.url("/scheme")).send().await;
    assert!(error.is_err() || error.is_ok_and(|response| response.status() == 302), "a file was fetched");
}

#[tokio::test]
async fn errors_at_a_redirect_to_another_port() {
    let inside = serve(|_| answer("200 OK", b"secret")).await;
    let target = inside.url("/");
    let outside = serve(move |_| redirect(&target)).await;
    let guard = AddressGuard { ports: vec![outside.address.port()], ..local() };
    let refused = reason(&client(&guard), &outside.url("/")).await;
    assert_eq!(refused, Some(Reason::Port(inside.address.port())));
    assert_eq!(inside.counts().connections, 0);
}

#[tokio::test]
async fn errors_for_a_name_that_resolves_to_a_private_address() {
    let server = serve(|_| answer("200 OK", b"secret")).await;
    let port = server.address.port();
    let guard = AddressGuard { ports: Vec::new(), ..AddressGuard::default() };
    for host in ["localhost", "LOCALHOST"] {
        let refused = reason(&client(&guard), &format!("http://{host}:{port}/")).await;
        assert!(matches!(refused, Some(Reason::Address(_))), "{host}: {refused:?}");
    }
    assert_eq!(server.counts().connections, 0);
    let named = client(&local()).get(format!("http://localhost:{port}/")).send().await.unwrap();
    assert_eq!(named.status(), 200, "127.0.0.1 is allowed there, and ::1 left out");
}

#[tokio::test]
async fn errors_for_a_name_behind_a_redirect() {
    let inside = serve(|_| answer("200 OK", b"secret")).await;
    let target = format!("http://localhost:{}/", inside.address.port());
    let outside = serve(move |_| redirect(&target)).await;
    // The first hop is trusted as a name, so that only the second one is looked up.
    let guard = AddressGuard { ports: Vec::new(), ..AddressGuard::default() };
    let builder = guard.apply(Client::builder().tls_certs_only([]).resolve("outside.test", outside.address));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("http://outside.test:{}/", outside.address.port());
    let refused = reason(&builder.build().unwrap(), &url).await;
    assert!(matches!(refused, Some(Reason::Address(_))), "{refused:?}");
    assert_eq!((outside.counts().requests, inside.counts().connections), (1, 0));
}

#[tokio::test]
async fn errors_are_not_passed_by_through_a_proxy() {
    let proxy = serve(|_| answer("200 OK", b"from the proxy")).await;
    let server = serve(|_| answer("200 OK", b"from the server")).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder().tls_certs_only([]).proxy(Proxy::all(proxy.url("")).unwrap());
    let client = local().apply(builder).build().unwrap();
    let text = client.get(server.url("/")).send().await.unwrap().text().await.unwrap();
    assert_eq!((&*text, proxy.counts().connections), ("from the server", 0));
}

/// The lookup itself, on its own thread, is not cut short: only the wait for it.
#[test]
fn cancellation_at_every_point_of_a_lookup() {
    let report = sweep(|_| {
        let lookup = AddressGuard::default().resolve("localhost".parse().expect("it is a name"));
        Scene::new(async move { lookup.await.map(Iterator::count) }).check(|ended| {
            if let Ended::Returned(found) = ended {
                assert!(found.is_err_and(|error| error.is::<Refused>()));
            }
        })
    });
    println!("{} points", report.points);
}
