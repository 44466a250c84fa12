//! Files that are never half there, never wider than their owner, and never somebody else's.
//!
//! A file is born 0600 under a name of its own, written, fsynced, read back, renamed, and its
//! directory fsynced. Nothing of the keystore is opened through a link.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, OFlags, RenameFlags, renameat_with},
    io::Errno,
    process::geteuid,
};
use zeroize::Zeroizing;

use super::Error;
use crate::secret::append;

/// Attaches a path to an error of the operating system.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.into(),
        source,
    }
}

/// What else a file must be before it is believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trust {
    /// It lies in the keystore: a plain file, and as [`Private`](Self::Private) says.
    Ours,
    /// Nobody but its owner may read it, and its owner is us.
    Private,
    /// The service manager put it there for us: root owns it, and a list of access rights, which
    /// shows as rights of the group, lets us read it (systemd, `LoadCredentialEncrypted=`).
    Credential,
    /// It holds nothing secret and says what is to be done: a plain file or an open descriptor that
    /// not everybody may write.
    Orders,
    /// It holds nothing secret and may lie anywhere.
    Public,
}

/// Returns the content of a file of at most `limit` bytes that somebody named.
///
/// A link is followed, as the name is the user's own; owner and mode are those of what it leads
/// to. A pipe is read to its end and not looked at twice: process substitution gives one.
///
/// # Errors
/// [`Error::Exposed`], [`Error::Foreign`], [`Error::TooLarge`], [`Error::NotAFile`], or the
/// operating system's.
pub fn read(path: &Path, limit: usize, trust: Trust) -> Result<Zeroizing<Vec<u8>>, Error> {
    if trust == Trust::Ours {
        return read_ours(path, limit);
    }
    // What comes through a pipe with a name can come from whoever may write to it; an open
    // descriptor is nobody else's.
    let descriptor = path.starts_with("/dev/fd") || path == Path::new("/dev/stdin");
    let file = if path == Path::new("/dev/stdin") {
        // Not opened anew: a socket cannot be, and some languages start programs with one.
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        stdin.map_err(at(path))?.into()
    } else {
        let flags = match trust {
            // A pipe with a name is refused below, and must not make us wait for its other end.
            Trust::Orders if !descriptor => OFlags::NONBLOCK,
            _ => OFlags::empty(),
        };
        open(OpenOptions::new().read(true), path, flags)?
    };
    let metadata = file.metadata().map_err(at(path))?;
    let misplaced = trust == Trust::Orders && !metadata.is_file() && !descriptor;
    if metadata.is_dir() || misplaced {
        return Err(Error::NotAFile { path: path.into() });
    }
    if metadata.is_file() || (metadata.file_type().is_fifo() && !descriptor) {
        match trust {
            Trust::Credential if metadata.uid() == 0 => check_mode(path, &metadata, 0o007)?,
            Trust::Private | Trust::Credential => {
                check_owner_and_mode(path, &metadata)?;
                check_neighbourhood(path)?;
            }
            Trust::Orders => check_mode(path, &metadata, 0o002)?,
            Trust::Ours | Trust::Public => {}
        }
    }
    read_to_limit(&file, path, limit)
}

/// Returns a file inside the store; a link, pipe or device in its place is refused.
///
/// # Errors
/// As [`read`].
pub(super) fn read_ours(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    read_to_limit(look_into(path)?, path, limit)
}

/// Opens a file inside the store for reading; a link, pipe or device in its place is refused.
pub(super) fn look_into(path: &Path) -> Result<File, Error> {
    // Non-blocking, so that a planted pipe cannot make us wait for its other end.
    let file = open(
        OpenOptions::new().read(true),
        path,
        OFlags::NOFOLLOW | OFlags::NONBLOCK,
    )?;
    let metadata = file.metadata().map_err(at(path))?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.into() });
    }
    check_owner_and_mode(path, &metadata)?;
    Ok(file)
}

/// Reads what is open, at `path` or called so, up to a limit, into a buffer that is wiped.
///
/// # Errors
/// [`Error::TooLarge`], and the operating system's.
pub fn read_to_limit(
    file: impl Read,
    path: &Path,
    limit: usize,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut bytes = Zeroizing::new(Vec::new());
    let mut file = file.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1));
    let mut chunk = Zeroizing::new([0; 4096]);
    loop {
        match file.read(&mut *chunk) {
            Ok(0) => break,
            Ok(n) => append(&mut bytes, chunk.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(at(path)(error)),
        }
    }
    if bytes.len() > limit {
        return Err(Error::TooLarge {
            path: path.into(),
            limit,
        });
    }
    Ok(bytes)
}

fn open(options: &mut OpenOptions, path: &Path, flags: OFlags) -> Result<File, Error> {
    let flags = i32::try_from((flags | OFlags::CLOEXEC).bits()).unwrap_or_default();
    options.custom_flags(flags).open(path).map_err(|source| {
        // A link, a directory opened for writing, a pipe that nobody reads, a socket.
        match Errno::from_io_error(&source) {
            Some(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => Error::NotAFile { path: path.into() },
            _ => at(path)(source),
        }
    })
}

fn check_owner_and_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    if metadata.uid() != geteuid().as_raw() {
        return Err(Error::Foreign {
            path: path.into(),
            owner: metadata.uid(),
        });
    }
    check_mode(path, metadata, 0o077)
}

fn check_mode(path: &Path, metadata: &fs::Metadata, closed: u32) -> Result<(), Error> {
    let mode = metadata.mode() & 0o7777;
    if mode & closed == 0 {
        return Ok(());
    }
    Err(Error::Exposed {
        path: path.into(),
        mode,
    })
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Refuses a file whose directory lets anybody put another in its place.
pub(super) fn check_neighbourhood(path: &Path) -> Result<(), Error> {
    const STICKY: u32 = 0o1000;
    let parent = parent_of(path);
    let mode = fs::metadata(parent).map_err(at(parent))?.mode() & 0o7777;
    if mode & 0o002 != 0 && mode & STICKY == 0 {
        return Err(Error::Exposed {
            path: parent.into(),
            mode,
        });
    }
    Ok(())
}

/// Checks that a directory is one, is ours, and is closed to everybody else.
pub(super) fn check_dir(path: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).map_err(at(path))?;
    if !metadata.is_dir() {
        return Err(Error::NotADirectory { path: path.into() });
    }
    check_owner_and_mode(path, &metadata)
}

/// Makes a directory 0700 that must not be there yet; whoever fills it syncs what it is in.
pub(super) fn new_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Makes a directory 0700 that lasts, unless there is one.
pub(super) fn make_dir(path: &Path) -> Result<(), Error> {
    match new_dir(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(at(path)(error)),
    }
}

/// Makes a directory 0700, or checks the one that is there.
pub(super) fn ensure_dir(path: &Path) -> Result<(), Error> {
    make_dir(path)?;
    check_dir(path)
}

/// Makes a directory 0700 whose name nobody has, hidden beside `target`.
pub(super) fn staging_dir(target: &Path) -> Result<PathBuf, Error> {
    fresh_name(target, new_dir).map(|(path, ())| path)
}

/// Makes something under a hidden name beside `target` that nobody has.
pub(super) fn fresh_name<T>(
    target: &Path,
    create: impl Fn(&Path) -> io::Result<T>,
) -> Result<(PathBuf, T), Error> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    for n in 0..1000 {
        let path = target.with_file_name(format!(".{name}.{}-{n}.new", std::process::id()));
        match create(&path) {
            Ok(made) => return Ok((path, made)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at(&path)(error)),
        }
    }
    Err(Error::Exists {
        path: target.into(),
    })
}

/// Writes a file, readable by its owner alone, that must not be there yet.
///
/// # Errors
/// [`Error::Exists`], [`Error::NotWritten`], and those of the file system.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    place_new(path, bytes)?;
    sync_parent(path).inspect_err(|_| {
        // It is not said to be there, so it must not be.
        let _ = fs::remove_file(path);
    })
}

/// As [`write_new`], for one of several: its directory is synced when they are all there.
pub(super) fn place_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let draft = Draft::write(path, bytes)?;
    rename_new(&draft.path, path)?;
    draft.keep();
    Ok(())
}

/// Writes a file, taking the place of the one that is there in one step.
///
/// Never used on a private key. Whoever reads the file reads no more than `limit` bytes of it.
pub(super) fn replace(path: &Path, bytes: &[u8], limit: usize) -> Result<(), Error> {
    if bytes.len() > limit {
        return Err(Error::Overlong {
            path: path.into(),
            length: bytes.len(),
            limit,
        });
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(Error::NotAFile { path: path.into() }),
        Ok(metadata) => check_owner_and_mode(path, &metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(path)(error)),
    }
    let draft = Draft::write(path, bytes)?;
    rename_over(&draft.path, path)?;
    draft.keep();
    sync_parent(path)
}

/// Renames in the place of what is there.
pub(super) fn rename_over(from: &Path, to: &Path) -> Result<(), Error> {
    in_place(from, to, || fs::rename(from, to).map_err(at(to)))
}

/// Renames, and looks whether it is so: a disk can say yes and mean no.
fn in_place(
    from: &Path,
    to: &Path,
    rename: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let inode = |path| fs::symlink_metadata(path).map(|metadata| metadata.ino());
    let moved = inode(from).map_err(at(from))?;
    rename()?;
    if inode(to).ok() == Some(moved) {
        Ok(())
    } else {
        Err(Error::NotWritten { path: to.into() })
    }
}

/// Renames without ever taking another's place.
pub(super) fn rename_new(from: &Path, to: &Path) -> Result<(), Error> {
    in_place(from, to, || {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST | Errno::NOTEMPTY) => Err(Error::Exists { path: to.into() }),
            // Not every file system knows the flag (NFS).
            Err(Errno::INVAL | Errno::NOSYS) => rename_without_flag(from, to),
            Err(error) => Err(at(to)(error.into())),
        }
    })
}

/// A link takes no other's place, and no directory that of one with something in it.
fn rename_without_flag(from: &Path, to: &Path) -> Result<(), Error> {
    let exists = || Error::Exists { path: to.into() };
    if from.is_dir() {
        return match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Err(exists()),
            result => result.map_err(at(to)),
        };
    }
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from).map_err(at(from)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists()),
        Err(error) => Err(at(to)(error)),
    }
}

/// Makes what happened in a directory last.
pub(super) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = parent_of(path);
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(at(parent))
}

/// Opens a file of ours for locking or appending, making it 0600 when it is not there.
pub(super) fn open_ours(path: &Path, options: &mut OpenOptions) -> Result<File, Error> {
    let options = options.create(true).mode(0o600);
    let file = open(options, path, OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
    let metadata = file.metadata().map_err(at(path))?;
    // With a second name, what is appended would turn up in somebody's file.
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(Error::NotAFile { path: path.into() });
    }
    check_owner_and_mode(path, &metadata)?;
    Ok(file)
}

/// A file under a name of its own, gone again unless it is kept.
pub(super) struct Draft {
    pub(super) path: PathBuf,
    kept: bool,
}

impl Draft {
    /// Writes, fsyncs and reads back.
    pub(super) fn write(target: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or_default();
        let create = |path: &Path| {
            let mut options = OpenOptions::new();
            options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(flags)
                .open(path)
        };
        let (path, mut file) = fresh_name(target, create)?;
        let draft = Self { path, kept: false };
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(at(&draft.path))?;
        drop(file);
        // A disk can say yes and mean no.
        let written = read_ours(&draft.path, bytes.len())?;
        if *written != bytes {
            return Err(Error::NotWritten {
                path: draft.path.clone(),
            });
        }
        Ok(draft)
    }

    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::{
        fd::AsRawFd,
        unix::fs::{PermissionsExt, chown},
    };

    use super::*;

    #[test]
    fn nothing_takes_anothers_place_where_the_file_system_cannot_promise_it() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        let there = |name: &str| path(name).exists();
        fs::write(path("old"), "old").unwrap();
        fs::write(path("new"), "new").unwrap();
        for dir in ["full", "staged"] {
            fs::create_dir(path(dir)).unwrap();
            fs::write(path(dir).join("key"), dir).unwrap();
        }
        for (from, taken, free) in [("new", "old", "file"), ("staged", "full", "dir")] {
            let refused = rename_without_flag(&path(from), &path(taken));
            assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
            let nowhere = rename_without_flag(&path(from), &path("none").join(free));
            assert!(matches!(nowhere, Err(Error::Io { .. })), "{nowhere:?}");
            assert!(there(from) && !there(free));
            rename_without_flag(&path(from), &path(free)).unwrap();
            assert!(there(free) && !there(from));
        }
        assert_eq!(fs::read(path("old")).unwrap(), b"old");
        assert_eq!(fs::read(path("full").join("key")).unwrap(), b"full");
    }

    #[test]
    fn what_does_not_come_to_its_place_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        write_new(&path, b"first").unwrap();
        let taken = write_new(&path, b"second");
        assert!(matches!(taken, Err(Error::Exists { .. })), "{taken:?}");
        let dir = replace(home.path(), b"second", 6);
        assert!(matches!(dir, Err(Error::NotAFile { .. })), "{dir:?}");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_device_is_read_whatever_its_mode() {
        assert!(read(Path::new("/dev/null"), 9, Trust::Private).is_ok());
    }

    #[test]
    fn a_name_that_is_taken_is_passed_over_and_no_other_failure_is() {
        let home = tempfile::tempdir().unwrap();
        let create = |path: &Path| File::create_new(path);
        let (first, _) = fresh_name(&home.path().join("key"), create).unwrap();
        let (second, _) = fresh_name(&home.path().join("key"), create).unwrap();
        assert_ne!(first, second);
        let nowhere = fresh_name(&home.path().join("none/key"), create);
        assert!(matches!(nowhere, Err(Error::Io { .. })), "{nowhere:?}");
    }

    #[test]
    fn only_roots_credential_may_show_rights_of_a_group() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("credential");
        fs::write(&path, "x").unwrap();
        let may = |mode, trust| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path, 9, trust).is_ok()
        };
        let root = geteuid().is_root();
        assert!(may(0o400, Trust::Credential) && may(0o400, Trust::Private));
        assert_eq!(may(0o440, Trust::Credential), root);
        assert!(!may(0o444, Trust::Credential) && !may(0o440, Trust::Private));
        if root {
            chown(&path, Some(1), None).unwrap();
            assert!(!may(0o440, Trust::Credential) && !may(0o400, Trust::Credential));
        }
    }

    #[test]
    fn orders_that_come_through_a_descriptor_are_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        let slow = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            writer.write_all(b"x").unwrap();
        });
        let bytes = read(Path::new(&path), 9, Trust::Orders).unwrap();
        assert_eq!(*bytes, b"x");
        slow.join().unwrap();
    }

    /// As a file is while a signal arrives in the middle of a reading.
    struct Interrupted(std::vec::IntoIter<Option<u8>>);

    impl Read for Interrupted {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            match self.0.next() {
                None => Ok(0),
                Some(None) => Err(io::ErrorKind::Interrupted.into()),
                Some(Some(byte)) => [byte].as_slice().read(room),
            }
        }
    }

    #[test]
    fn a_signal_does_not_end_the_reading() {
        let file = Interrupted(vec![None, Some(b'a'), None, None, Some(b'b'), None].into_iter());
        let read = read_to_limit(file, Path::new("pipe"), 2).unwrap();
        assert_eq!(**read, *b"ab");
    }

    #[test]
    fn what_cannot_be_read_ends_the_reading() {
        let dir = File::open("/").unwrap();
        let refused = read_to_limit(&dir, Path::new("/"), 1);
        assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    }
}
