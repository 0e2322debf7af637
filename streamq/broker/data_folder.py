"""The folder of an embedded server: its locks, and paths short enough for a socket."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import threading
from pathlib import Path

from streamq.errors import ConfigurationError

LONGEST_SOCKET_PATH = 100  # bytes; sun_path holds 108 on Linux, 104 on macOS
PREFIX = "streamq-"

held: set[int] = set()  # descriptors of locks, which a forked child must not keep
handing_on = threading.local()  # .locks: those that the child of this thread's fork is to keep, a server


def data_folder(directory: str | Path) -> Path:
    folder = Path(directory).expanduser().resolve()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot keep the embedded server's data in {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"cannot keep the embedded server's data in {folder}: it is not writable")
    return folder


def short_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    if len(os.fsencode(folder / "redis.sock")) > LONGEST_SOCKET_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    return folder


def remove_socket_folder(path: Path) -> None:
    # Only what we can have made: a note from elsewhere must not name a folder to delete.
    folder = path.parent
    with contextlib.suppress(OSError):
        if folder.name.startswith(PREFIX) and folder.stat().st_uid == os.getuid():
            path.unlink(missing_ok=True)
            folder.rmdir()


def locked(path: Path, how: int) -> int | None:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    held.add(lock)
    try:
        fcntl.flock(lock, how)
    except BlockingIOError:
        unlock(lock)
        return None
    return lock


def unlock(lock: int | None) -> None:
    if lock is not None and lock in held:
        held.discard(lock)
        os.close(lock)


def owner_lives(folder: Path) -> bool:
    # Shared, so that two that ask at once do not take each other for the owner.
    lock = locked(folder / "owner.lock", fcntl.LOCK_SH | fcntl.LOCK_NB)
    unlock(lock)
    return lock is None


def last_words(folder: Path) -> str:
    try:
        return "\n".join((folder / "server.log").read_text(errors="replace").splitlines()[-8:])
    except OSError:
        return "(none)"


def _after_fork() -> None:
    # subprocess runs this too, when it is given a preexec_fn.
    kept: tuple[int, ...] = getattr(handing_on, "locks", ())
    for lock in held.difference(kept):
        unlock(lock)


os.register_at_fork(after_in_child=_after_fork)
