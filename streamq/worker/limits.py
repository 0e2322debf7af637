"""The two time limits of a task: the soft one speaks to it, the hard one ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from streamq.errors import SoftTimeLimitExceeded

T = TypeVar("T")


class _SoftLimitReached(SoftTimeLimitExceeded, asyncio.CancelledError):
    # Task groups and timeouts inside the task must see a cancellation, or they would leave their children
    # behind; the task must see SoftTimeLimitExceeded. It is both, for as long as it is inside the task.
    pass


class SoftLimit:
    """Awaits a coroutine, and raises `SoftTimeLimitExceeded` where it waits once `seconds` have passed.

    result = await SoftLimit(work(), 20.0)
    """

    __slots__ = ("_coro", "_due", "_seconds", "_task")

    def __init__(self, coro: Coroutine[Any, Any, T], seconds: float) -> None:
        self._coro = coro
        self._seconds = seconds
        self._due = False
        self._task: asyncio.Task[Any] | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        self._task = asyncio.current_task()
        timer = asyncio.get_running_loop().call_later(self._seconds, self._ring)
        try:
            return (yield from self._drive())
        except _SoftLimitReached as reached:
            # Outside the task it is an ordinary failure, which a policy may retry.
            raise SoftTimeLimitExceeded(str(reached)).with_traceback(reached.__traceback__) from None
        finally:
            timer.cancel()
            self._coro.close()

    def _drive(self) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                waited_for = self._coro.send(None) if error is None else self._coro.throw(error)
            except StopIteration as stop:
                return stop.value
            error = None
            try:
                yield waited_for
            except GeneratorExit:
                raise
            except BaseException as arrived:  # noqa: BLE001 - whatever the loop throws belongs to the task
                error = self._converted(arrived)

    def _converted(self, arrived: BaseException) -> BaseException:
        task = self._task
        if not self._due or task is None or not isinstance(arrived, asyncio.CancelledError):
            return arrived
        self._due = False
        if task.uncancel() > 0:  # somebody else cancelled too: that one counts
            return arrived
        return _SoftLimitReached(f"the soft time limit of {self._seconds:g} s was reached")

    def _ring(self) -> None:
        # Nothing but a cancellation wakes a task that waits; it is turned into ours before the task sees it.
        self._due = True
        if self._task is not None:
            self._task.cancel()
