//! The command line, one file per subcommand. Exit codes: 0 done, 1 failed at run time, 2 wrong configuration or usage.
//! Answers go to stdout, everything else to stderr.

mod check;
mod cluster_api;
mod demo;
mod dev;
mod drain;
mod explain;
mod health;
mod http;
mod init;
mod node_access;
mod nodes;
mod publish;
mod reload;
mod revoke;
mod rooms;
mod serve;
mod sessions;
mod shell;
mod token;
mod top;
mod trace;

use crate::config::{Config, Environment, Flags, Mistake, Purpose};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// The version and the commit that it was built from; build.rs finds the latter.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_COMMIT"), ")");

/// A realtime broker that sits beside an existing backend: Socket.IO, WebSocket and SSE clients in rooms, fed by HTTP
/// or Redis.
///
/// Settings come from flags, ROOMCAST_SECTION__KEY in the environment, conventional names (PORT, REDIS_URL, JWT_SECRET,
/// FRONTEND_URL …) and a TOML file, in this order. config.example.toml shows all of them.
#[derive(Parser)]
#[command(name = "roomcast", version = VERSION)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Default: serve
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Args)]
struct Common {
    /// The configuration file [default: $ROOMCAST_CONFIG, else ./roomcast.toml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen, like 0.0.0.0:8080; for commands that ask a running node, where it listens
    #[arg(long, global = true, value_name = "ADDR")]
    listen: Option<String>,
    /// Redis, like redis://127.0.0.1:6379/0; other processes can see flags, so set a password in the environment
    #[arg(long, global = true, value_name = "URL")]
    redis_url: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node until SIGTERM or SIGINT
    Serve,
    /// Run a node on a developer's machine: fills in throw-away keys, lets pages of localhost in, explains refusals
    ///
    /// Reads the .env beside the configuration too. The process's own variables win.
    Dev,
    /// Try it out: a chat page in the browser, with throw-away secrets
    ///
    /// With redis-server installed it runs three nodes on a Redis of its own, and the page can kill each of them. Else it is one
    /// node on the log in memory.
    Demo(demo::Arguments),
    /// Report all mistakes of the configuration, try Redis and the JWKS URL, and print the effective settings
    ///
    /// Secrets are masked. The last line says OK or not, on standard error and, as a comment, where standard output is piped. Exit code 0 when all is well, else 2.
    Check(check::Arguments),
    /// Sign a token with the configured secret
    ///
    /// It has `iat`, `exp`, and what the configuration requires (`issuer`, `audience`, `require`), so that a node with
    /// the same configuration accepts it.
    Token(token::Arguments),
    /// Publish one event to a running node
    ///
    /// Prints the node's answer, {"offset":"…"}, once the log has the event.
    Publish(publish::Arguments),
    /// End the sessions of a user and refuse their tokens of before, or one token, on every node
    ///
    /// Tokens that are issued after the answer are accepted. Without `--for` it lasts for `auth.revoke_for` (24h).
    Revoke(revoke::Arguments),
    /// Watch the nodes of the cluster: connections, rates, memory, how far behind the log
    Top(top::Arguments),
    /// List the nodes of the cluster: status, version, connections, how far behind the log
    Nodes(nodes::Arguments),
    /// List the rooms with members, over all nodes
    Rooms(rooms::Arguments),
    /// List the live sessions of all nodes, of a user or in a room, or show one in detail
    Sessions(sessions::Arguments),
    /// Tell why a user did or did not get an event in a room, over all nodes
    ///
    /// Without `--event`: whether the user is connected and in the room, and what decided on it.
    Explain(explain::Arguments),
    /// Follow live what happens to a user, a session or a room, over all nodes, without payloads and tokens
    ///
    /// Handshakes, refusals, joins, leaves, events in and out, closes, as they happen, until `trace.max_time` of the node is over.
    Trace(trace::Arguments),
    /// Follow live the events of a room, with how many sessions on which node received each
    Tail(trace::TailArguments),
    /// Send the clients of one node to the others, spread over some time; the process goes on until it is stopped
    Drain(drain::Arguments),
    /// Make a running node read its configuration again, and print what changed; SIGHUP does the same
    ///
    /// All or nothing: with a mistake the old configuration stays in force, and the exit code is 2. Each node is reloaded by
    /// itself.
    Reload(reload::Arguments),
    /// Write a commented roomcast.toml and a .env with fresh secrets; never overwrites
    ///
    /// With the name of a stack it also writes a helper for it, which publishes and answers roomcast's requests.
    Init(init::Arguments),
    /// Print the completions of a shell: bash, elvish, fish, powershell or zsh
    Completions(shell::Arguments),
    /// Print the man page
    Man,
    /// Ask a running node whether it is ready (for HEALTHCHECK): exit code 0 or 1
    Health(health::Arguments),
}

/// Why a command failed, for stderr, and its exit code.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Failed at run time: code 1.
    fn at_run_time(message: impl ToString) -> Self {
        Self { code: 1, message: message.to_string() }
    }

    /// The configuration is wrong: code 2.
    fn configuration(message: impl ToString) -> Self {
        Self { code: 2, message: message.to_string() }
    }

    /// Names the `.env` of `roomcast init` where it was not read: a shell does not do it by itself.
    fn with_unread_secrets(mut self) -> Self {
        if self.message.contains("JWT_SECRET") && std::path::Path::new(".env").exists() {
            self.message.push_str("\nthere is a .env here, which was not read: type `set -a; . ./.env; set +a` first, or use `roomcast dev`");
        }
        self
    }

    fn mistakes(mistakes: &[Mistake]) -> Self {
        let lines: String = mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect();
        let count = match mistakes.len() {
            1 => "a mistake".to_owned(),
            more => format!("{more} mistakes"),
        };
        Self::configuration(format!("the configuration has {count}:{lines}"))
    }
}

impl Common {
    /// As they were given, for another process of this program.
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                arguments.extend([name.into(), value]);
            }
        };
        add("--config", self.config.as_ref().map(Into::into));
        add("--listen", self.listen.as_ref().map(Into::into));
        add("--redis-url", self.redis_url.as_ref().map(Into::into));
        arguments
    }

    fn flags(self) -> Flags {
        Flags { config: self.config, listen: self.listen, redis_url: self.redis_url }
    }

    fn load(self, purpose: Purpose) -> Result<Config, Failure> {
        Config::load(&self.flags(), &Environment::of_process(), purpose)
            .map_err(|mistakes| Failure::mistakes(&mistakes))
            .map_err(|failure| failure.with_unread_secrets())
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    // Wrong usage ends here with code 2, `--help` and `--version` with 0.
    let Arguments { common, command } = Arguments::parse();
    let result = match command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(common),
        Command::Dev => dev::run(common),
        Command::Demo(arguments) => demo::run(common, &arguments),
        Command::Check(arguments) => check::run(common, &arguments),
        Command::Token(arguments) => token::run(common, arguments),
        Command::Publish(arguments) => publish::run(common, arguments),
        Command::Revoke(arguments) => revoke::run(common, arguments),
        Command::Top(arguments) => top::run(common, arguments),
        Command::Nodes(arguments) => nodes::run(common, arguments),
        Command::Rooms(arguments) => rooms::run(common, arguments),
        Command::Sessions(arguments) => sessions::run(common, arguments),
        Command::Explain(arguments) => explain::run(common, arguments),
        Command::Trace(arguments) => trace::run(common, arguments),
        Command::Tail(arguments) => trace::tail(common, arguments),
        Command::Drain(arguments) => drain::run(common, arguments),
        Command::Reload(arguments) => reload::run(common, arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Completions(arguments) => shell::completions(&arguments),
        Command::Man => shell::man(),
        Command::Health(arguments) => health::run(common, arguments),
    };
    crate::logging::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            warn(&format!("roomcast: {message}"));
            ExitCode::from(code)
        }
    }
}

/// Writes a line to stdout. A closed pipe (`| head`) is not an error.
fn say(line: &str) {
    let _ = is_read(line);
}

/// Writes a line to stdout. `false`: nobody reads it any more, so a command that goes on by itself ends.
fn is_read(line: &str) -> bool {
    writeln!(std::io::stdout(), "{line}").is_ok()
}

/// Writes a line to stderr.
fn warn(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs a short command's work on this thread.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| Failure::at_run_time(format!("no runtime: {error}")))?.block_on(work))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
