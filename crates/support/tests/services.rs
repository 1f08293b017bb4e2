//! Servers for tests: started once, on a port of their own, and gone with whoever started them.

#![allow(clippy::disallowed_methods, reason = "nothing here runs on an async runtime")]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use support::services::Service;

const ALL: [Service; 3] = [Service::Postgres, Service::Nats, Service::Redis];

fn reachable(url: &str) -> bool {
    let address =
        url.rsplit('@').next().unwrap_or(url).trim_start_matches("nats://").trim_start_matches("redis://");
    TcpStream::connect(address.split('/').next().unwrap_or(address)).is_ok()
}

#[test]
fn one_server_for_the_whole_program() {
    for service in ALL {
        let Some(server) = service.of_tests() else { continue };
        let again = service.of_tests().expect("it was there a moment ago");
        assert!(std::ptr::eq(server, again) && reachable(server.url()), "{service}");
    }
}

#[test]
fn a_server_ends_with_its_value() {
    for service in ALL {
        if service.of_tests().is_none() || env::var_os(service.variable()).is_some() {
            continue;
        }
        let server = service.find_or_start().expect("another one was started before");
        let url = server.url().to_string();
        assert!(server.is_ours() && reachable(&url), "{service}");
        drop(server);
        assert!(!reachable(&url), "{service} runs on");
    }
}

/// Also when it has no chance to say goodbye: the test runs this program again, and kills that.
#[test]
fn a_server_ends_when_its_starter_is_killed() {
    if env::var_os("STARTER").is_some() {
        let server = Service::Redis.find_or_start().expect("another one was started before");
        // Not `println!`, which libtest keeps back.
        writeln!(std::io::stdout(), "\nstarted {}", server.url()).expect("the parent reads");
        loop {
            std::thread::park();
        }
    }
    if Service::Redis.of_tests().is_none() || env::var_os("REDIS_URL").is_some() {
        return;
    }
    let program = env::current_exe().expect("a test is a program");
    let mut starter = Command::new(program)
        .args(["--exact", "a_server_ends_when_its_starter_is_killed"])
        .env("STARTER", "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs already");
    let mut lines = BufReader::new(starter.stdout.take().expect("it is piped")).lines();
    let url = lines
        .find_map(|line| line.expect("text").strip_prefix("started ").map(String::from))
        .expect("it prints where the server is");
    let mut connection = TcpStream::connect(url.trim_start_matches("redis://")).expect("it answers");
    starter.kill().expect("it runs");
    starter.wait().expect("it was ours");
    // The server closes its connections when it ends, and ends when the starter has.
    let read = std::io::Read::read(&mut connection, &mut [0]);
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop(lines);
}
