//! A real redis-server on a free port with its own directory, killed when dropped.

// Each test file takes what it needs.
#![allow(dead_code)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A redis-server that belongs to one test.
pub(crate) struct RedisServer {
    port: u16,
    dir: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk.
    pub(crate) fn start() -> Self {
        Self::with(&["--appendonly", "no"])
    }

    /// Starts a server with more arguments.
    pub(crate) fn with(args: &[&str]) -> Self {
        let mut server = Self::stopped(args);
        server.resume_from_disk();
        server
    }

    /// Reserves a port and a directory without starting the server.
    pub(crate) fn stopped(args: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("roomcast-redis-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Self { port: free_port(), dir, args, child: None }
    }

    /// Starts a Sentinel with these lines in its configuration file, which it rewrites.
    pub(crate) fn sentinel(settings: &str) -> Self {
        let mut server = Self::stopped(&[]);
        let settings = format!("port {}\nbind 127.0.0.1\nlogfile {}\n{settings}", server.port, server.path("log"));
        std::fs::write(server.dir.join("sentinel.conf"), settings).expect("a configuration");
        server.resume_from_disk();
        server
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().expect("a path of ours").to_owned()
    }

    /// More arguments for the next start.
    pub(crate) fn add_args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
    }

    /// Starts the process, or starts it again, and waits until it answers.
    pub(crate) fn resume_from_disk(&mut self) {
        assert!(self.child.is_none(), "already running");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut child = self.spawn();
            while child.try_wait().expect("a child can be asked").is_none() {
                if self.answers() {
                    self.child = Some(child);
                    return;
                }
                assert!(Instant::now() < deadline, "redis-server does not answer on port {}", self.port);
                std::thread::sleep(Duration::from_millis(5));
            }
            // Another process has the port, or the previous server's socket is not closed yet.
            assert!(Instant::now() < deadline, "redis-server does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn spawn(&self) -> Child {
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        let sentinel = self.dir.join("sentinel.conf");
        if sentinel.exists() {
            command.arg(sentinel).arg("--sentinel");
        } else {
            command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "yes"]);
            command.arg("--dir").arg(&self.dir).arg("--logfile").arg(self.path("log")).args(&self.args);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("redis-server is installed")
    }

    /// An error that asks for a password counts as an answer; LOADING does not.
    fn answers(&self) -> bool {
        let Ok(mut connection) = self.client().get_connection_with_timeout(Duration::from_secs(1)) else {
            return self.log().contains("Ready to accept connections") && !self.open();
        };
        match redis::cmd("PING").query::<String>(&mut connection) {
            Ok(_) => true,
            Err(error) => error.code() == Some("NOAUTH"),
        }
    }

    /// Whether a connection needs no password.
    fn open(&self) -> bool {
        !self.args.iter().any(|arg| arg == "--requirepass")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Kills the process, as `kill -9` does; its port and directory stay.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Suspends the process (`SIGSTOP`); its sockets stay open.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Resumes the process.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("running").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// `redis://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its directory, for files of the test too.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("a good URL")
    }

    /// A plain connection, like another program's.
    pub(crate) fn connection(&self) -> redis::Connection {
        self.client().get_connection().expect("redis-server is running")
    }

    /// Runs a command written as words on a plain connection.
    pub(crate) fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.run_within(Duration::from_secs(20), words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// The same for a command that may fail, within about a second.
    pub(crate) fn try_run<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        self.run_within(Duration::from_secs(1), words)
    }

    fn run_within<T: redis::FromRedisValue>(&self, connected: Duration, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        let mut connection = self.client().get_connection_with_timeout(connected)?;
        command.query(&mut connection)
    }

    /// A section of `INFO`, for conditions: empty while the server does not answer, as when a change of its role closes
    /// the connections of its clients.
    pub(crate) fn info(&self, section: &str) -> String {
        self.try_run(&["INFO", section]).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A port that nobody else here gets. Below the kernel's ephemeral range, because tests kill a server and start it again on
/// its port: no outgoing connection of another test may have taken the port meanwhile.
pub(crate) fn free_port() -> u16 {
    const LOWEST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that run at the same time begin at different places.
    let begin = std::process::id().wrapping_mul(7_919);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = LOWEST + begin.wrapping_add(step) % COUNT;
        let port = u16::try_from(port).expect("below 32,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
