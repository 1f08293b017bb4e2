//! The example service gets real signals in each of its phases: every job that it accepted is done or handed back.
//!
//! The service runs in a child process, which is this test program again. Nothing here waits for a time: each step begins
//! when the child has printed that the one before is over.

#![cfg(unix)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "an example is a program: it has a `main`, which no test calls"
)]
#![expect(clippy::unwrap_used, reason = "what fails in a helper of the test fails the test")]

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

#[path = "../../../examples/shutdown.rs"]
mod service;

/// The arguments of the service, for the child process.
const ARGUMENTS: &str = "SHUTDOWN_SERVICE";

/// Not a test of its own: the child process. Without its arguments there is nothing to do.
#[test]
fn service_process() {
    use clap::Parser;
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        let args = service::Args::parse_from(arguments.split(' '));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let code = runtime.block_on(service::serve(args)).unwrap();
        println!("ends with {}", if code == std::process::ExitCode::SUCCESS { "success" } else { "failure" });
    }
}

struct Service {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: String,
    accepted: Vec<u32>,
}

impl Service {
    async fn start(arguments: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program)
            .args(["--exact", "service_process", "--nocapture", "--test-threads=1"])
            .env(ARGUMENTS, format!("shutdown --serve {arguments}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut service = Service { child, lines, address: String::new(), accepted: Vec::new() };
        service.address = service.until("listens on ").await;
        service
    }

    /// Reads until a line with `wanted`, and returns what follows it.
    async fn until(&mut self, wanted: &str) -> String {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            if let Some((_, rest)) = line.split_once(wanted) {
                return rest.trim().to_string();
            }
        }
        panic!("the service has ended without `{wanted}`");
    }

    fn kill(&self, signal: Signal) {
        let id = self.child.id().unwrap();
        kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
    }

    /// Sends a job and notes its number: it was accepted.
    async fn post(&mut self, milliseconds: u32) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let body = milliseconds.to_string();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        self.accepted.push(answer.lines().last().unwrap().parse().unwrap());
    }

    /// A request that is never sent to its end holds the phase of the listener up.
    async fn hold_listener(&self) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let head = "POST / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // The service asks for the body: so it has read the head.
        let mut asked = [0; 12];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100");
        stream
    }

    /// Waits for the end, and returns which jobs were done and which were handed back.
    async fn end(mut self) -> (Vec<u32>, Vec<u32>) {
        let text = self.until("accepted ").await;
        assert_eq!(self.until("ends with ").await, "success");
        assert!(self.child.wait().await.unwrap().success());
        let (count, rest) = text.split_once(": done ").unwrap();
        let (done, back) = rest.split_once(", handed back ").unwrap();
        let numbers = |list: &str| -> Vec<u32> {
            let list = list.trim_matches(['[', ']']);
            list.split(", ").filter(|it| !it.is_empty()).map(|it| it.parse().unwrap()).collect()
        };
        let (done, back) = (numbers(done), numbers(back));
        let mut all = [done.clone(), back.clone()].concat();
        all.sort_unstable();
        assert_eq!(count.parse(), Ok(all.len()), "a job is lost or counted twice");
        assert_eq!(all, self.accepted, "those that the clients know of");
        (done, back)
    }
}

const HOUR: u32 = 3_600_000;

#[tokio::test]
async fn one_signal_lets_every_job_finish() {
    let mut service = Service::start("--limit 3600000").await;
    for _ in 0..30 {
        service.post(1).await;
    }
    service.kill(Signal::TERM);
    let (done, back) = service.end().await;
    assert_eq!((done.len(), back.len()), (30, 0));
}

#[tokio::test]
async fn one_signal_and_a_limit_hand_back_what_is_too_long() {
    let mut service = Service::start("--limit 50").await;
    for milliseconds in [HOUR, 0, HOUR, 0, HOUR, 0, 0] {
        service.post(milliseconds).await;
    }
    service.kill(Signal::INT);
    service.until("workers: worker 1 was aborted").await;
    let (done, back) = service.end().await;
    // Whoever got the jobs first: the long ones are not done, and those behind all three long ones are not either.
    assert!(back.starts_with(&[1]) && [3, 5].iter().all(|job| back.contains(job)), "{back:?}");
    assert!(done.len() + back.len() == 7);
}

#[tokio::test]
async fn a_second_signal_in_the_listeners_phase() {
    let mut service = Service::start("--limit 3600000").await;
    for _ in 0..5 {
        service.post(HOUR).await;
    }
    let _held = service.hold_listener().await;
    service.kill(Signal::TERM);
    service.until("listener: closed").await;
    service.kill(Signal::TERM);
    service.until("cut short by SIGTERM").await;
    service.until("listener: connection was aborted").await;
    assert_eq!(service.end().await, (vec![], vec![1, 2, 3, 4, 5]));
}

#[tokio::test]
async fn a_second_signal_in_the_workers_phase() {
    let mut service = Service::start("--limit 3600000").await;
    service.post(0).await;
    service.until("job 1: done").await;
    for _ in 0..5 {
        service.post(HOUR).await;
    }
    service.kill(Signal::TERM);
    // With no request under way, the listener's phase is over right after this line.
    service.until("listener: closed").await;
    service.kill(Signal::INT);
    service.until("cut short by SIGINT").await;
    assert_eq!(service.end().await, (vec![1], vec![2, 3, 4, 5, 6]));
}

#[tokio::test]
async fn a_second_signal_in_the_journals_phase() {
    let mut service = Service::start("--limit 3600000 --write 3600000").await;
    service.post(0).await;
    service.kill(Signal::INT);
    service.until("journal: last write").await;
    service.kill(Signal::INT);
    service.until("journal: write was aborted").await;
    assert_eq!(service.end().await, (vec![1], vec![]));
}
