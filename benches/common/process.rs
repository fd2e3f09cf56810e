//! Child processes and what they cost: the server under test, a real Redis.

use super::token::SECRET;
use super::until;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The publish key of every server here.
pub(crate) const KEY: &str = "a-publish-key-of-the-benches";

const STARTING: Duration = Duration::from_secs(20);

/// A child process that ends with its owner, and the directory it works in.
struct Process {
    child: Child,
    directory: PathBuf,
}

impl Process {
    fn start(name: &str, program: &Path, arguments: &[&str], files: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("roomcast-bench-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).expect("the temporary directory can be written");
        for (file, text) in files {
            fs::write(directory.join(file), text).expect("the temporary directory can be written");
        }
        let output = fs::File::create(directory.join("output")).expect("the temporary directory can be written");
        let child = Command::new(program)
            .args(arguments)
            .current_dir(&directory)
            // Settings in the environment would count: ROOMCAST_BIN itself is refused as an unknown one.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file can be shared"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
        Self { child, directory }
    }

    fn assert_alive(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            let output = fs::read_to_string(self.directory.join("output")).unwrap_or_default();
            panic!("it ended with {status}:\n{output}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A port that nobody listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the system has free ports");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// The server under test.
pub(crate) struct Server {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts it with the settings that all benches share, and these lines of TOML behind them.
    pub(crate) fn start(redis: Option<&Redis>, toml: &str) -> Self {
        Self::start_at(redis.map(Redis::url).as_deref(), "", toml)
    }

    /// The same on the Redis at this URL, with these lines in its `[redis]`.
    pub(crate) fn start_at(url: Option<&str>, redis: &str, toml: &str) -> Self {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_roomcast"));
        let program = std::env::var_os("ROOMCAST_BIN").map_or(built, PathBuf::from);
        let program = program.canonicalize().unwrap_or_else(|error| {
            panic!("{}: {error}; `cargo build --release` makes it, ROOMCAST_BIN names another", program.display())
        });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let redis = url.map_or(String::new(), |url| format!("[redis]\nurl = \"{url}\"\n{redis}"));
        let config = format!(
            "listen = \"{address}\"\n{redis}[auth]\nsecret = \"{SECRET}\"\n[publish]\nkeys = [\"{KEY}\"]\n\
             [log]\nlevel = \"warn\"\n{toml}"
        );
        let arguments = ["serve", "--config", "config.toml"];
        let mut process = Process::start("server", &program, &arguments, &[("config.toml", &config)]);
        until("the server to be ready", STARTING, || {
            process.assert_alive();
            is_ready(address)
        });
        Self { process, address }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(self.pid())
    }

    /// CPU time of each of its threads so far.
    pub(crate) fn threads(&self) -> BTreeMap<OsString, Duration> {
        threads(self.pid())
    }
}

fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut head = [0; 12];
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").is_ok()
        && stream.read_exact(&mut head).is_ok()
        && head == *b"HTTP/1.1 200"
}

/// A redis-server of our own, without persistence.
pub(crate) struct Redis {
    process: Process,
    port: u16,
}

impl Redis {
    /// Starts it.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a node of a Cluster that is still to be made.
    pub(crate) fn start_for_cluster() -> Self {
        let bus = free_port().to_string();
        Self::with(&["--cluster-enabled", "yes", "--cluster-port", &bus])
    }

    fn with(more: &[&str]) -> Self {
        let port = free_port();
        let text = port.to_string();
        let arguments = ["--port", &text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let arguments = [&arguments[..], more].concat();
        let mut process = Process::start("redis", Path::new("redis-server"), &arguments, &[]);
        until("redis-server to be ready", STARTING, || {
            process.assert_alive();
            let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
            let mut answer = [0; 7];
            stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && answer == *b"+PONG\r\n"
        });
        Self { process, port }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// The same for a socket.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(self.pid())
    }

    /// The text of its answer to a command of plain words.
    pub(crate) fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("redis-server listens");
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).expect("redis-server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("redis-server answers in ASCII");
        answer
    }

    /// How often each command was called so far, also from scripts (`INFO commandstats`).
    pub(crate) fn commands(&self) -> BTreeMap<String, u64> {
        let answer = self.ask("INFO commandstats");
        let line = |line: &str| {
            let (name, numbers) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), numbers.split(',').next()?.parse().ok()?))
        };
        answer.lines().filter_map(line).collect()
    }
}

/// CPU time of all threads of a process so far, as in [`threads`].
pub(crate) fn cpu(pid: u32) -> Duration {
    threads(pid).into_values().sum()
}

/// CPU time of each thread of a process so far, to the nanosecond (proc(5), `schedstat`): user, system, and the network
/// stack's work done on its behalf. Threads that have ended are not in it; ours live as long as their process.
fn threads(pid: u32) -> BTreeMap<OsString, Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let of_task = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        Some((task.file_name(), Duration::from_nanos(text.split(' ').next()?.parse().ok()?)))
    };
    tasks.flatten().filter_map(of_task).collect()
}

/// Resident bytes of a process (proc(5), `smaps_rollup`): all of them, and those that are its alone.
pub(crate) fn resident(pid: u32) -> (usize, usize) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process runs");
    let sum = |name: &str| -> usize {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines
            .map(|line| line.split_whitespace().nth(1).and_then(|kb| kb.parse::<usize>().ok()).unwrap_or(0) << 10)
            .sum()
    };
    (sum("Rss:"), sum("Private_"))
}
