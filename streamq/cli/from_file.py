"""Many jobs from a file or a pipe, a JSON object a line: read as it comes, enqueued 500 at a time, none unaccounted."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from streamq.cli.calls import longest, read_line
from streamq.cli.careful import counted
from streamq.cli.exits import Screen, Stopped, ending

if TYPE_CHECKING:
    from streamq.client.app import Application
    from streamq.client.handle import Job
    from streamq.client.partial import Signature

CHUNK: Final = 500
BLOCK: Final = 65_536

Line = tuple[int, bytes]
Rows = list[dict[str, Any]]


def lines_of(source: str) -> int | None:
    """How many lines there are to come; None if only the end will tell."""
    path = Path(source)
    if source == "-" or not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b"")) or 1


async def enqueue_lines(app: Application[Any], source: str, defaults: Mapping[str, Any]) -> AsyncGenerator[Rows, None]:
    """Enqueue the lines of a file ("-": of stdin), and give a row for each job, chunk by chunk.

    `defaults` are call options of all lines that do not say otherwise. Raises `Stopped` at the first line that cannot
    be enqueued; it says which, and what was enqueued before.
    """
    from streamq.errors import BrokerError

    count = 0
    async with aclosing(_lines(source, longest(app))) as chunks:
        async for lines in chunks:
            first, last = lines[0][0], lines[-1][0]
            calls, bad = _read(app, lines, defaults)
            try:
                answers = await _send(app, calls)
            except BrokerError as lost:
                doubt = f", of lines {first:,} to {last:,} nobody knows"
                raise _stopped(source, lost, f"lines from {first:,} on", count, first - 1, doubt) from lost
            rows = [_row(number, job) for number, job in answers.items() if not isinstance(job, BaseException)]
            count += len(rows)
            yield rows
            refused = next(((n, error) for n, error in answers.items() if isinstance(error, BaseException)), None)
            if stop := refused or bad:
                number, error = stop
                done = last if bad is None else bad[0] - 1
                raise _stopped(source, error, f"line {number:,}", count, done) from error


def _read(
    app: Application[Any], lines: list[Line], defaults: Mapping[str, Any]
) -> tuple[dict[int, Signature[Any]], tuple[int, Exception] | None]:
    """The calls of these lines, as far as the first bad one."""
    from streamq.errors import StreamQError

    calls: dict[int, Signature[Any]] = {}
    for number, line in lines:
        try:
            calls[number] = read_line(app, line, defaults)
        except (Stopped, StreamQError) as error:
            return calls, (number, error)
    return calls, None


async def _send(app: Application[Any], calls: Mapping[int, Signature[Any]]) -> dict[int, Job[Any] | BaseException]:
    """What became of each line. What can be refused for a reason of its own is sent on its own."""
    together = {n: call for n, call in calls.items() if not (app.middleware or call.options.idempotency_key)}
    alone = {n: call for n, call in calls.items() if n not in together}
    answers: dict[int, Job[Any] | BaseException] = {}
    if together:
        answers.update(zip(together, await app.enqueue_many(together.values(), CHUNK), strict=True))
    told = await asyncio.gather(*(app.enqueue_many([call]) for call in alone.values()), return_exceptions=True)
    for number, answer in zip(alone, told, strict=True):
        answers[number] = answer if isinstance(answer, BaseException) else answer[0]
    return dict(sorted(answers.items()))


def _row(number: int, job: Job[Any]) -> dict[str, Any]:
    return {"line": number, "id": job.id, "task": job.task, "queue": job.queue, "deduplicated": job.deduplicated}


def _stopped(source: str, error: BaseException, which: str, count: int, last: int, doubt: str = "") -> Stopped:
    """The end at `which` lines; `count` jobs of the lines up to `last` are enqueued."""
    code, screen = ending(error)
    name = "stdin" if source == "-" else source
    done = (
        f"{counted(count, 'job')} of lines 1 to {last:,} {'is' if count == 1 else 'are'} enqueued"
        if count
        else "nothing is enqueued"
    )
    words = ["-" if word == source else word.replace(f"={source}", "=-") for word in sys.argv[1:]]
    rest = f"tail -n +{last + 1} {shlex.quote(source)} | {shlex.join(['streamq', *words])}"
    typed = f"the lines from {last + 1:,} on, once more" if source == "-" else f"{rest}    once it is mended"
    return Stopped(Screen(f"{which} of {name}: {screen.what}", f"{done}{doubt}", screen.cause, typed), code)


# ---- reading -------------------------------------------------------------------------------------------------


async def _lines(source: str, limit: int) -> AsyncGenerator[list[Line], None]:
    """At most 500 lines at a time, numbered from 1; sooner if a pipe has no more just now."""
    number, rest = 0, b""
    async with aclosing(_blocks(source)) as blocks:
        async for block in blocks:
            *lines, rest = (rest + block).split(b"\n")
            found = [(number + n, line) for n, line in enumerate(lines, start=1) if line.strip()]
            number += len(lines)
            for first in range(0, len(found), CHUNK):
                yield found[first : first + CHUNK]
            if len(rest) > limit:
                break  # it will be refused as it is
    if rest.strip():
        yield [(number + 1, rest)]


async def _blocks(source: str) -> AsyncGenerator[bytes, None]:
    """What there is to read. No thread waits in a read, for none could be interrupted by Ctrl-C."""
    with _opened(source) as descriptor:
        while True:
            await _readable(descriptor)
            block = os.read(descriptor, BLOCK)
            if not block:
                return
            yield block


async def _readable(descriptor: int) -> None:
    """Wait until a read would not wait. A reader each time: one that stayed would report what is being read once more,
    and the next read would wait where nobody can interrupt it.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(descriptor, _resolve, ready)
    except PermissionError:  # a regular file: it never makes anybody wait
        return
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


@contextmanager
def _opened(source: str) -> Generator[int]:
    if source == "-":
        yield sys.stdin.fileno()
    else:
        with Path(source).open("rb", buffering=0) as file:
            yield file.fileno()
