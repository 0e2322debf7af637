"""The way in for code that has no event loop: one background thread with a loop of its own."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from streamq.errors import BrokerError, ConfigurationError

T = TypeVar("T")

_CLOSING: Final = 10  # seconds that the thread may take to end; without Redis, sending takes longer


class Portal:
    """Runs coroutines for threads and plain scripts. The thread starts with the first one.

    `on_close` is awaited there at the end. A forked child has no threads: it starts its own.
    """

    def __init__(self, on_close: Callable[[], Awaitable[None]]) -> None:
        self._on_close = on_close
        self._forget()
        _portals.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work()` in the thread and wait for it.

        Raises what it raises, `BrokerError` if the portal is closed meanwhile, and `ConfigurationError` in the
        thread itself.
        """
        if self._thread is threading.current_thread():
            raise ConfigurationError(
                "A blocking call from within streamq's own thread would wait for itself for ever."
                " In a middleware or listener, await the async form instead."
            )
        with self._lock:
            # Both under one lock: work given to a loop that has ended in between would never be answered.
            waiting = asyncio.run_coroutine_threadsafe(_awaited(work), self._started())
        try:
            return waiting.result()
        except concurrent.futures.CancelledError:
            raise BrokerError(
                "The application was closed while a blocking call was under way; Redis may have carried it out."
                " Let enqueue_sync() and result_sync() return before app.close()."
            ) from None
        except BaseException:
            waiting.cancel()  # KeyboardInterrupt reaches the waiting thread only
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_serve, args=(self._loop,), name="streamq-sync", daemon=True)
            self._thread.start()
        return self._loop

    def close(self) -> None:
        """End the thread. The portal can be used again afterwards."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        try:
            with suppress(TimeoutError):  # whoever still waits is told by `run`
                asyncio.run_coroutine_threadsafe(_awaited(self._on_close), loop).result(_CLOSING)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_CLOSING)


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


_portals: weakref.WeakSet[Portal] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for portal in list(_portals):
        portal.close()


def _forget_parent() -> None:
    # Here and not at the first call: another thread may have held the lock when the process was forked, and
    # two threads of the child may make that call.
    for portal in list(_portals):
        portal._forget()  # pyright: ignore[reportPrivateUsage]


os.register_at_fork(after_in_child=_forget_parent)
