//! A small service that takes jobs over HTTP, and stops in ordered phases without losing one that it accepted.
//!
//! ```console
//! cargo run --example shutdown
//! cargo run --example shutdown -- --serve --port 8080    # in another shell: curl -d 250 http://127.0.0.1:8080/
//! ```

use std::convert::Infallible;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use support::lanes::{LaneExt, PictureArgs, record, waiting};
use tasks::{Phase, Report, Shutdown, signals};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

/// Take jobs over HTTP until SIGTERM or Ctrl-C; then stop in phases: the listener, the workers, the journal.
///
/// A job is a POST whose body says how many milliseconds of work it is. Without --serve the service gets nine jobs, one of
/// them too long, and then sends itself a SIGTERM.
#[derive(Clone, Parser)]
#[command(
    after_help = "Exit codes: 0 every accepted job was done or handed back, 1 one was lost or a task panicked, 2 bad arguments."
)]
pub struct Args {
    /// Run until SIGTERM or Ctrl-C; a second one stops at once
    #[arg(long)]
    serve: bool,
    /// Where to listen on 127.0.0.1; 0 is any free port
    #[arg(long, default_value = "0")]
    port: u16,
    /// Milliseconds that each phase gets
    #[arg(long, default_value = "600", value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    limit: u64,
    /// Milliseconds that the journal's last write takes
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    write: u64,
    #[command(flatten)]
    picture: PictureArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    serve(Args::parse()).await
}

/// What became of the jobs, by number.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    accepted: u32,
    done: Vec<u32>,
    back: Vec<u32>,
}

impl Book {
    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, work: Duration) -> Job {
        let mut entries = self.entries();
        entries.accepted += 1;
        Job { number: entries.accepted, work, done: false, book: self.clone() }
    }
}

/// A job that was accepted. Wherever it is dropped before it is done, in the queue or at work, it is handed back.
struct Job {
    number: u32,
    work: Duration,
    done: bool,
    book: Book,
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut entries = self.book.entries();
        let list = if self.done { &mut entries.done } else { &mut entries.back };
        list.push(self.number);
    }
}

/// The service, until it has stopped.
pub async fn serve(args: Args) -> anyhow::Result<ExitCode> {
    let signals = signals().context("cannot listen for signals")?;
    let socket = TcpListener::bind(("127.0.0.1", args.port)).await.context("cannot listen")?;
    let address = socket.local_addr()?;
    println!("listens on {address}");

    let book = Book::default();
    let (report, picture) = record("service", run(&args, signals, socket, book.clone())).await;
    args.picture.show(&picture).context("cannot write the picture")?;

    if let Some(second) = report.hurried {
        println!("cut short by {second}");
    }
    for (phase, task) in &report.left {
        println!("{phase}: {} {}", task.name, if task.cause.is_panic() { "panicked" } else { "was aborted" });
    }
    let mut entries = book.entries();
    entries.done.sort_unstable();
    entries.back.sort_unstable();
    let Entries { accepted, done, back } = &*entries;
    println!("accepted {accepted}: done {done:?}, handed back {back:?}");
    let lost = *accepted as usize != done.len() + back.len();
    Ok(ExitCode::from(u8::from(lost || report.left.iter().any(|(_, task)| task.cause.is_panic()))))
}

async fn run(
    args: &Args,
    signals: impl futures::Stream<Item = &'static str>,
    socket: TcpListener,
    book: Book,
) -> Report<&'static str> {
    let limit = Duration::from_millis(args.limit);
    let mut shutdown = Shutdown::default();
    // The order in which they stop: nothing new comes in while the workers finish, and the journal writes last.
    let listener = shutdown.phase("listener", limit);
    let workers = shutdown.phase("workers", limit);
    let journal = shutdown.phase("journal", limit);

    let address = socket.local_addr();
    let (sender, queue) = mpsc::channel(100);
    // Nothing refuses a task here: no phase stops before `run`.
    let _ = listener.spawn("accept", accept(listener.clone(), socket, sender, book.clone()).lane("accept"));
    let queue = Arc::new(tokio::sync::Mutex::new(queue));
    for number in 1..=3 {
        let name = format!("worker {number}");
        let _ = workers.spawn(name.clone(), work(workers.clone(), queue.clone()).lane(name));
    }
    // The workers' clones are the last to hold the queue.
    drop(queue);
    let _ = journal.spawn("write", write(journal.clone(), book, args.write).lane("journal"));

    let demo = async {
        if let (false, Ok(address)) = (args.serve, address) {
            // A failed request shows in the numbers.
            let _ = send_jobs(address).await;
            #[cfg(unix)]
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        report = shutdown.run(signals) => report,
        () = demo => unreachable!("it waits for ever"),
    }
}

/// Accepts connections until it is told to stop; the requests under way are then finished by their own tasks.
async fn accept(phase: Phase, socket: TcpListener, jobs: mpsc::Sender<Job>, book: Book) {
    let stop = phase.stopping();
    while let Some(accepted) = stop.run_until_cancelled(socket.accept()).await {
        if let Ok((stream, _)) = accepted {
            let connection = converse(phase.clone(), stream, jobs.clone(), book.clone());
            // Refused when the phase is stopping: the client sees its connection closed, and no job was accepted.
            let _ = phase.spawn("connection", connection.lane("connection"));
        }
    }
    println!("listener: closed");
}

/// Answers the requests of a connection. Told to stop, it finishes the one that is under way.
async fn converse(phase: Phase, stream: TcpStream, jobs: mpsc::Sender<Job>, book: Book) {
    let answer = service_fn(|request: Request<Incoming>| {
        let (jobs, book) = (jobs.clone(), book.clone());
        async move {
            let Ok(body) = request.into_body().collect().await else {
                return Ok::<_, Infallible>(answer(400, "no body".into()));
            };
            let body = String::from_utf8_lossy(&body.to_bytes()).trim().parse();
            let Ok(milliseconds) = body else {
                return Ok(answer(400, "the body must be a number of milliseconds".into()));
            };
            let Ok(place) = jobs.reserve().await else {
                return Ok(answer(503, "stopping".into()));
            };
            let job = book.accept(Duration::from_millis(milliseconds));
            let number = job.number;
            place.send(job);
            Ok(answer(202, number.to_string()))
        }
    });
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    let stop = phase.stopping();
    tokio::select! {
        biased;
        // A client that hangs up in the middle is its own business.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn answer(status: u16, text: String) -> Response<String> {
    let mut response = Response::new(text + "\n");
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
}

/// Takes jobs until there are none and it is told to stop.
async fn work(phase: Phase, queue: Arc<tokio::sync::Mutex<mpsc::Receiver<Job>>>) {
    let stop = phase.stopping();
    loop {
        let next = async { queue.lock().await.recv().await };
        let mut job = tokio::select! {
            biased;
            job = waiting("queue", next) => match job {
                Some(job) => job,
                None => break,
            },
            () = stop.cancelled() => break,
        };
        println!("job {}: begun", job.number);
        waiting("timer", sleep(job.work)).lane(format!("job {}", job.number)).await;
        job.done = true;
        println!("job {}: done", job.number);
    }
}

/// Notes now and then how far the jobs are, and once more at the end.
async fn write(phase: Phase, book: Book, milliseconds: u64) {
    let stop = phase.stopping();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.tick().await;
    while stop.run_until_cancelled(waiting("timer", ticks.tick())).await.is_some() {
        println!("journal: {} done", book.entries().done.len());
    }
    println!("journal: last write");
    waiting("io", sleep(Duration::from_millis(milliseconds))).await;
}

/// What the demonstration sends: eight short jobs and one of an hour.
async fn send_jobs(address: std::net::SocketAddr) -> anyhow::Result<()> {
    // An error means that a cryptography provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build()?;
    for milliseconds in [60, 80, 3_600_000, 70, 60, 80, 70, 60, 80] {
        let response =
            client.post(format!("http://{address}/")).body(milliseconds.to_string()).send().await?;
        anyhow::ensure!(response.status() == 202, "not accepted");
    }
    Ok(())
}
