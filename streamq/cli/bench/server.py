"""The server that is measured: what it is, what it spends, whether it has room; and leaving nothing on it."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from streamq.broker.address import Address
from streamq.broker.inspector import Inspector
from streamq.broker.keys import queues
from streamq.cli.bench.figures import Surroundings
from streamq.cli.bench.tasks import app
from streamq.cli.exits import Exit, Screen, Stopped
from streamq.core.options import DEFAULT_QUEUE, PRIORITIES
from streamq.errors import BrokerError

BYTES_A_JOB: Final = 300  # in Redis: queued, or finished with its record, rounded up
IDLE: Final = 0.3  # seconds of watching what others do there
PINGS: Final = 100
PINGING: Final = 1.0  # seconds at most
BATCH: Final = 1_000  # keys a command: more would hold up other clients
PROC_STAT: Final = Path("/proc/stat")
LOCAL: Final = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class Reading:
    """Clock, and CPU times of the producer, this whole machine, and the server (None: it does not tell); seconds."""

    asked: float
    answered: float
    producer: float
    machine: float
    server: float | None
    server_thread: float | None


@dataclass(frozen=True, slots=True)
class Server:
    """What it is. `others` is the part of a core that it used for others while we did nothing."""

    name: str
    where: str
    embedded: bool
    others: float | None
    around: Surroundings


async def reading() -> Reading:
    """What has been spent so far."""
    asked, producer, machine = time.perf_counter(), time.process_time(), _machine()
    told = await app.broker.info("cpu", _home())
    answered = time.perf_counter()
    return Reading(asked, answered, producer, machine, _cpu(told, ""), _cpu(told, "_main_thread"))


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _machine() -> float:
    """What our cores have done so far, for whomever, and what a hypervisor took of them; 0 where there is no /proc."""
    try:
        lines = [line.split() for line in PROC_STAT.read_text().splitlines() if line.startswith("cpu")]
    except OSError:
        return 0.0
    ours = {f"cpu{core}" for core in _cores()}
    # user nice system idle iowait irq softirq steal
    busy = sum(sum(map(int, each[1:9])) - int(each[4]) - int(each[5]) for each in lines if each[0] in ours)
    return busy / os.sysconf("SC_CLK_TCK")


def _cpu(told: dict[str, str], which: str) -> float | None:
    try:
        return float(told[f"used_cpu_user{which}"]) + float(told[f"used_cpu_sys{which}"])
    except KeyError:
        return None


async def look(jobs: int) -> Server:
    """What the server is, if so many jobs fit in there and can be deleted again.

    Raises `Stopped`, `BrokerError` for a command that its ACL forbids.
    """
    await _room(jobs * BYTES_A_JOB)
    await app.broker.command("SCAN", 0, "COUNT", 1, node=_home())
    await app.broker.command("UNLINK", queues(app.options.namespace))
    told = await app.broker.info("server", _home())
    kind = "valkey" if "valkey_version" in told else "redis"
    before = await reading()
    await asyncio.sleep(IDLE)
    after = await reading()
    address = app.broker.connections.address
    local = address.scheme in ("unix", "embedded") or address.host in LOCAL
    here = frozenset({"producer", "worker", "server"} if local else {"producer", "worker"})
    return Server(
        name=f"{kind} {told.get(f'{kind}_version', 'of an unknown version')}",
        where=str(address),
        embedded=address.scheme == "embedded",
        others=None
        if before.server is None or after.server is None
        else (after.server - before.server) / (after.asked - before.answered),
        around=Surroundings(await _ping_ms(), len(_cores()), here),
    )


async def _room(needed: int) -> None:
    told = await app.broker.info("memory", _home())
    limit = int(told.get("maxmemory", 0))
    if limit and (free := limit - int(told["used_memory"])) < needed:
        raise Stopped(
            Screen(
                f"the server has room for {max(0, free) / 1e6:,.1f} MB, and the jobs take about {needed / 1e6:,.1f} MB",
                app.broker.where,
                f"its maxmemory is {limit / 1e6:,.1f} MB",
                f"--jobs {few}" if (few := free // BYTES_A_JOB // 2) >= 1_000 else "redis-cli INFO memory",
            ),
            Exit.UNSUITABLE,
        )


def _home() -> Address:
    return app.broker.connections.home(app.broker.keys(DEFAULT_QUEUE).jobs)


async def _ping_ms() -> float:
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < PINGS and time.perf_counter() - begun < PINGING:
        before = time.perf_counter()
        await app.broker.command("PING", node=_home())
        times.append((time.perf_counter() - before) * 1000)
    return statistics.median(times)


async def forget(job_ids: Iterable[str] = ()) -> None:
    """Delete what one run left, by name: looking for it would take long where there are many other keys."""
    keys = app.broker.keys(DEFAULT_QUEUE)
    names = iter([keys.jobs, *map(keys.stream, PRIORITIES), *(keys.records + job_id for job_id in job_ids)])
    while some := list(islice(names, BATCH)):
        await app.broker.command("UNLINK", *some)


async def sweep() -> None:
    """Delete every key of the namespace. Raises `Stopped` if Redis is away: the user has to do it then."""
    address = app.broker.connections.address
    command = f"redis-cli -s {address.path}" if address.scheme == "unix" else f"redis-cli -u {address}"
    pattern = f"sq:{{{app.options.namespace}*"
    try:
        await app.link.drain()  # what a cancelled call has sent
        async for names in Inspector(app.broker).keys():
            await app.broker.command("UNLINK", *names)
    except BrokerError as error:
        screen = Screen(
            "the keys of this benchmark could not be deleted",
            str(address),
            str(error),
            f"{command} --scan --pattern '{pattern}' | xargs {command} unlink",
        )
        raise Stopped(screen, Exit.UNREACHABLE) from error
