//! The socket: in a directory of ours, 0600 from the first moment, and never anybody else's.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
    process::{geteuid, umask},
};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The operating system says no.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Others can get at the directory.
    #[error("{path} is open to others (mode {mode:04o})", path = .path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The directory is somebody else's, or none.
    #[error("{path} is not a directory of yours", path = .path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody listens there.
    #[error("an agent answers at {path} already", path = .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{path} is there and is no socket that an agent of yours left behind", path = .path.display())]
    Foreign {
        /// What is there.
        path: PathBuf,
    },
}

/// A socket that is listened at; its file goes when this does.
#[derive(Debug)]
pub struct Bound {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: whatever is there in the end, only this one is removed.
    file: (u64, u64),
    /// Held as long as the agent lives; whoever removes a dead socket holds it too.
    _lock: File,
}

impl Bound {
    /// Returns what to listen at.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if identity(&self.path).is_some_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a socket at a path, whose directory is made if it is not there.
///
/// A socket that nobody listens at is removed if it is ours; anything else that is there stays.
///
/// # Errors
/// [`SocketError::Exposed`] and [`SocketError::NotOurs`] for the directory,
/// [`SocketError::InUse`] and [`SocketError::Foreign`] for what is there, and the operating
/// system's.
pub fn bind(path: &Path) -> Result<Bound, SocketError> {
    let at = |source: io::Error| SocketError::Io {
        path: path.into(),
        source,
    };
    // A path that the system cannot take is refused before anything is made.
    SocketAddrUnix::new(path).map_err(|errno| at(errno.into()))?;
    let parent = path
        .parent()
        .ok_or_else(|| SocketError::NotOurs { path: path.into() })?;
    ensure_private(parent)?;
    let lock = lock_beside(path)?;
    clear_the_way(path)?;
    // The directory keeps others out; the mask is for those who widen it.
    let mask = umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    umask(mask);
    let listener = bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => SocketError::Foreign { path: path.into() },
        _ => at(error),
    })?;
    let file = identity(path).ok_or_else(|| SocketError::Foreign { path: path.into() })?;
    Ok(Bound {
        listener,
        path: path.into(),
        file,
        _lock: lock,
    })
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn ensure_private(dir: &Path) -> Result<(), SocketError> {
    let at = |source| SocketError::Io {
        path: dir.into(),
        source,
    };
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(error)),
        _ => {}
    }
    let metadata = fs::symlink_metadata(dir).map_err(at)?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
        return Err(SocketError::NotOurs { path: dir.into() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SocketError::Exposed {
            path: dir.into(),
            mode,
        });
    }
    Ok(())
}

/// Two agents that find the same dead socket must not remove each other's new one.
fn lock_beside(path: &Path) -> Result<File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(&lock);
    let file = opened.map_err(|source| match Errno::from_io_error(&source) {
        Some(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {
            SocketError::Foreign { path: lock.clone() }
        }
        _ => SocketError::Io {
            path: lock.clone(),
            source,
        },
    })?;
    let ours = file
        .metadata()
        .is_ok_and(|file| file.is_file() && file.uid() == geteuid().as_raw() && file.nlink() == 1);
    if !ours {
        return Err(SocketError::Foreign { path: lock });
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(SocketError::InUse { path: path.into() }),
        Err(fs::TryLockError::Error(source)) => Err(SocketError::Io { path: lock, source }),
    }
}

/// Removes a socket of ours that nobody listens at. Anything else in the way is refused.
fn clear_the_way(path: &Path) -> Result<(), SocketError> {
    let foreign = || SocketError::Foreign { path: path.into() };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(SocketError::Io {
                path: path.into(),
                source,
            });
        }
        Ok(metadata) => metadata,
    };
    let ours = metadata.file_type().is_socket() && metadata.uid() == geteuid().as_raw();
    if !ours {
        return Err(foreign());
    }
    if is_alive(path) {
        return Err(SocketError::InUse { path: path.into() });
    }
    if identity(path) != Some((metadata.dev(), metadata.ino())) {
        return Err(foreign());
    }
    fs::remove_file(path).map_err(|source| SocketError::Io {
        path: path.into(),
        source,
    })
}

/// Only a socket that refuses is dead; of one that is busy, or of another kind, nothing is known.
fn is_alive(path: &Path) -> bool {
    let tried = SocketAddrUnix::new(path).and_then(|address| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(probe.as_fd(), &address)
    });
    tried != Err(Errno::CONNREFUSED)
}
