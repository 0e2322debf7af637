"""An application's connection to Redis, opened at first use, in one event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from msgspec import Raw

from streamq.broker import wire
from streamq.broker.broker import Broker
from streamq.broker.inspector import Inspector
from streamq.broker.results import Results
from streamq.broker.session import OPEN_TIMEOUT
from streamq.client.sender import Sender
from streamq.client.sync import Portal
from streamq.core.options import AppOptions
from streamq.errors import BrokerError, ConfigurationError, JobNotFound

T = TypeVar("T")


class _Parts(NamedTuple):
    broker: Broker
    results: Results
    inspector: Inspector
    sender: Sender


@dataclass(frozen=True, slots=True)
class Known:
    """What the application knows by itself, asked when it is needed: tasks can still be added.

    `queues` are those in which a job without one is looked for first; of a task, by its name, `max_retries` (None: it
    is not known here) and what turns its result's bytes into the annotated type.
    """

    queues: Callable[[], Sequence[str]] = tuple
    max_retries: Callable[[str], int | None] = lambda _: None
    decoder: Callable[[str], Callable[[Raw], object]] = lambda _: wire.decode_value


NOTHING: Final = Known()


class Link:
    """Broker, results, inspector and sender, made together and closed together."""

    def __init__(
        self,
        url: str,
        options: AppOptions,
        known: Known = NOTHING,
        *,
        address: list[str] | None = None,
    ) -> None:
        self.url = url
        self.options: Final = options
        self.known: Final = known
        self._portal = Portal(self._close_twin)
        self._twin: Link | None = None
        # Of the server that runs, once an embedded one was started; one cell for the link and its twin.
        self._address = [url] if address is None else address
        self._forget()

    def redirect(self, url: str) -> None:
        """Go to another server. Only before it is opened: what enqueues holds this very link."""
        assert self._parts is None
        self.url = self._address[0] = url
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Lock | None = None
        self._broker: Broker | None = None
        self._parts: _Parts | None = None

    def _is_lost(self) -> bool:
        """In a forked child, or after the end of an asyncio.run(): the connections are gone with their loop."""
        return self._pid != os.getpid() or (self._loop is not None and self._loop.is_closed())

    @property
    def broker(self) -> Broker:
        """The broker, perhaps not yet open."""
        if self._broker is None:
            self._broker = Broker(self._address[0], self.options)
        return self._broker

    async def open(self, timeout: float = OPEN_TIMEOUT) -> Broker:
        """The broker, open, tried for `timeout` seconds. Cheap when it is open already.

        Raises `ConfigurationError` in another event loop than the one it was opened in,
        `BrokerUnavailable` and `UnsuitableServer`; `BrokerError` if it is closed meanwhile.
        """
        return (await self._opened(timeout)).broker

    async def results(self) -> Results:
        """What waits for results, open."""
        return (await self._opened()).results

    async def inspector(self) -> Inspector:
        """What answers questions about queues and workers, open."""
        return (await self._opened()).inspector

    async def sender(self) -> Sender:
        """What enqueues single jobs, open."""
        return (await self._opened()).sender

    async def _opened(self, timeout: float = OPEN_TIMEOUT) -> _Parts:
        loop = asyncio.get_running_loop()
        if self._parts is not None and self._loop is loop and self._pid == os.getpid():
            return self._parts
        if self._is_lost():
            self._forget()
        if self._loop not in (None, loop):
            raise ConfigurationError(
                "This application is open in another event loop. Use one loop for all, one StreamQ per loop,"
                " or enqueue_sync() and result_sync(), which work from any thread."
            )
        self._loop = loop
        opening = self._opening = self._opening or asyncio.Lock()
        async with opening:
            if self._opening is opening:
                return self._parts or await self._open(timeout)
        return await self._opened(timeout)  # the one that opened it failed, or it was closed again meanwhile

    async def _open(self, timeout: float) -> _Parts:
        if self._address[0] != self.url:
            self._broker = None  # made before the twin started the embedded server
        broker = self.broker
        try:
            await broker.open(timeout)
            if self._broker is not broker:
                raise BrokerError("The application was closed while it was being opened: open it again.")
        except BaseException:
            if self._broker is broker:
                self._forget()
            await broker.close()
            raise
        if self.url.startswith("embedded:"):
            self._address[0] = broker.connections.url_for_children
        self._parts = _Parts(broker, Results(broker), Inspector(broker), Sender(broker))
        return self._parts

    async def locate(self, job_id: str) -> str:
        """The queue in which a job is. Raises `JobNotFound`."""
        broker = await self.open()
        looked: list[str] = []
        for queues in (self.known.queues, broker.queues):
            found = queues()
            for queue in found if isinstance(found, Sequence) else await found:
                if queue not in looked:
                    looked.append(queue)
                    job = await broker.find(queue, job_id)
                    if job.where != "gone" or job.record is not None:
                        return queue
        raise not_found(job_id, ", ".join(looked) or "any queue")

    def run_sync(self, work: Callable[[Link], Awaitable[T]]) -> T:
        """Run `work` in the background thread, with a link of that thread's own."""
        return self._portal.run(lambda: work(self._in_thread()))

    def _in_thread(self) -> Link:
        # Called in the portal's thread only, which is the only one that uses the twin.
        if self._twin is None or self._twin._pid != os.getpid():
            self._twin = Link(self.url, self.options, self.known, address=self._address)
        return self._twin

    async def _close_twin(self) -> None:
        twin, self._twin = self._twin, None
        if twin is not None:
            await twin.disconnect()

    async def drain(self) -> None:
        """Wait until what is being enqueued has been sent."""
        if self._parts is not None and not self._is_lost():
            await self._parts.sender.drain()

    async def close(self) -> None:
        """Send what is under way, then disconnect. The link can be opened again."""
        if self._twin is not None:
            await asyncio.to_thread(self._portal.close)
        await self.disconnect()
        self._address[0] = self.url

    async def disconnect(self) -> None:
        """The same for this event loop alone."""
        await self.drain()
        broker, parts, lost = self._broker, self._parts, self._is_lost()
        self._forget()
        if lost:
            return
        if parts is not None:
            await parts.results.close()
        if broker is not None:
            await broker.close()


def not_found(job_id: str, where: str) -> JobNotFound:
    """The error for a job that is nowhere."""
    return JobNotFound(
        f"There is no job {job_id!r} in {where}: the id or the namespace is wrong, or its record has expired"
        " (result_ttl, ignore_result).",
        job_id,
    )
