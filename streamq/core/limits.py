"""How much is too much: every bound that keeps one job from hurting its neighbours."""

from __future__ import annotations

from typing import Final

from streamq.errors import PayloadTooLarge

DEFAULT_MAX_PAYLOAD: Final = 1_048_576  # bytes; decoding 50 MB of nils made 400 MB of objects
WARN_PAYLOAD: Final = 65_536  # bytes; above it a job costs more to move than to run, the log says so once
MAX_BATCH: Final = 500  # jobs a script call; Lua cannot unpack more than about 8,000 values
MAX_ERRORS: Final = 10  # failed attempts kept per job; the newest explain, the older ones only weigh
MAX_TRACEBACK: Final = 8_192  # characters; a deep recursion writes a traceback larger than most jobs
MAX_DEAD_BYTES: Final = 4_096  # bytes of an undecodable entry kept: enough to recognise who wrote it
RING_SIZE: Final = 1_024  # request numbers remembered per producer; a client has far fewer under way
RING_TTL_MS: Final = 600_000  # ms; longer than any client goes on asking again for one request
IDEMPOTENCY_TTL_MS: Final = 86_400_000  # ms after the job finished; webhooks are sent again for hours


def check_payload(size: int, limit: int, what: str) -> None:
    """Refuse an encoded job or result of `size` bytes above `limit`; `what` names it in the message.

    Raises `PayloadTooLarge`.

        check_payload(len(body), app.max_payload, "the arguments of 'resize'")
    """
    if size > limit:
        raise PayloadTooLarge(
            f"{what}: {size:,} bytes once encoded, and at most {limit:,} are allowed. Store the data"
            " elsewhere and pass its id or a URL, or raise max_payload (STREAMQ_MAX_PAYLOAD) for the"
            " application and all its workers."
        )
