"""Every exception that streamq raises, in one tree.

::

    StreamQError
    ├── ConfigurationError          an option, a URL or a task definition cannot be used (ValueError)
    │   └── UnsuitableServer        the server lacks a command, or would evict keys
    ├── BrokerError                 Redis could not be asked, or refused
    │   ├── BrokerUnavailable       no answer within the time allowed
    │   ├── QueueFull               the server is out of memory, nothing was written
    │   └── NotDurable              written, but not as durably as asked; `.job_id`
    ├── EnqueueError                a call that cannot become a job
    │   ├── InvalidArguments        arity, or an argument that cannot be serialised (TypeError)
    │   ├── PayloadTooLarge         larger than `max_payload` bytes
    │   └── IdempotencyMismatch     same idempotency key, other arguments; `.job_id`
    ├── UnknownTask                 no task of that name is registered here (LookupError)
    ├── JobError                    asked about one job; `.job_id`
    │   ├── JobNotFound             no such job (LookupError)
    │   ├── ResultExpired           it finished, and its result is no longer kept
    │   ├── ResultTimeout           it did not finish within `timeout` (TimeoutError)
    │   ├── JobFailed               its final state is FAILURE; `.error`
    │   │   └── MaxRetriesExceeded  it failed on its last permitted attempt
    │   ├── JobCancelled            its final state is CANCELLED; `.reason`
    │   └── JobExpired              its `expires` passed before it could start
    ├── InvalidResult               a task returned what cannot be serialised (TypeError)
    ├── Undecodable                 the codec cannot decode it, or there is none (ValueError)
    ├── ChildCrashed                the child process of a task ended before the task did
    ├── SoftTimeLimitExceeded       raised inside a task at its soft limit
    └── TimeLimitExceeded           a task was cancelled at its hard limit (TimeoutError)

    Signals, raised by a task to say what happens next (they are no errors):
    Retry, Snooze, Reject           see `streamq.core.outcome`
"""

from __future__ import annotations


class StreamQError(Exception):
    """The root: `except StreamQError` catches all that streamq raises.

    The message says all in one line. `what`, `where`, `cause` and `fix` are its parts, where they are known.
    """

    def __init__(self, message: str = "", *, what: str = "", where: str = "", cause: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.what = what
        self.where = where
        self.cause = cause
        self.fix = fix


class ConfigurationError(StreamQError, ValueError):
    """An option, a URL or a task definition cannot be used as it stands."""


class UnsuitableServer(ConfigurationError):
    """The server answers, but jobs would not be safe on it."""


class BrokerError(StreamQError):
    """Redis could not be asked, or refused."""


class BrokerUnavailable(BrokerError):
    """Redis gave no answer within the time allowed."""


class QueueFull(BrokerError):
    """The server has no memory left. Nothing was written; try again later."""


class NotDurable(BrokerError):
    """The job was written, but the asked durability was not reached in time. It may run."""

    def __init__(self, message: str, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class EnqueueError(StreamQError):
    """A call that cannot become a job. Nothing was written."""


class InvalidArguments(EnqueueError, TypeError):
    """The arguments do not fit the task's signature, or one cannot be serialised."""


class PayloadTooLarge(EnqueueError):
    """The encoded job is larger than `max_payload`."""


class IdempotencyMismatch(EnqueueError):
    """The idempotency key belongs to a job with other arguments."""

    def __init__(self, message: str, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class UnknownTask(StreamQError, LookupError):
    """No task of that name is registered here."""


class JobError(StreamQError):
    """Something about one job, named by `job_id`."""

    def __init__(self, message: str, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class JobNotFound(JobError, LookupError):
    """No such job: the id is wrong, or its record has expired."""


class ResultExpired(JobError):
    """The job finished, but its result is no longer kept (`result_ttl`, `ignore_result`)."""


class ResultTimeout(JobError, TimeoutError):
    """The job did not finish within `timeout` seconds. It is still there."""


class JobFailed(JobError):
    """The job's final state is FAILURE; the message carries the remote traceback."""

    def __init__(self, message: str, job_id: str = "", *, error: str = "", traceback: str = "") -> None:
        super().__init__(message, job_id)
        self.error = error
        self.traceback = traceback


class MaxRetriesExceeded(JobFailed):
    """The job failed on its last permitted attempt."""


class JobCancelled(JobError):
    """The job was cancelled; `reason` says why."""

    def __init__(self, message: str, job_id: str = "", *, reason: str = "") -> None:
        super().__init__(message, job_id)
        self.reason = reason


class JobExpired(JobError):
    """The job's `expires` passed before it could start."""


class InvalidResult(StreamQError, TypeError):
    """A task returned a value that cannot be serialised. The job is a failure."""


class Undecodable(StreamQError, ValueError):
    """Arguments or a result that the application's codec cannot decode, or that need one it does not have."""


class ChildCrashed(StreamQError):
    """The child process that ran the task ended first: a crash in C code, `os._exit`, or no memory left."""


class SoftTimeLimitExceeded(StreamQError):
    """Raised inside the task at `soft_time_limit`: clean up and return, or let it fail."""


class TimeLimitExceeded(StreamQError, TimeoutError):
    """The task was cancelled at `time_limit`."""
