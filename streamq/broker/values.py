"""What the verbs take and give: jobs to add, what became of them, what is known of one, the answer to a turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from streamq.core.job import Delivery, Progress, Record

Standing = Literal["new", "duplicate", "mismatch"]
Where = Literal["stream", "running", "due", "retry", "parked", "gone"]


class NewJob(Struct, gc=False):
    """One job to add. `due` is epoch ms (0: at once), `delay` ms from now by the server's clock."""

    job_id: str
    body: bytes
    priority: int = 0
    due: int = 0
    delay: int = 0
    own_id: bool = False  # the caller chose the id: look whether it exists
    key: str = ""  # see `idempotency`
    fingerprint: str = ""
    retry_failed: bool = False


class Placed(Struct, gc=False):
    """What became of one job to add; of a duplicate or mismatch, `job_id` is the original's."""

    job_id: str
    status: Standing


@dataclass(slots=True)
class Found:
    """What Redis knows of one job. `due` is epoch ms, `idle` ms since its lease was last renewed."""

    queue: str
    job_id: str
    where: Where
    record: Record | None
    body: bytes | None
    priority: int
    due: int
    consumer: str
    delivery: int
    idle: int
    progress: Progress | None
    cancelling: str | None
    forgiven: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Nobody may take jobs of a queue: since when (epoch ms), and why."""

    since: int
    reason: str = ""


@dataclass(slots=True)
class Turn:
    """The answer to one turn: the server's ms, a reply a settlement, new deliveries, whether the queue is paused."""

    now: int
    replies: list[str]
    deliveries: list[Delivery]
    paused: bool = False
