//! Finds or starts PostgreSQL, NATS and Redis for tests and examples.
//!
//! A server is named by `DATABASE_URL`, `NATS_URL` or `REDIS_URL`. Where the variable is not set, one is started from the
//! programs on this machine (found in `PATH`, `/usr/lib/postgresql/*/bin`, `/usr/sbin`), on a free port of 127.0.0.1 and in
//! a temporary folder of its own, and only such a one is ever stopped. PostgreSQL refuses to run as root: then it runs as the
//! user `postgres`. What they store is not flushed to the disk: they are made for tests.
//!
//! Between a server and its starter stands a shell whose standard input is a pipe from the starter. When the pipe closes, the
//! shell stops the server and removes the folder. It closes when the [`Server`] is dropped, and also when the starter ends in
//! any other way: by `exit`, by Ctrl-C, by SIGKILL. Only when the shell itself is killed by SIGKILL, the server and its folder
//! stay.
//!
//! The calls block the thread, for about a second when they start PostgreSQL: make them before other work.
//!
//! ```
//! use support::services::Service;
//!
//! // `None` where there is no such program: standard error says that the test was skipped.
//! if let Some(redis) = Service::Redis.of_tests() {
//!     assert!(redis.url().starts_with("redis"));
//! }
//! ```

// Starting a server is a thread's work.
#![allow(clippy::disallowed_methods)]

use std::env;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a server may take until it answers; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many ports are tried: someone else may take the one that was free.
const PORTS: usize = 3;
/// Runs a server until the standard input ends. Arguments: folder, signal that stops the server, its command line.
/// The server holds the standard output as its descriptor 3: that ends when the server does.
const WATCHER: &str = "\
folder=$1 signal=$2
shift 2
\"$@\" 3>&1 >\"$folder/log\" 2>&1 </dev/null &
server=$!
exec >/dev/null
while read -r _; do :; done
kill -s \"$signal\" \"$server\" 2>/dev/null
wait \"$server\"
rm -rf \"$folder\"";

/// A server that recipes past one machine need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// `DATABASE_URL`, or `postgres` and `initdb`.
    Postgres,
    /// `NATS_URL`, or `nats-server`, with JetStream.
    Nats,
    /// `REDIS_URL`, or `redis-server`.
    Redis,
}

/// A server that answers. Dropping it stops the server and removes its folder, if it was started here.
pub struct Server {
    url: String,
    /// The shell that runs the server. Its standard input is the pipe that it watches.
    watcher: Option<Child>,
}

impl Service {
    /// The server for a test: one for the whole test program, which ends with it. Keep the tests apart by names of their
    /// own: a schema, a stream, a prefix.
    ///
    /// `None` where it can neither be found nor started: then standard error says that the test was skipped.
    ///
    /// # Panics
    ///
    /// With `REQUIRE_SERVICES=1`, instead of skipping the test.
    pub fn of_tests(self) -> Option<&'static Server> {
        static SERVERS: [OnceLock<Result<Server, String>>; 3] =
            [OnceLock::new(), OnceLock::new(), OnceLock::new()];
        match SERVERS[self as usize].get_or_init(|| self.find_or_start().map_err(|it| it.to_string())) {
            Ok(server) => Some(server),
            Err(error) => {
                let required = env::var("REQUIRE_SERVICES").is_ok_and(|value| value == "1");
                assert!(!required, "REQUIRE_SERVICES=1, and {error}");
                let test = thread::current().name().unwrap_or("a test").to_string();
                // Not `eprintln!`, which libtest swallows when the test passes.
                let _ = writeln!(io::stderr(), "SKIPPED {test}: {error}");
                None
            }
        }
    }

    /// The server that the environment names, or a new one.
    ///
    /// # Errors
    ///
    /// If there is no such program, or the server does not answer within a minute: then with the end of its log. A server
    /// named by the environment is not tried.
    pub fn find_or_start(self) -> io::Result<Server> {
        if let Ok(url) = env::var(self.variable()) {
            return Ok(Server { url, watcher: None });
        }
        let mut failed = None;
        for _ in 0..PORTS {
            match self.start() {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => failed = Some(error),
                ended => return ended,
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::other("no port was tried")))
    }

    /// The environment's variable that names it.
    pub fn variable(self) -> &'static str {
        match self {
            Service::Postgres => "DATABASE_URL",
            Service::Nats => "NATS_URL",
            Service::Redis => "REDIS_URL",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Service::Postgres => "postgres",
            Service::Nats => "nats-server",
            Service::Redis => "redis-server",
        }
    }

    /// A `BrokenPipe` says that the server ended at once.
    fn start(self) -> io::Result<Server> {
        let missing = || {
            let what = format!("{self} is missing: set {}, or install {}", self.variable(), self.program());
            io::Error::new(io::ErrorKind::NotFound, what)
        };
        let program = find(self.program()).ok_or_else(missing)?;
        let folder = tempfile::Builder::new().prefix("services-").tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let (path, port_text) = (folder.path().display().to_string(), port.to_string());
        let mut server = Vec::new();
        let (url, options, signal) = match self {
            Service::Postgres => {
                server = as_other_than_root(folder.path())?;
                let data = format!("{path}/data");
                init_database(&server, &program, &data)?;
                let options = format!(
                    "-D {data} -k {path} -p {port} -N 200 -c listen_addresses=127.0.0.1 -c fsync=off -c full_page_writes=off"
                );
                // SIGQUIT: without a last checkpoint.
                (format!("postgres://postgres@127.0.0.1:{port}/postgres"), options, "QUIT")
            }
            Service::Nats => {
                let options = format!("-a 127.0.0.1 -p {port_text} -js -sd {path}");
                (format!("nats://127.0.0.1:{port}"), options, "TERM")
            }
            Service::Redis => {
                let options =
                    format!("--bind 127.0.0.1 --port {port_text} --dir {path} --save --appendonly no");
                (format!("redis://127.0.0.1:{port}"), options, "TERM")
            }
        };
        server.push(program.display().to_string());
        // No option of ours has a space in it, and a temporary folder's path had better not.
        server.extend(options.split(' ').map(String::from));

        let mut shell = Command::new("sh");
        shell.args(["-c", WATCHER, "watcher", &path, signal]).args(&server);
        // A group of its own: Ctrl-C is for the starter, whose end the shell sees.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut watcher = shell.spawn()?;
        let ended = watcher.stdout.take().map(|mut pipe| {
            thread::spawn(move || {
                // Nobody writes: it ends with the server.
                let _ = pipe.read(&mut [0]);
            })
        });
        let server = Server { url, watcher: Some(watcher) };
        // From here on the folder is the shell's.
        let folder = folder.keep();
        self.wait(port, ended).map_err(|error| {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(5).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            io::Error::new(error.kind(), format!("{self} {error}\n{last}"))
        })?;
        Ok(server)
    }

    /// Until it answers.
    fn wait(self, port: u16, ended: Option<JoinHandle<()>>) -> io::Result<()> {
        let start = Instant::now();
        while !self.answers(port) {
            if ended.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "ended at once"));
            }
            if start.elapsed() > PATIENCE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "does not answer within a minute"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn answers(self, port: u16) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (question, right): (&[u8], &[u8]) = match self {
            // The length, version 3.0, and who asks; it answers with R as soon as it takes queries, and with E before.
            Service::Postgres => (b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0", b"R"),
            Service::Nats => (b"", b"INFO"),
            Service::Redis => (b"PING\r\n", b"+PONG"),
        };
        let mut answer = vec![0; right.len()];
        let mut ask = || -> io::Result<()> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(question)?;
            stream.read_exact(&mut answer)
        };
        ask().is_ok() && answer == right
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Postgres => "PostgreSQL",
            Service::Nats => "NATS",
            Service::Redis => "Redis",
        })
    }
}

impl Server {
    /// Where it is: `postgres://…`, `nats://…`, `redis://…`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it was started here, and ends with this value.
    pub fn is_ours(&self) -> bool {
        self.watcher.is_some()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            // `wait` closes the pipe first.
            let _ = watcher.wait();
        }
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> =
        env::var_os("PATH").iter().flat_map(|path| env::split_paths(path).collect::<Vec<_>>()).collect();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.push("/usr/sbin".into());
    folders.iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// What to put before a command that refuses to run as root; the folder is given to whom it runs as.
fn as_other_than_root(folder: &Path) -> io::Result<Vec<String>> {
    if fs::metadata(folder)?.uid() != 0 {
        return Ok(Vec::new());
    }
    run(Command::new("chown").arg("postgres").arg(folder))?;
    Ok(["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"].map(String::from).to_vec())
}

fn init_database(before: &[String], postgres: &Path, data: &str) -> io::Result<()> {
    // Beside the program itself, wherever a link to it lies.
    let initdb = fs::canonicalize(postgres)?.with_file_name("initdb").display().to_string();
    let arguments = ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"];
    let mut words = before.iter().map(String::as_str).chain([initdb.as_str()]).chain(arguments);
    // The user it runs as may not look into our working directory.
    run(Command::new(words.next().unwrap_or_default()).args(words).current_dir("/"))
}

fn run(command: &mut Command) -> io::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        io::Error::new(error.kind(), format!("cannot run {name}, which PostgreSQL needs: {error}"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{name} ends with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )))
}
