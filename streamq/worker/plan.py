"""What holds for one attempt: the task's options, and what one call set differently."""

from __future__ import annotations

from typing import Any, Final

from streamq.client.task import Task
from streamq.core.job import JobOptions
from streamq.core.options import AppOptions, TaskOptions

NO_CALL_OPTIONS: Final = JobOptions()
NO_TASK_OPTIONS: Final = TaskOptions()


class Plan:
    """The settled options of a task, or of one call of it. Limits in seconds, `ttl` in ms (0: no record)."""

    __slots__ = ("address", "call", "hard_limit", "max_retries", "options", "simple", "soft_limit", "task", "ttl")

    def __init__(self, task: Task[Any, Any] | None, app: AppOptions, call: JobOptions = NO_CALL_OPTIONS) -> None:
        options = NO_TASK_OPTIONS if task is None else task.options
        self.task = task
        self.address = None if task is None else task.address  # it runs in a child process
        self.call = call
        self.options = options
        self.max_retries = options.retry.max_retries if call.max_retries is None else call.max_retries
        self.hard_limit = _limit(call.time_limit, options.time_limit, app.time_limit)
        self.soft_limit = _limit(call.soft_time_limit, options.soft_time_limit, app.soft_time_limit)
        self.ttl = _ttl(call, options, app)
        limited = self.address is None and (self.hard_limit or self.soft_limit)  # the limits of a child are its own
        self.simple = not (limited or options.acks_early)


def _limit(call_ms: int | None, task: float | None, app: float | None) -> float:
    return ((app if task is None else task) or 0.0) if call_ms is None else call_ms / 1000


def _ttl(call: JobOptions, task: TaskOptions, app: AppOptions) -> int:
    for ignore in (call.ignore_result, task.ignore_result, app.ignore_result):
        if ignore is not None:
            if ignore:
                return 0
            break
    for ttl in (call.result_ttl, task.result_ttl):
        if ttl is not None:
            return ttl
    return app.result_ttl
