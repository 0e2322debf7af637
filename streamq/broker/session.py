"""The conversation with one server: opening it, calling scripts, telling failures apart, knowing its time."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from redis.exceptions import ClusterDownError, NoScriptError, RedisError, ResponseError

from streamq.broker.connect import (
    Address,
    Connections,
    Line,
    Reply,
    describe,
    diagnose,
    is_full,
    is_transient,
)
from streamq.broker.keys import Keys, queues
from streamq.broker.nodes import one_of_a_cluster
from streamq.broker.retrying import persist
from streamq.broker.scripts import Arg, ScriptCall
from streamq.broker.suitability import ServerFacts, info_section, suitable
from streamq.core.clock import ServerClock
from streamq.core.options import AppOptions
from streamq.errors import BrokerError, BrokerUnavailable, QueueFull

T = TypeVar("T")

logger = logging.getLogger("streamq.broker")
ANNOUNCE_AGAIN: Final = 5.0  # seconds
OPEN_TIMEOUT: Final = 5.0  # seconds a first connection may take before the caller hears of it


class Session:
    """One process's conversation with one server. `Broker` adds the verbs."""

    def __init__(self, url: str, options: AppOptions) -> None:
        self.options = options
        self.connections = Connections(url)
        self.clock = ServerClock()
        self.facts: ServerFacts | None = None  # of the server that has the list of queues
        self.client_id = secrets.token_hex(8)
        self.now: Callable[[], Arg] = lambda: ""  # only the testing clock says anything
        self._youngest: ServerFacts | None = None
        self._keys: dict[str, Keys] = {}
        self._lines: dict[tuple[str, str], Line] = {}  # by purpose and server
        self._announced: set[str] = set()
        self._unannounced: dict[str, float] = {}  # when to try again (monotonic seconds)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.connections.address} namespace={self.options.namespace!r}>"

    @property
    def where(self) -> str:
        """The server's address without secrets."""
        return str(self.connections.address)

    async def open(
        self,
        timeout: float | None = OPEN_TIMEOUT,
        on_failure: Callable[[BaseException, float], None] | None = None,
    ) -> None:
        """Connect and look whether jobs are safe there. Opening twice does nothing.

        Raises `BrokerUnavailable` after `timeout` seconds (None: never), `UnsuitableServer`.
        """
        if self.facts is not None:
            return

        facts = await self.translated(persist(self._suitable, timeout, on_failure=on_failure))
        if facts[0].sharded and not self.connections.nodes.may_move:
            raise one_of_a_cluster(self.connections.home(""))
        self.facts = facts[0]
        self._youngest = min(facts, key=lambda each: each.uptime - each.received)
        self._sync(self.facts.time_ms, self.facts.sent, self.facts.received)

    async def _suitable(self) -> list[ServerFacts]:
        """Of all servers that answer. One that is away holds up its own queues, not the others."""
        await self.connections.open()
        lines = [self.line_to("commands", node) for node in self.servers()]
        answers = await asyncio.gather(*map(suitable, lines), return_exceptions=True)
        facts = [answer for answer in answers if isinstance(answer, ServerFacts)]
        # That the cluster is down says more than that one of its servers is away.
        pairs = sorted(zip(lines, answers, strict=True), key=lambda pair: not isinstance(pair[1], ClusterDownError))
        for line, error in pairs:
            if isinstance(error, BaseException):
                if not facts or not is_transient(error):
                    raise error
                logger.warning("%s", describe(error, line.where))
        return facts

    async def close(self) -> None:
        """Close every connection. Closing twice does nothing."""
        self.facts = self._youngest = None
        self._lines.clear()
        await self.connections.close()

    @property
    def uptime(self) -> float:
        """Seconds since the server started, of several the last; as far as they were asked."""
        young = self._youngest
        return 0.0 if young is None else young.uptime + time.monotonic() - young.received

    def now_ms(self) -> int:
        """Epoch ms by the server's clock."""
        now = self.now()
        return now if isinstance(now, int) else self.clock.now_ms()

    def keys(self, queue: str) -> Keys:
        """The key names of one queue."""
        keys = self._keys.get(queue)
        if keys is None:
            keys = self._keys[queue] = Keys(self.options.namespace, queue)
        return keys

    def line(self, purpose: str, key: Arg = "") -> Line:
        """The connection for one purpose to the server that has this key; different purposes never wait for each other.

        Ask for it anew at each call: the key may have moved. Without a key it is that of the list of queues.
        """
        node = self.connections.nodes.home(key or queues(self.options.namespace))
        line = self._lines.get((purpose, node.url))
        return self.line_to(purpose, node) if line is None or line.closed else line

    def servers(self) -> list[Address]:
        """All that have keys, first of all that of the list of queues."""
        first = self.connections.home(queues(self.options.namespace))
        return list(dict.fromkeys([first, *self.connections.nodes.all()]))

    def line_to(self, purpose: str, node: Address) -> Line:
        """The connection for one purpose to one of `servers`."""
        line = self._lines.get((purpose, node.url))
        if line is None or line.closed:
            self._lines = {key: each for key, each in self._lines.items() if not each.closed}
            line = self._lines[purpose, node.url] = self.connections.line(node)
        return line

    async def hang_up(self, purpose: str) -> None:
        """Close the connections of one purpose for good."""
        for (each, _), line in list(self._lines.items()):
            if each == purpose:
                await line.close()

    async def announce(self, queue: str) -> None:
        """Enter the queue in the list of queues, once a process. If that is on another server, it may be away."""
        if queue in self._announced or time.monotonic() < self._unannounced.get(queue, 0.0):
            return
        name = queues(self.options.namespace)
        try:
            line = self.line("commands", name)
            if not await line.call("HEXISTS", name, queue):  # a full server refuses HSET, of what is there too
                await line.call("HSET", name, queue, self.clock.now_ms())
        except (RedisError, OSError) as error:
            if not is_transient(error) or self._together(name, self.keys(queue).jobs):
                raise
            self._unannounced[queue] = time.monotonic() + ANNOUNCE_AGAIN
            logger.warning("queue %s is not in the list of queues yet: %s", queue, describe(error, self.where))
            return
        self._announced.add(queue)

    def _together(self, *keys: str) -> bool:
        try:
            return len({self.connections.home(key).url for key in keys}) == 1
        except ClusterDownError:  # nobody has one of them
            return False

    async def script(self, call: ScriptCall, line: Line | None = None, timeout: float = 5.0) -> Reply:
        """Run one script, once, where its keys are; a server that does not know it is told."""
        line = line or self.line("commands", call.keys[0])
        try:
            return await line.call(*call.evalsha(), timeout=timeout)
        except NoScriptError:
            return await line.call(*call.eval(), timeout=timeout)

    async def ask(self, call: ScriptCall, timeout: float | None = None) -> Reply:
        """Run one idempotent script until it is answered. Raises `BrokerUnavailable`, `QueueFull`, `BrokerError`."""
        limit = self.options.timeout if timeout is None else timeout
        return await self.translated(persist(lambda: self.script(call), limit))

    async def command(self, name: str, key: Arg = "", *args: Arg, node: Address | None = None) -> Reply:
        """Send one idempotent command until it is answered, to the server that has the key, or to that `node`.

        Raises as `ask` does.
        """
        words = (name, key, *args) if key != "" else (name,)

        async def send() -> Reply:
            line = self.line_to("commands", node) if node is not None else self.line("commands", key)
            return await line.call(*words)

        return await self.translated(persist(send, self.options.timeout))

    async def info(self, section: str, node: Address | None = None) -> dict[str, str]:
        """One section of what a server says of itself; empty if this user may not ask. Raises as `ask` does."""
        node = node or self.servers()[0]

        async def ask() -> dict[str, str]:
            return await info_section(self.line_to("commands", node), section)

        return await self.translated(persist(ask, self.options.timeout))

    def synced(self, server_ms: int, sent: float) -> int:
        """Take the server's time from a reply to what was sent at `time.monotonic()` `sent`."""
        self._sync(server_ms, sent, time.monotonic())
        return server_ms

    def _sync(self, server_ms: int, sent: float, received: float) -> None:
        if self.now() == "":
            wall = time.time() - time.monotonic()
            self.clock.sync(server_ms, wall + sent, wall + received)

    async def translated(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (RedisError, OSError) as error:
            raise self.translate(error) from error

    def translate(self, error: BaseException) -> BrokerError:
        """What a failure of redis-py means to the user, in one line."""
        if is_full(error):
            return QueueFull(
                f"{self.where} is out of memory (maxmemory): nothing was written. "
                "Let the workers catch up, raise maxmemory, or look for what else fills it: redis-cli INFO memory",
                what="Redis is out of memory: nothing was written",
                where=self.where,
                cause="maxmemory is reached: the workers cannot keep up, or something else fills it",
                fix="streamq top    shows the queues; redis-cli INFO memory what is used; then raise maxmemory",
            )
        address = self.connections.address
        line, found = describe(error, address), diagnose(error, address)
        kind = BrokerUnavailable if is_transient(error) or not isinstance(error, ResponseError) else BrokerError
        what = f"cannot {found.verb} Redis: {found.happened}"
        return kind(line, what=what, where=str(address), cause=found.hint, fix=found.fix)
