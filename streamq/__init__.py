"""streamq: an asyncio-native, lightweight job queue on Redis Streams.

from streamq import StreamQ

app = StreamQ("redis://localhost:6379/0")

@app.task
async def add(x: int, y: int) -> int:
    return x + y
"""

import typing
from importlib import import_module as _import_module

if typing.TYPE_CHECKING:
    from streamq.broker.history import Transition, TransitionKind
    from streamq.broker.inspector import QueueInfo, WorkerInfo
    from streamq.broker.values import Pause
    from streamq.client.app import Application
    from streamq.client.call import Call, CallSettings
    from streamq.client.context import Context, current, current_job_id
    from streamq.client.dead import DeadLetters
    from streamq.client.depends import Depends
    from streamq.client.handle import Job
    from streamq.client.hooks import Event, Middleware
    from streamq.client.info import Cancellation, JobInfo, Restart
    from streamq.client.partial import Signature
    from streamq.client.queue import Queue
    from streamq.client.router import Router, shared_task
    from streamq.client.schedules import Occurrence, ScheduleInfo, Schedules
    from streamq.client.secret import Secret
    from streamq.client.settings import AppSettings, TaskSettings
    from streamq.client.standing import Explanation
    from streamq.client.story import Step
    from streamq.client.task import Task
    from streamq.client.timeline import Timeline
    from streamq.client.waiting import as_completed, gather
    from streamq.core.codec import PayloadCodec
    from streamq.core.cron import Cron, Every, crontab
    from streamq.core.job import DeadLetter, Progress, State
    from streamq.core.outcome import Reject, Retry, Snooze
    from streamq.errors import (
        BrokerError,
        BrokerUnavailable,
        ChildCrashed,
        ConfigurationError,
        EnqueueError,
        IdempotencyMismatch,
        InvalidArguments,
        InvalidResult,
        JobCancelled,
        JobError,
        JobExpired,
        JobFailed,
        JobNotFound,
        MaxRetriesExceeded,
        NotDurable,
        PayloadTooLarge,
        QueueFull,
        ResultExpired,
        ResultTimeout,
        SoftTimeLimitExceeded,
        StreamQError,
        TimeLimitExceeded,
        Undecodable,
        UnknownTask,
        UnsuitableServer,
    )
    from streamq.worker.app import StreamQ

__version__ = "0.1.0"

# Imported at first use: all of it takes 200 ms, and `streamq --help` needs none.
_HOMES = {
    "streamq.broker.history": "Transition TransitionKind",
    "streamq.broker.inspector": "QueueInfo WorkerInfo",
    "streamq.broker.values": "Pause",
    "streamq.client.app": "Application",
    "streamq.client.call": "Call CallSettings",
    "streamq.client.context": "Context current current_job_id",
    "streamq.client.dead": "DeadLetters",
    "streamq.client.depends": "Depends",
    "streamq.client.handle": "Job",
    "streamq.client.hooks": "Event Middleware",
    "streamq.client.info": "Cancellation JobInfo Restart",
    "streamq.client.partial": "Signature",
    "streamq.client.queue": "Queue",
    "streamq.client.router": "Router shared_task",
    "streamq.client.schedules": "Occurrence ScheduleInfo Schedules",
    "streamq.client.secret": "Secret",
    "streamq.client.settings": "AppSettings TaskSettings",
    "streamq.client.standing": "Explanation",
    "streamq.client.story": "Step",
    "streamq.client.task": "Task",
    "streamq.client.timeline": "Timeline",
    "streamq.client.waiting": "as_completed gather",
    "streamq.core.codec": "PayloadCodec",
    "streamq.core.cron": "Cron Every crontab",
    "streamq.core.job": "DeadLetter Progress State",
    "streamq.core.outcome": "Reject Retry Snooze",
    "streamq.errors": (
        "BrokerError BrokerUnavailable ChildCrashed ConfigurationError EnqueueError IdempotencyMismatch "
        "InvalidArguments InvalidResult JobCancelled JobError JobExpired JobFailed JobNotFound MaxRetriesExceeded "
        "NotDurable PayloadTooLarge QueueFull ResultExpired ResultTimeout SoftTimeLimitExceeded "
        "StreamQError TimeLimitExceeded Undecodable UnknownTask UnsuitableServer"
    ),
    "streamq.worker.app": "StreamQ",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "AppSettings",
    "Application",
    "BrokerError",
    "BrokerUnavailable",
    "Call",
    "CallSettings",
    "Cancellation",
    "ChildCrashed",
    "ConfigurationError",
    "Context",
    "Cron",
    "DeadLetter",
    "DeadLetters",
    "Depends",
    "EnqueueError",
    "Event",
    "Every",
    "Explanation",
    "IdempotencyMismatch",
    "InvalidArguments",
    "InvalidResult",
    "Job",
    "JobCancelled",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobInfo",
    "JobNotFound",
    "MaxRetriesExceeded",
    "Middleware",
    "NotDurable",
    "Occurrence",
    "Pause",
    "PayloadCodec",
    "PayloadTooLarge",
    "Progress",
    "Queue",
    "QueueFull",
    "QueueInfo",
    "Reject",
    "Restart",
    "ResultExpired",
    "ResultTimeout",
    "Retry",
    "Router",
    "ScheduleInfo",
    "Schedules",
    "Secret",
    "Signature",
    "Snooze",
    "SoftTimeLimitExceeded",
    "State",
    "Step",
    "StreamQ",
    "StreamQError",
    "Task",
    "TaskSettings",
    "TimeLimitExceeded",
    "Timeline",
    "Transition",
    "TransitionKind",
    "Undecodable",
    "UnknownTask",
    "UnsuitableServer",
    "WorkerInfo",
    "as_completed",
    "crontab",
    "current",
    "current_job_id",
    "gather",
    "shared_task",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'streamq' has no attribute {name!r}")
    value: object = getattr(_import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
