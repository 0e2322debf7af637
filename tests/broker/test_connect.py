"""URLs, lines and what is suitable, on both kinds of server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis import exceptions as refused

from streamq.broker.connect import (
    Address,
    Connections,
    Line,
    describe,
    is_transient,
    redact,
)
from streamq.broker.embedded import EmbeddedServer, find_server
from streamq.broker.suitability import suitable
from streamq.errors import BrokerError, ConfigurationError, UnsuitableServer

REDIS = shutil.which("redis-server")
PROGRAMS = {path.name: path for path in (find_server(), *([Path(REDIS)] if REDIS else []))}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Tcp:
    """A server on a TCP port of this machine."""

    def __init__(self, program: Path, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = free_port()
        listen = ["--port", str(self.port)] if port is None else ["--port", "0", "--tls-port", str(self.port)]
        command = [str(program), *listen, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 10
        while not answers(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.process.communicate()[0].decode())
            time.sleep(0.005)

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def tcp(tmp_path: Path) -> Iterator[Callable[..., Tcp]]:
    servers: list[Tcp] = []

    def start(program: Path, *options: str, port: int | None = None) -> Tcp:
        servers.append(Tcp(program, tmp_path, *options, port=port))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module", params=PROGRAMS)
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(binary=PROGRAMS[request.param]) as started:
        yield started


@pytest.fixture
async def connections(server: EmbeddedServer) -> AsyncIterator[Connections]:
    opened = Connections(server.url)
    await opened.open()
    yield opened
    await opened.close()


# URLs


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:6379/0", "redis://user:***@host:6379/0"),
        ("redis://:secret@host", "redis://:***@host"),
        ("redis://secret@host", "redis://***@host"),
        ("redis://host/1", "redis://host/1"),
        ("redis://u:sec/ret@host", "redis://u:***@host"),
        ("redis://u:sec?ret@host", "redis://u:***@host"),
        ("redis://u:secret@@host:x/y", "redis://u:***@host:x/y"),
        ("unix:///run/r.sock?password=secret&db=1", "unix:///run/r.sock?password=***&db=1"),
        ("rediss://h?ssl_password=secret", "rediss://h?ssl_password=***"),
        ("redis://[::1:secret@host", "redis://:***@host"),
        ("", ""),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_addresses() -> None:
    address = Address.parse("redis://us%40er:p%2Fw@example.com:7000/3")
    assert (address.host, address.port, address.db) == ("example.com", 7000, 3)
    assert (address.username, address.password) == ("us@er", "p/w")
    assert Address.parse("redis://[::1]").host == "::1"
    assert Address.parse("redis://localhost?db=4").db == 4
    assert Address.parse("unix:///run/a%20b.sock?db=2").path == "/run/a b.sock"
    assert Address.parse("embedded://").path == ""
    assert Address.parse("embedded:///var/lib/app").path == "/var/lib/app"
    assert Address.parse("rediss://h").verify
    assert not Address.parse("rediss://h?ssl_cert_reqs=none&insecure=true").verify
    assert Address.parse("rediss://h?ssl_ca_certs=/ca.pem").ca_certs == "/ca.pem"
    assert "p%2Fw" not in repr(address) + str(address)


def test_addresses_of_several_hosts() -> None:
    address = Address.parse("redis+sentinel://u:p%40w@one,two:7000,[::1]:7001/shop/2?sentinel_password=s3cret")
    assert address.hosts == (("one", 26379), ("two", 7000), ("::1", 7001))
    assert (address.service, address.db, address.username, address.password) == ("shop", 2, "u", "p@w")
    assert (address.sentinel_password, "s3cret" in repr(address)) == ("s3cret", False)
    found = address.at("10.0.0.7", 6379)
    assert (str(found), found.password, found.hosts) == ("redis://10.0.0.7:6379/2", "p@w", ())
    shards = Address.parse("rediss+cluster://one,two:7000?ssl_ca_certs=/ca.pem")
    assert shards.hosts == (("one", 6379), ("two", 7000))
    assert (shards.at("::1", 7001).url, shards.at("::1", 7001).ca_certs) == ("rediss://[::1]:7001/0", "/ca.pem")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://u:secret@host", "scheme must be one of redis://"),
        ("localhost:6379", "scheme must be one of"),
        ("redis://u:secret@host:port", "port"),
        ("redis://u:secret@host:70000", "port"),
        ("redis://u:secret@host/zero", "database"),
        ("redis://u:secret@host/-1", "database"),
        ("redis://u:secret@host?timeout=3", "unknown option timeout"),
        ("redis://[::1", "no URL"),
        ("rediss://u:secret@host?ssl_cert_reqs=none", "insecure=true"),
        ("unix://", "names no socket"),
        ("unix://run/redis.sock", "absolute"),
        ("embedded://data", "absolute"),
        ("embedded:///", "temporary"),
        ("redis://u:secret@one,two/0", "several hosts"),
        ("redis+sentinel://u:secret@host", "does not name the master"),
        ("redis+sentinel://u:secret@host//0", "does not name the master"),
        ("redis+sentinel://u:secret@one,,two/main", "an empty host"),
        ("redis+sentinel://u:secret@host/main/zero", "database"),
        ("rediss+sentinel://u:secret@host/main?ssl_cert_reqs=none", "insecure=true"),
        ("redis+cluster://u:secret@one,two:70000", "port"),
        ("redis+cluster://u:secret@host/1", "one database"),
        ("redis+cluster://u:secret@host?ssl_ca_certs=x", "unknown option ssl_ca_certs"),
    ],
)
def test_unusable_urls_are_refused_with_an_example(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        Address.parse(url)
    assert "Example: " in str(caught.value)
    assert "secret" not in str(caught.value)


# Lines


async def test_replies_are_raw(connections: Connections) -> None:
    line = connections.line()
    assert await line.call("SET", "k", b"\xff\x00") == b"OK"
    assert await line.call(b"GET", "k") == b"\xff\x00"
    assert await line.call("INCR", "n") == 1
    assert await line.call("GET", "none") is None
    assert await line.call("EVAL", "return {1,{'a'},false}", 0) == [1, [b"a"], None]
    assert await line.call("ECHO", "x" * 1_000_000) == b"x" * 1_000_000


async def test_a_refusal_keeps_the_connection(connections: Connections) -> None:
    line = connections.line()
    with pytest.raises(refused.ResponseError):
        await line.call("NONSENSE")
    with pytest.raises(refused.NoScriptError):
        await line.call("EVALSHA", "0" * 40, 0)
    assert await line.call("PING") == b"PONG"
    assert line.connected == 1


async def test_a_late_reply_fails_the_calls_behind_it_too(connections: Connections) -> None:
    """Whether they were carried out is unknown; each of them may be sent again by who sent it."""
    line = connections.line()
    await line.call("PING")
    late = asyncio.create_task(line.call("BLPOP", "nothing", 0, timeout=0.05))
    behind = asyncio.create_task(line.call("PING", timeout=5))
    with pytest.raises(refused.TimeoutError, match="BLPOP"):
        await late
    with pytest.raises(refused.ConnectionError, match="closed while a command was under way"):
        await behind
    assert await asyncio.gather(*(line.call("ECHO", i) for i in range(5))) == [b"%d" % i for i in range(5)]
    assert line.connected == 2


async def test_replies_that_nobody_asked_for_end_the_connection() -> None:
    ended: list[asyncio.Event] = []

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.Event())
        while command := await reader.read(1000):
            writer.write(b"+PONG\r\n" * (3 if b"PING" in command else command.count(b"SETINFO")))
        writer.close()
        ended[-1].set()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        connections = Connections(f"redis://127.0.0.1:{port}/0")
        line = connections.line()
        assert await line.call("PING", timeout=1) == b"PONG"
        assert await line.call("PING", timeout=1) == b"PONG"
        assert line.connected == 2
        await connections.close()
        await asyncio.gather(*(each.wait() for each in ended))


async def test_concurrent_calls_take_turns(connections: Connections) -> None:
    line = connections.line()
    replies = await asyncio.gather(*(line.call("ECHO", i) for i in range(200)))
    assert replies == [b"%d" % i for i in range(200)]
    assert line.connected == 1


async def test_a_cancelled_call_never_leaves_its_reply_to_another(connections: Connections) -> None:
    line = connections.line()
    dice = random.Random(7)
    answered = cancelled = 0

    async def echo(tag: str) -> None:
        assert await line.call("ECHO", tag) == tag.encode()

    for turn in range(400):
        calls = [asyncio.create_task(echo(f"{turn}-{i}")) for i in range(3)]
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        dice.choice(calls).cancel()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            answered += outcome is None
            cancelled += isinstance(outcome, asyncio.CancelledError)
    assert answered + cancelled == 1200
    assert cancelled > 100  # some were under way
    assert line.connected == 1  # nobody else had to pay for it


async def test_a_late_reply_is_given_up(connections: Connections) -> None:
    line = connections.line()
    await line.call("PING", timeout=60)
    began = time.monotonic()
    with pytest.raises(refused.TimeoutError, match=r"BLPOP: no reply within 0\.05 seconds"):
        await line.call("BLPOP", "nothing", 0, timeout=0.05)
    assert time.monotonic() - began < 1
    assert await line.call("ECHO", "mine") == b"mine"
    assert line.connected == 2
    # A shorter call before a longer one: the alarm of the first must not end the second.
    await line.call("PING", timeout=0.02)
    assert await line.call("BLPOP", "nothing", "0.2", timeout=5) is None
    assert await line.call("BLPOP", "nothing", "0.1", timeout=None) is None
    assert line.connected == 2


async def test_a_stopped_server_is_given_up_in_the_middle_of_writing() -> None:
    with EmbeddedServer.start() as server:
        connections = Connections(server.url)
        line = connections.line()
        await line.call("PING")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(refused.TimeoutError):
                await line.call("SET", "k", b"x" * 20_000_000, timeout=0.2)
            await asyncio.wait_for(connections.close(), 1)
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def test_a_connection_that_the_server_closed_is_replaced(connections: Connections) -> None:
    line, other = connections.line(), connections.line()
    number = await line.call("CLIENT", "ID")
    assert isinstance(number, int)
    assert await other.call("CLIENT", "KILL", "ID", number) == 1
    # Until this process has seen the end: from then on nothing is sent in vain.
    with contextlib.suppress(refused.ConnectionError):
        await line.call("PING")
    assert await line.call("PING") == b"PONG"
    assert line.connected == 2


async def test_closing_ends_a_call_and_refuses_the_next(connections: Connections) -> None:
    line = connections.line()
    await line.call("PING")
    waiting = asyncio.create_task(line.call("BLPOP", "nothing", 0, timeout=None))
    other = connections.line()
    while b"cmd=blpop" not in (reply := await other.call("CLIENT", "LIST")):
        assert isinstance(reply, bytes)
    await line.close()
    await line.close()
    with pytest.raises(refused.ConnectionError):
        await waiting
    with pytest.raises(BrokerError, match="closed"):
        await line.call("PING")


async def test_a_forked_child_refuses_the_parents_line(connections: Connections) -> None:
    line = connections.line()
    await line.call("PING")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            line.call("ECHO", "child").send(None)
            os.write(write, b"sent")
        except BrokerError as error:
            line_closed = line.close()
            try:
                line_closed.send(None)
            except StopIteration:
                os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert b"forked child" in os.read(read, 1000)
    os.close(read)
    os.close(write)
    assert await line.call("ECHO", "parent") == b"parent"
    assert line.connected == 1


async def test_connecting_says_little(connections: Connections) -> None:
    line = connections.line()
    before = await line.call("INFO", "commandstats")
    await connections.line().call("PING")
    after = await line.call("INFO", "commandstats")
    assert isinstance(before, bytes)
    assert isinstance(after, bytes)
    for unwanted in (b"hello", b"maint", b"select"):
        assert unwanted not in after


# The other connections


async def test_the_blocking_client_is_raw_too(connections: Connections) -> None:
    client = connections.sync_client()
    replies: list[object] = []
    thread = threading.Thread(
        target=lambda: replies.extend([client.execute_command("SET", "a", 1), client.execute_command("TIME")])
    )
    thread.start()
    await asyncio.to_thread(thread.join)
    assert replies[0] == b"OK"
    assert isinstance(replies[1], list)
    assert isinstance(replies[1][0], bytes)
    client.close()


async def test_subscriptions_are_raw_and_come_back(connections: Connections) -> None:
    subscription, line = connections.pubsub(), connections.line()
    await subscription.subscribe("bell")
    assert (await subscription.get_message(timeout=5))["type"] == "subscribe"
    await line.call("PUBLISH", "bell", b"\xff")
    assert (await subscription.get_message(timeout=5))["data"] == b"\xff"
    await line.call("CLIENT", "KILL", "TYPE", "pubsub")
    with pytest.raises(refused.ConnectionError):
        await subscription.get_message(timeout=5)
    assert (await subscription.get_message(timeout=5))["type"] == "subscribe"
    assert await line.call("PUBLISH", "bell", "again") == 1


async def test_embedded_urls(tmp_path: Path) -> None:
    connections = Connections(f"embedded://{tmp_path}/data")
    with pytest.raises(BrokerError, match="open the application"):
        connections.line()
    await asyncio.gather(connections.open(), connections.open())
    child = Connections(connections.url_for_children)
    assert connections.url_for_children.startswith("unix://")
    assert await connections.line().call("SET", "k", "v") == b"OK"
    assert await child.line().call("GET", "k") == b"v"
    await child.close()
    again = Connections(f"embedded://{tmp_path}/data")
    await again.open()
    await connections.close()
    assert await again.line().call("GET", "k") == b"v"
    await again.close()
    await again.close()


def server_threads() -> int:
    return sum(thread.name == "streamq-embedded" for thread in threading.enumerate())


async def test_a_cancelled_open_leaves_no_server() -> None:
    connections = Connections("embedded://")
    before = server_threads()
    opening = asyncio.create_task(connections.open())
    while server_threads() == before:
        await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    while server_threads() > before:
        await asyncio.sleep(0.001)


# TCP, passwords, TLS


@pytest.mark.parametrize("name", PROGRAMS)
async def test_tcp_with_a_password(tcp: Callable[..., Tcp], name: str) -> None:
    server = tcp(PROGRAMS[name], "--requirepass", "s3cret@/")
    right = Connections(f"redis://:s3cret%40%2F@127.0.0.1:{server.port}/2")
    assert "s3cret" not in repr(right) + repr(right.line())
    line = right.line()
    assert b"db=2" in cast_bytes(await line.call("CLIENT", "INFO"))
    assert right.sync_client().execute_command("PING") == b"PONG"
    await right.close()
    for url in (f"redis://:wrong@127.0.0.1:{server.port}", f"redis://127.0.0.1:{server.port}"):
        wrong = Connections(url)
        with pytest.raises(refused.RedisError) as caught:
            await wrong.line().call("PING")
        assert not is_transient(caught.value)
        assert "user name or password" in describe(caught.value, url)
        await wrong.close()


def cast_bytes(reply: object) -> bytes:
    assert isinstance(reply, bytes)
    return reply


async def test_nobody_there(tmp_path: Path) -> None:
    for url, cause in [
        (f"redis://:secret@127.0.0.1:{free_port()}", "refused"),
        (f"unix://{tmp_path}/none.sock", "no such socket"),
    ]:
        connections = Connections(url)
        line = connections.line()
        with pytest.raises(refused.ConnectionError) as caught:
            await line.call("PING")
        assert is_transient(caught.value)
        assert cause in describe(caught.value, url)
        assert "secret" not in describe(caught.value, url)
        assert line.connected == 0
        await connections.close()


def certificate(folder: Path, host: str) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout key.pem"
    subject = ["-out", f"{host}.pem", "-subj", "/CN=streamq", "-addext", f"subjectAltName={host}"]
    subprocess.run([*command.split(), *subject], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def tls(tcp: Callable[..., Tcp], tmp_path: Path) -> Callable[[str], Tcp]:
    if REDIS is None or shutil.which("openssl") is None:
        pytest.skip("redis-server or openssl is not installed")

    def start(host: str) -> Tcp:
        certificate(tmp_path, host)
        files = ["--tls-cert-file", f"{tmp_path}/{host}.pem", "--tls-key-file", f"{tmp_path}/key.pem"]
        try:
            return tcp(Path(REDIS), *files, "--tls-auth-clients", "no", port=0)
        except RuntimeError as error:
            if "tls-port" not in str(error):
                raise
            pytest.skip("this redis-server was built without TLS")

    return start


async def test_tls_is_verified_on_every_kind_of_connection(tls: Callable[[str], Tcp], tmp_path: Path) -> None:
    server = tls("IP:127.0.0.1")
    base = f"rediss://127.0.0.1:{server.port}"
    for good in (
        f"{base}?ssl_ca_certs={tmp_path}/IP:127.0.0.1.pem",
        f"{base}?ssl_cert_reqs=none&insecure=true",
    ):
        connections = Connections(good)
        assert await connections.line().call("PING") == b"PONG"
        assert connections.sync_client().execute_command("PING") == b"PONG"
        subscription = connections.pubsub()
        await subscription.subscribe("bell")
        assert await subscription.get_message(timeout=5)
        await connections.close()
    await refuses_the_certificate(base)


async def test_tls_refuses_another_host(tls: Callable[[str], Tcp], tmp_path: Path) -> None:
    server = tls("DNS:elsewhere.example")
    await refuses_the_certificate(f"rediss://127.0.0.1:{server.port}?ssl_ca_certs={tmp_path}/DNS:elsewhere.example.pem")


async def refuses_the_certificate(url: str) -> None:
    connections = Connections(url)
    with pytest.raises(refused.ConnectionError) as caught:
        await connections.line().call("PING")
    assert "certificate" in describe(caught.value, url)
    assert not is_transient(caught.value)
    with pytest.raises(refused.ConnectionError):
        connections.sync_client().execute_command("PING")
    with pytest.raises(refused.ConnectionError):
        await connections.pubsub().subscribe("bell")
    await connections.close()


async def test_tls_to_a_plain_port(tcp: Callable[..., Tcp], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamq.broker.line.CONNECT_TIMEOUT", 0.2)  # the server waits for more
    server = tcp(find_server())
    url = f"rediss://127.0.0.1:{server.port}"
    connections = Connections(url)
    with pytest.raises(refused.TimeoutError) as caught:
        await connections.line().call("PING")
    assert "speak TLS" in describe(caught.value, url)
    await connections.close()


# Suitable servers


async def test_both_kinds_of_server_are_suitable(server: EmbeddedServer, connections: Connections) -> None:
    line = connections.line()
    facts = await suitable(line)
    assert len(facts.run_id) == 40
    assert facts.version
    assert facts.waitaof == (await line.call("COMMAND", "INFO", "waitaof") != [None])
    assert abs(facts.time_ms - time.time() * 1000) < 2000
    assert facts.sent <= facts.received <= time.monotonic()


async def test_a_server_that_evicts_is_refused(connections: Connections) -> None:
    line = connections.line()
    await line.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        await suitable(line)  # without a limit nothing is evicted
        await line.call("CONFIG", "SET", "maxmemory", "100mb")
        with pytest.raises(UnsuitableServer, match="allkeys-lru"):
            await suitable(line)
    finally:
        await line.call("CONFIG", "SET", "maxmemory", 0, "maxmemory-policy", "noeviction")


async def test_questions_that_the_acl_forbids_are_no_reason(connections: Connections) -> None:
    admin = connections.line()
    await admin.call("ACL", "SETUSER", "shy", "on", ">pw", "-@all", "+time")
    shy = Connections(connections.address.url.replace("unix://", "unix://shy:pw@"))
    facts = await suitable(shy.line())
    assert (facts.run_id, facts.version, facts.waitaof) == ("", "", False)
    assert facts.time_ms > 0
    await shy.close()
    await admin.call("ACL", "DELUSER", "shy")


async def test_an_old_server_is_refused(tcp: Callable[..., Tcp]) -> None:
    server = tcp(find_server(), "--rename-command", "EXPIRETIME", "")
    connections = Connections(f"redis://127.0.0.1:{server.port}")
    with pytest.raises(UnsuitableServer, match=r"lacks EXPIRETIME.*Redis 7\.0"):
        await suitable(connections.line())
    await connections.close()


# Failures


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (refused.ConnectionError("gone"), True),
        (refused.TimeoutError("late"), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (refused.BusyLoadingError("loading"), True),
        (refused.ReadOnlyError("replica"), True),
        (refused.ResponseError("UNBLOCKED the stream key no longer exists"), True),
        (refused.ResponseError("MASTERDOWN Link with MASTER is down"), True),
        (refused.ResponseError("BUSY Redis is busy running a script"), True),
        (refused.ResponseError("BUSYGROUP Consumer Group name already exists"), False),
        (refused.ResponseError("WRONGTYPE"), False),
        (refused.OutOfMemoryError("command not allowed"), False),
        (refused.NoPermissionError("no"), False),
        (refused.AuthenticationError("wrong"), False),
        (ValueError(), False),
        (asyncio.CancelledError(), False),
    ],
)
def test_what_may_pass(error: BaseException, transient: bool) -> None:
    assert is_transient(error) is transient


def test_a_description_is_one_line_without_the_password() -> None:
    address = Address.parse("redis://u:s3cret@host")
    text = describe(refused.ConnectionError("Error 111\nconnecting with s3cret"), address)
    assert "\n" not in text
    assert "s3cret" not in text
    assert "redis://u:***@host" in text


def test_a_line_is_made_without_connecting() -> None:
    def never() -> object:
        raise AssertionError("connected too early")

    assert "connected=0" in repr(Line(never, "somewhere"))  # type: ignore[arg-type]
