"""Which server has the keys of a queue: the only one, the master that Sentinels name, or one of a cluster.

`home` answers from memory, in any thread. `look` asks anew; it blocks, for the thread that renews leases must be able
to do it while the event loop stands still.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol, cast

from redis import Redis
from redis import exceptions as refused
from redis.crc import key_slot

from streamq.broker.address import Address
from streamq.broker.diagnosis import NobodyAnswers, SentinelsRefuse, Unwatched, is_transient
from streamq.broker.wires import blocking_client
from streamq.errors import BrokerError, UnsuitableServer

Key = bytes | str | int
LOOK_TIMEOUT: Final = 1.0  # seconds that one server may take to say where the others are
SLOTS: Final = 16_384


class Nodes(Protocol):
    """Where keys are."""

    @property
    def may_move(self) -> bool:
        """Whether keys can come to be on another server."""
        ...

    def home(self, key: Key) -> Address:
        """The server that has this key, and all that share its hash tag, as far as is known."""
        ...

    def all(self) -> Sequence[Address]:
        """Every server that has keys."""
        ...

    def together(self, queues: Sequence[str]) -> list[tuple[str, ...]]:
        """The queues in groups that one command may name."""
        ...

    def look(self) -> None:
        """Ask where the keys are. Raises as redis-py does if nobody says so; then what was known stays."""
        ...

    def moved(self, error: refused.MovedError) -> None:
        """A server said that a key is elsewhere."""
        ...

    def close(self) -> None:
        """Close what `look` opened."""
        ...


def nodes_of(address: Address) -> Nodes:
    """How the servers of this address are found."""
    if address.scheme.endswith("+sentinel"):
        return Sentinels(address)
    if address.scheme.endswith("+cluster"):
        return Shards(address)
    return NotStarted(address) if address.scheme == "embedded" else OneServer(address)


class _AllTogether:
    def together(self, queues: Sequence[str]) -> list[tuple[str, ...]]:
        """In one."""
        return [tuple(queues)] if queues else []


class OneServer(_AllTogether):
    """All keys are on one server, for ever."""

    may_move = False

    def __init__(self, address: Address) -> None:
        self._address = address

    def home(self, key: Key) -> Address:
        """The server."""
        return self._address

    def all(self) -> Sequence[Address]:
        """The server."""
        return [self._address]

    def look(self) -> None:
        """There is nobody to ask."""

    def moved(self, error: refused.MovedError) -> None:
        """It is one of a cluster: raises `UnsuitableServer`."""
        raise one_of_a_cluster(self._address) from error

    def close(self) -> None:
        """Nothing is open."""


class NotStarted(OneServer):
    """An embedded server, before it is started."""

    def home(self, key: Key) -> Address:
        """Raises `BrokerError`."""
        raise BrokerError(f"{self._address} is not running: open the application first (async with app)")


class _Asking:
    """`look` may be under way in a thread when all is closed: it opens nothing any more then."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def _ask(self, client: Redis, *words: str) -> object:
        if self._closed.is_set():
            raise refused.ConnectionError("closed: open the application again")
        execute = client.execute_command  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        try:
            return cast("Callable[..., object]", execute)(*words)
        finally:
            if self._closed.is_set():
                client.close()


class Sentinels(_AllTogether, _Asking):
    """All keys are on the master that the Sentinels name.

    As https://redis.io/docs/latest/develop/reference/sentinel-clients/ asks of a client.
    """

    may_move = True

    def __init__(self, address: Address) -> None:
        super().__init__()
        self._address = address
        self._master: Address | None = None
        self._lock = threading.Lock()
        self._sentinels = [blocking_client(each, LOOK_TIMEOUT) for each in _sentinels(address)]

    def home(self, key: Key) -> Address:
        """The master. Raises `BrokerError` before the first `look`."""
        return self._master or _unknown(self._address)

    def all(self) -> Sequence[Address]:
        """The master."""
        return [self._master] if self._master is not None else []

    def look(self) -> None:
        """Ask the Sentinels, one after the other; first whoever knew it last."""
        with self._lock:
            found = self._address.at(*self._named())
            if self._master is None or found.url != self._master.url:
                self._master = found

    def _named(self) -> tuple[str, int]:
        service, failures = self._address.service, list[Exception]()
        for sentinel in list(self._sentinels):
            try:
                reply = self._ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
            except (refused.ConnectionError, refused.TimeoutError, OSError) as failure:
                failures.append(failure)
                continue
            except refused.ResponseError as error:
                if "unknown command" in str(error):
                    raise no_sentinel(self._address) from error
                raise
            if reply is not None:
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                host, port = cast("tuple[bytes, bytes]", reply)
                return host.decode(), int(port)
        if len(failures) < len(self._sentinels):
            raise Unwatched(f"no Sentinel knows a master {service!r}")
        for each in failures:
            if isinstance(each, refused.AuthenticationError):
                raise SentinelsRefuse(str(each)) from each
            if not is_transient(each):
                raise each
        raise NobodyAnswers(str(failures[0])) from failures[0]

    def moved(self, error: refused.MovedError) -> None:
        """It is one of a cluster: raises `UnsuitableServer`."""
        raise one_of_a_cluster(self.home("")) from error

    def close(self) -> None:
        """Close the connections to the Sentinels, for good."""
        self._closed.set()
        for sentinel in self._sentinels:
            sentinel.close()


class Shards(_Asking):
    """The keys of one hash tag are on the master of their slot.

    As https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/ asks of a client, but that a slot
    which is being migrated is waited for (ASK and TRYAGAIN pass): a script names keys that need not exist, and such a
    call is carried out on neither side.
    """

    may_move = True

    def __init__(self, address: Address) -> None:
        super().__init__()
        self._address = address
        self._seeds = [address.at(*host) for host in address.hosts]
        self._nodes: dict[str, Address] = {}  # by URL, so that a server has one `Address`
        self._slots: list[Address | None] = [None] * SLOTS
        self._masters: list[Address] = []
        self._said: object = None
        self._lock = threading.Lock()
        self._asked: tuple[Address, Redis] | None = None

    def home(self, key: Key) -> Address:
        """The master of the key's slot. Raises `ClusterDownError` while no server has it."""
        name = key if isinstance(key, bytes) else str(key).encode()
        slot = key_slot(name)  # pyright: ignore[reportUnknownMemberType]
        found = self._slots[slot]
        if found is None:
            if not self._masters:
                _unknown(self._address)
            raise refused.ClusterDownError(f"CLUSTERDOWN no server of {self._address} has slot {slot}")
        return found

    def all(self) -> Sequence[Address]:
        """The masters."""
        return self._masters

    def together(self, queues: Sequence[str]) -> list[tuple[str, ...]]:
        """Each alone: a command may name the keys of one slot."""
        return [(queue,) for queue in queues]

    def look(self) -> None:
        """Ask for the map of the slots: whoever answered last, then any."""
        with self._lock:
            error: Exception | None = None
            for node in {each.url: each for each in self._candidates()}.values():
                try:
                    reply = self._slots_of(node)
                except (refused.ConnectionError, refused.TimeoutError, refused.ClusterDownError, OSError) as failure:
                    error = error or failure
                    continue
                if not reply:
                    error = error or refused.ClusterDownError(f"CLUSTERDOWN {node} knows of no slot that is served")
                    continue
                if reply != self._said:
                    self._read(node, reply)
                    self._said = reply
                return
            assert error is not None
            if isinstance(error, refused.ClusterDownError) or not is_transient(error):
                raise error
            raise NobodyAnswers(str(error)) from error

    def moved(self, error: refused.MovedError) -> None:
        """One slot is elsewhere now."""
        slots = list(self._slots)
        host, port = cast("tuple[str, int]", error.node_addr)  # pyright: ignore[reportUnknownMemberType]
        slots[error.slot_id] = self._node(host or self._address.host, port)
        self._slots, self._said = slots, None
        self._masters = _masters(slots)

    def close(self) -> None:
        """Close the connection of `look`, for good."""
        self._closed.set()
        self._hang_up()

    def _hang_up(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked[1].close()

    def _candidates(self) -> list[Address]:
        return [*([self._asked[0]] if self._asked is not None else []), *self._masters, *self._seeds]

    def _slots_of(self, node: Address) -> list[Any]:
        asked = self._asked
        if asked is None or asked[0] is not node:
            self._hang_up()
            asked = self._asked = node, blocking_client(node, LOOK_TIMEOUT)
        try:
            return cast("list[Any]", self._ask(asked[1], "CLUSTER", "SLOTS"))
        except refused.ClusterDownError:
            raise
        except refused.ResponseError as error:
            if "cluster support disabled" in str(error):
                raise no_cluster(node) from error
            raise

    def _read(self, node: Address, reply: list[Any]) -> None:
        slots: list[Address | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_replicas in reply:
            # Without a host it is the server that was asked.
            slots[first : last + 1] = [self._node(host.decode() if host else node.host, port)] * (last + 1 - first)
        self._slots = slots
        self._masters = _masters(slots)

    def _node(self, host: str, port: int) -> Address:
        found = self._address.at(host, port)
        return self._nodes.setdefault(found.url, found)


def _sentinels(address: Address) -> list[Address]:
    user, password = address.sentinel_username, address.sentinel_password
    return [replace(address.at(*host), username=user, password=password, db=0) for host in address.hosts]


def _masters(slots: list[Address | None]) -> list[Address]:
    return list({each.url: each for each in slots if each is not None}.values())


def _unknown(address: Address) -> Address:
    raise BrokerError(f"{address} was not asked for its servers yet: open the application first (async with app)")


def one_of_a_cluster(address: Address) -> UnsuitableServer:
    """For a URL of one server, which has a part of the keys only."""
    scheme = "rediss+cluster" if address.tls else "redis+cluster"
    return UnsuitableServer(
        f"the server at {address} is one of a Redis Cluster, and has a part of the keys only. "
        f"Write the URL as {scheme}://{address.host}:{address.port}",
        what="the server is one of a Redis Cluster",
        where=str(address),
        cause="this URL is for a single server, and it has a part of the keys only",
        fix=f"--url {scheme}://{address.host}:{address.port}    with user and password as before",
    )


def no_cluster(address: Address) -> UnsuitableServer:
    """For the URL of a cluster that leads to a single server."""
    scheme = "rediss" if address.tls else "redis"
    return UnsuitableServer(
        f"the server at {address} is not part of a Redis Cluster. "
        f"Write the URL as {scheme}://{address.host}:{address.port}/0",
        what="the server is not part of a Redis Cluster",
        where=str(address),
        cause="cluster-enabled is off: it is a single server, or watched by Sentinels",
        fix=f"--url {scheme}://{address.host}:{address.port}/0    or redis+sentinel://HOST:26379/NAME",
    )


def no_sentinel(address: Address) -> UnsuitableServer:
    """For the URL of Sentinels that leads to another server."""
    scheme = "rediss" if address.tls else "redis"
    return UnsuitableServer(
        f"not all servers of {address} are Sentinels. They listen on port 26379, the servers that they watch on 6379",
        what="a server is no Sentinel",
        where=str(address),
        cause="it is the port of what the Sentinels watch (6379), not theirs (26379), or a single server",
        fix=f"--url {scheme}+sentinel://HOST:26379/NAME    or {scheme}://HOST:6379/0 for a single server",
    )
