//! `roomcast init`.

use crate::cli::{Failure, say};
use crate::model::secret::random_text;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const CONFIG: &str = include_str!("init/roomcast.toml");
const BACKEND: &str = include_str!("init/backend.toml");

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    shape: Shape,
    /// The folder to write into
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct Shape {
    /// For an Express backend: also writes roomcast.mjs
    #[arg(long)]
    express: bool,
    /// For a Nest backend: also writes roomcast.ts
    #[arg(long)]
    nest: bool,
    /// For a Laravel backend, or any other PHP: also writes Roomcast.php
    #[arg(long)]
    laravel: bool,
    /// For a FastAPI backend: also writes roomcast_backend.py
    #[arg(long)]
    fastapi: bool,
    /// Without a backend that is asked (default)
    #[arg(long)]
    plain: bool,
}

/// The helper for a stack that roomcast asks by webhook.
struct Stack {
    /// The default address of its development server.
    url: &'static str,
    name: &'static str,
    text: &'static str,
}

impl Shape {
    fn stack(&self) -> Option<Stack> {
        let stack = |port, name, text| Some(Stack { url: port, name, text });
        match () {
            () if self.express => {
                stack("http://127.0.0.1:3000/roomcast", "roomcast.mjs", include_str!("init/express.mjs"))
            }
            () if self.nest => stack("http://127.0.0.1:3000/roomcast", "roomcast.ts", include_str!("init/nest.ts")),
            () if self.laravel => {
                stack("http://127.0.0.1:8000/roomcast", "Roomcast.php", include_str!("init/laravel.php"))
            }
            () if self.fastapi => {
                stack("http://127.0.0.1:8000/roomcast", "roomcast_backend.py", include_str!("init/fastapi.py"))
            }
            () => None,
        }
    }
}

/// A file to write; `private` ones contain secrets.
struct File {
    path: PathBuf,
    text: String,
    private: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let files = files(&arguments.dir, arguments.shape.stack());
    let taken: Vec<_> = files.iter().filter(|file| file.path.symlink_metadata().is_ok()).collect();
    if !taken.is_empty() {
        let names: Vec<_> = taken.iter().map(|file| file.path.display().to_string()).collect();
        let message = format!("{} exists already; nothing was written. Move it away, or use --dir", names.join(", "));
        return Err(Failure::at_run_time(message));
    }
    for file in &files {
        write(file).map_err(|error| Failure::at_run_time(format!("{}: {error}", file.path.display())))?;
        say(&format!("wrote {}", file.path.display()));
    }
    say("next: `roomcast dev`; in production `set -a; . ./.env; set +a`, then `roomcast check` and `roomcast serve`");
    Ok(())
}

fn files(dir: &Path, stack: Option<Stack>) -> Vec<File> {
    let mut secrets = vec![("JWT_SECRET", random_text()), ("ROOMCAST_PUBLISH__KEYS", random_text())];
    if stack.is_some() {
        secrets.push(("ROOMCAST_BACKEND__SECRET", random_text()));
    }
    let mut env =
        "# Secrets of roomcast and of your backend, written by `roomcast init`. Keep it out of git.\n".to_owned();
    for (name, value) in &secrets {
        env.push_str(&format!("{name}={value}\n"));
    }
    let mut files = vec![
        File { path: dir.join("roomcast.toml"), text: config(stack.as_ref()), private: false },
        File { path: dir.join(".env"), text: env, private: true },
    ];
    files.extend(stack.map(|stack| File { path: dir.join(stack.name), text: stack.text.into(), private: false }));
    files
}

fn config(stack: Option<&Stack>) -> String {
    let [backend, secret, join, comment] = match stack {
        Some(stack) => [
            &BACKEND.replace("{{url}}", stack.url),
            ", ROOMCAST_BACKEND__SECRET",
            "ask",
            "                           # your backend decides",
        ],
        None => ["", "", "allow", "                         # anybody with a token"],
    };
    CONFIG
        .replace("{{backend}}", backend)
        .replace("{{and_backend_secret}}", secret)
        .replace("{{join}}", join)
        .replace("{{join_comment}}", comment)
}

/// Never overwrites: the file must be new.
fn write(file: &File) -> std::io::Result<()> {
    if let Some(dir) = file.path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir)?;
    }
    let mode = if file.private { 0o600 } else { 0o644 };
    let mut opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&file.path)?;
    opened.write_all(file.text.as_bytes())
}
