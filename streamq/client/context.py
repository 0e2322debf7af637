"""What a running task may know about its job, and say about it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn

import anyio.from_thread

from streamq.core.clock import Duration
from streamq.core.job import JobOptions, Progress
from streamq.core.outcome import Retry

if TYPE_CHECKING:  # a default for a type variable is in the standard library from Python 3.13 only
    from typing_extensions import TypeVar

    StateT = TypeVar("StateT", default=None)
else:
    from typing import TypeVar

    StateT = TypeVar("StateT")

Report = Callable[[Progress], Awaitable[None]]

current_job_id: ContextVar[str | None] = ContextVar("streamq_job_id", default=None)
"""The id of the job that runs here, for logs; None outside of one."""

current_context: Final[ContextVar[Context[Any] | None]] = ContextVar("streamq_context", default=None)
_logger = logging.getLogger("streamq.task")
_NO_OPTIONS = JobOptions()


def current() -> Context[Any] | None:
    """The `Context` of the job that runs here, in code that was not handed it; None outside of a job.

    if ctx := current(): await ctx.progress(3, 10)
    """
    return current_context.get()


async def _nobody(progress: Progress) -> None:
    """Outside of a worker nobody asks how far a task is."""


class Context(Generic[StateT]):
    """One attempt of one job, seen from inside its task: `async def resize(ctx: Context[State], url: str)`.

    `state` is what the application's lifespan gave, `attempt` counts from 1 (every start of the job, those
    that crashed too), `retries` counts the retries spent. Dates are aware and UTC.

        await ctx.progress(3, total=10, note="third page")
    """

    __slots__ = (
        "_enqueued_at",
        "_log",
        "_options",
        "_report",
        "attempt",
        "job_id",
        "max_retries",
        "priority",
        "queue",
        "retries",
        "state",
        "task",
        "worker",
    )

    def __init__(
        self,
        *,
        job_id: str,
        task: str,
        queue: str,
        state: StateT,
        priority: int = 0,
        attempt: int = 1,
        retries: int = 0,
        max_retries: int = 0,
        enqueued_at: int = 0,
        options: JobOptions = _NO_OPTIONS,
        worker: str = "",
        report_progress: Report = _nobody,
    ) -> None:
        self.job_id = job_id
        self.task = task
        self.queue = queue
        self.state = state
        self.priority = priority
        self.attempt = attempt
        self.retries = retries
        self.max_retries = max_retries
        self.worker = worker
        self._enqueued_at = enqueued_at
        self._options = options
        self._report = report_progress
        self._log: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def id(self) -> str:
        """The same as `job_id`."""
        return self.job_id

    @property
    def request(self) -> Request:
        """The job as Celery shows it: `ctx.request.id`, `ctx.request.retries`."""
        return Request(self)

    @property
    def headers(self) -> Mapping[str, str]:
        """What the caller attached with `using(headers=...)`."""
        return self._options.headers

    @property
    def idempotency_key(self) -> str:
        """The key that the caller gave, or an empty text."""
        return self._options.key

    @property
    def enqueued_at(self) -> datetime:
        """When the job was enqueued."""
        return datetime.fromtimestamp(self._enqueued_at / 1000, UTC)

    @property
    def eta(self) -> datetime | None:
        """When the job was first due, if it was delayed."""
        return datetime.fromtimestamp(self._options.eta / 1000, UTC) if self._options.eta else None

    @property
    def expires(self) -> datetime | None:
        """When the job expires, if it does."""
        return datetime.fromtimestamp(self._options.expires / 1000, UTC) if self._options.expires else None

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry `job_id`, `task` and `attempt`."""
        if self._log is None:
            extra = {"job_id": self.job_id, "task": self.task, "attempt": self.attempt}
            self._log = logging.LoggerAdapter(_logger, extra)
        return self._log

    async def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the job is; `await job.progress()` shows it to whoever asks. Costs one round trip.

        await ctx.progress(30, total=100, note="thumbnails")
        """
        await self._report(Progress(done, total, note))

    def progress_sync(self, done: float, total: float | None = None, note: str = "") -> None:
        """`progress` for a task that is a plain `def`, and so runs in a thread."""
        if self._report is not _nobody:
            anyio.from_thread.run(self.progress, done, total, note)

    async def retry(
        self, countdown: Duration | None = None, *, reason: str = "", max_retries: int | None = None
    ) -> NoReturn:
        """End this attempt and run the job again later: raises `Retry`, as `raise Retry(...)` does.

        await ctx.retry(countdown="30s")
        """
        raise Retry(countdown, reason=reason, max_retries=max_retries)

    def __repr__(self) -> str:
        return f"<Context {self.task} {self.job_id} attempt={self.attempt}>"


class Request:
    """A job under the names that Celery's `self.request` has."""

    __slots__ = ("delivery_info", "eta", "headers", "hostname", "id", "queue", "retries", "task")

    def __init__(self, ctx: Context[Any]) -> None:
        self.id: Final = ctx.job_id
        self.task: Final = ctx.task
        self.queue: Final = ctx.queue
        self.retries: Final = ctx.retries
        self.headers: Final = ctx.headers
        self.hostname: Final = ctx.worker
        self.eta: Final = ctx.eta
        self.delivery_info: Final = {"routing_key": ctx.queue, "priority": ctx.priority}


def local_context(task: str) -> Context[Any]:
    """The context of a plain call of a task, outside of any worker."""
    return Context(job_id="local", task=task, queue="", state=None)
