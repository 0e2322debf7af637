"""Logs are a listener: one line a job when it ends, and formats for those who run the worker as a command."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Final, Literal

from streamq.client.context import current_job_id
from streamq.core.job import Delivery
from streamq.core.outcome import Bury, Complete, Drop, Release, Reschedule, Settlement
from streamq.core.shown import one_line

jobs = logging.getLogger("streamq.job")
FIELDS: Final = ("job_id", "task", "queue", "attempt", "state", "duration_ms", "error")


def state_of(settlement: Settlement) -> str:
    """What the log calls the end of an attempt."""
    match settlement:
        case Complete(record) | Bury(record):
            return record.state.value
        case Reschedule(_, _, state):
            return state.value
        case Release():
            return "RELEASED"
        case Drop():
            return "LOST"


def job_ended(
    delivery: Delivery, task: str, attempt: int, settlement: Settlement, duration_ms: float, arguments: str = ""
) -> None:
    """One line about one attempt. `arguments` only if the task asked for them."""
    state = state_of(settlement)
    error = _error(settlement)
    again = f", again in {settlement.delay / 1000:g} s" if isinstance(settlement, Reschedule) else ""
    jobs.log(
        logging.WARNING if error else logging.INFO,
        "%s%s[%s] %s after %.0f ms, attempt %d%s%s",
        one_line(task) or "?",
        one_line(arguments),
        delivery.job_id,
        state,
        duration_ms,
        attempt,
        again,
        f": {one_line(error)}" if error else "",
        extra={
            "job_id": delivery.job_id,
            "task": task,
            "queue": delivery.queue,
            "attempt": attempt,
            "state": state,
            "duration_ms": round(duration_ms, 1),
            "error": error,
        },
    )


def _error(settlement: Settlement) -> str:
    match settlement:
        case Bury(record) if record.error is not None:
            return f"{record.error.error}: {record.error.message}"
        case Reschedule(job) if job.failures and settlement.state.value == "RETRY":
            return f"{job.failures[-1].error}: {job.failures[-1].message}"
        case _:
            return ""


class JsonFormatter(logging.Formatter):
    """One JSON object a line, always with `ts`, `level`, `logger` and `msg`, and the job's fields where known."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, object] = {
            "ts": _timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "msg": record.getMessage(),
        }
        for name in FIELDS:
            value = getattr(record, name, None)
            if value not in (None, ""):
                line[name] = value
        job_id = current_job_id.get()
        if job_id and "job_id" not in line:
            line["job_id"] = job_id
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """For people: time, level, logger, the job's id where there is one, and the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        job_id = current_job_id.get()
        about = f" [{job_id}]" if job_id and record.name != jobs.name else ""
        text = f"{_timestamp(record.created)} {record.levelname:<7} {record.name}{about} {record.getMessage()}"
        if record.exc_info and record.exc_info[0] is not None:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return text


def configure(level: str = "INFO", format: Literal["text", "json"] = "text") -> None:
    """Send the logs of this process to stderr. Only a program of our own does that, never a host's worker."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _timestamp(created: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
    return f"{whole}.{int(created % 1 * 1000):03d}Z"
