//! Starts PostgreSQL, NATS and Redis for a reader, or for one command: see `--help`.

#![allow(clippy::disallowed_methods, reason = "nothing here runs on an async runtime")]

use std::env;
use std::process::{Command, ExitCode};
use std::thread;

use support::services::{Server, Service};

const HELP: &str = "\
Starts PostgreSQL, NATS and Redis, each on a free port and in a temporary folder, and prints where they are.
Ends them when it ends: after COMMAND, if one is given, and else by Ctrl-C.

Usage: services [COMMAND [ARGUMENT...]]

COMMAND finds the servers in DATABASE_URL, NATS_URL and REDIS_URL; a variable that is set already is left as it is.
Exit codes: that of COMMAND, or 1 if a server cannot be started.";

fn main() -> ExitCode {
    let command: Vec<_> = env::args_os().skip(1).collect();
    if command.first().is_some_and(|first| first == "--help" || first == "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let services = [Service::Postgres, Service::Nats, Service::Redis];
    let servers: Vec<Server> =
        match services.iter().map(|service| service.find_or_start()).collect::<Result<_, _>>() {
            Ok(servers) => servers,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        };
    let named = services.iter().zip(&servers).map(|(service, server)| (service.variable(), server.url()));
    let Some((program, arguments)) = command.split_first() else {
        named.for_each(|(variable, url)| println!("export {variable}={url}"));
        eprintln!("running until Ctrl-C");
        loop {
            thread::park();
        }
    };
    match Command::new(program).args(arguments).envs(named).status() {
        Ok(status) => status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8)),
        Err(error) => {
            eprintln!("error: cannot run {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
