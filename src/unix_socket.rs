//! Unix sockets, by which processes of one machine talk: their place in the file system, and their streams.

use std::fs::{self, Permissions};
use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use tokio::net::{TcpStream, UnixStream};

/// A stream as the rest of the program has them: the system calls that move bytes are the same for both kinds, so that a
/// connection need not know which it is.
///
/// # Errors
/// When it cannot be registered.
pub fn as_tcp(stream: UnixStream) -> io::Result<TcpStream> {
    TcpStream::from_std(StdStream::from(OwnedFd::from(stream.into_std()?)))
}

/// Connects to a socket.
///
/// # Errors
/// When nobody listens there.
pub async fn connect(path: &Path) -> io::Result<TcpStream> {
    as_tcp(UnixStream::connect(path).await?)
}

/// The file of a socket that this process listens on; removed when it is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number. Meanwhile the path may be somebody else's.
    file: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at a path, with the rights of `mode`. A socket that a process has left behind is replaced.
///
/// # Errors
/// `AddrInUse` when somebody listens there, `AlreadyExists` when something else than a socket is there, and those of the
/// file system.
pub fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file is there that is not a socket"));
        }
        Ok(_) if StdUnixStream::connect(path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => {}
    }
    // Bound beside its place, so that it has its rights before anybody finds it.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}", std::process::id()));
    let listener = UnixListener::bind(&unfinished)?;
    let placed = fs::set_permissions(&unfinished, Permissions::from_mode(mode))
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| fs::rename(&unfinished, path))
        .and_then(|()| fs::symlink_metadata(path));
    match placed {
        Ok(found) => Ok((listener, SocketFile { path: path.to_owned(), file: (found.dev(), found.ino()) })),
        Err(error) => {
            let _ = fs::remove_file(&unfinished);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_nothing_else() {
        let directory = std::env::temp_dir().join(format!("roomcast-unix-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("admin.sock");
        let (listener, file) = listen(&path, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(listen(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // As after a SIGKILL: the file stays, and nobody listens.
        std::mem::forget(file);
        drop(listener);
        let (_listener, file) = listen(&path, 0o600).unwrap();
        drop(file);
        assert!(!path.exists());
        fs::write(&path, "data").unwrap();
        assert_eq!(listen(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_dir_all(&directory).unwrap();
    }
}
