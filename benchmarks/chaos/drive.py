"""One run: a fresh server, workers and a producer of one queue, the schedule of a seed, and what the books say."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.environments import Environment
from benchmarks.processes import REPOSITORY, Failure, end_all
from benchmarks.server import Server
from streamq.cli.chaos.conduct import Conductor
from streamq.cli.chaos.schedule import OF_WORKERS, schedule
from streamq.cli.chaos.watching import Watch
from streamq.cli.trial.crew import Crew, last_words, until
from streamq.cli.trial.judge import runs_of
from streamq.cli.trial.ledger import ACKED, END, START, Entry, Ledger, Reader

PEERS = Path(__file__).parent / "peers"
RATE = 200.0  # jobs a second
TRICKLE = 20.0  # while it is waited: some queues look after the jobs of the dead when new ones come
WAIT_LEASES = 10.0  # after the last fault
CALM = 3.0  # seconds after the last job
UP_WITHIN = 60.0


@dataclass(frozen=True)
class Plan:
    """The same for all queues. Seconds."""

    seconds: float
    workers: int = 3
    concurrency: int = 16
    lease: float = 1.0

    @property
    def waited(self) -> float:
        """From the last fault on until a job that has not ended counts as lost."""
        return WAIT_LEASES * self.lease + CALM


class Result(msgspec.Struct):
    """What one queue did under one seed."""

    name: str
    seed: int
    seconds: float
    faults: dict[str, int]
    acknowledged: int
    lost: int
    ended_twice: int
    started_again: int
    recovered: int  # starts of jobs that a kill had cut off
    recovery_p50: float  # seconds from the kill to that start
    recovery_max: float
    lost_jobs: list[str] = []  # the first few


def settings_of(name: str) -> str:
    """What its module says of its configuration; the module itself can only be imported in its environment."""
    for node in ast.parse((PEERS / f"{name}.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "SETTINGS":
            said: str = ast.literal_eval(node.value)
            return said
    raise Failure(f"benchmarks/chaos/peers/{name}.py has no SETTINGS")


def strike(environment: Environment, plan: Plan, seed: int) -> Result:
    """Play one schedule against one queue. Raises `Failure` with the last words of a worker that does not start."""
    with tempfile.TemporaryDirectory(prefix="bench-chaos-") as name, ExitStack() as afterwards:
        folder = Path(name)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMQ_", "PYTHON"))}
        environ |= {"PYTHONPATH": str(REPOSITORY), "CHAOS_FOLDER": str(folder), "CHAOS_SEED": str(seed)}
        afterwards.callback(end_all, f"CHAOS_FOLDER={folder}")
        server = Server(folder, environ)
        afterwards.callback(server.close)
        server.wait()
        environ |= {
            "CHAOS_URL": server.url,
            "CHAOS_CONCURRENCY": str(plan.concurrency),
            "CHAOS_LEASE": str(plan.lease),
        }
        return asyncio.run(_struck(environment, plan, seed, environ, folder))


async def _struck(environment: Environment, plan: Plan, seed: int, environ: dict[str, str], folder: Path) -> Result:
    name = environment.contender.name
    faults = schedule(seed, plan.seconds, workers=plan.workers, lease=plan.lease, kinds=OF_WORKERS)
    python = environment.command("")[0]
    watch = Watch(Reader(folder))
    with ExitStack() as afterwards:
        book = afterwards.enter_context(Ledger(folder))
        crew = Crew(lambda _: [python, "-m", "benchmarks.chaos.run", name, "worker"], environ, folder)
        afterwards.callback(crew.end)
        producer = Crew(lambda _: [python, "-m", "benchmarks.chaos.run", name, "produce"], environ, folder / "p")
        (folder / "p").mkdir()
        afterwards.callback(producer.end)
        sending = producer.start()
        conductor = Conductor(
            crew, plan.workers, book, lambda *_: None, up=watch.up, held=watch.held, enough=10 * len(faults)
        )
        async with _looking(watch):
            if not await conductor.staffed() or not await until(lambda: sending.pid in watch.up, UP_WITHIN):
                raise Failure(f"{name} does not start:\n{last_words(crew.hands[0].log)}{last_words(sending.log)}")
            _set_rate(sending.process, RATE)
            begun = time.monotonic()
            await conductor.play(faults)
            await conductor.watch(begun + plan.seconds)
            await conductor.finish()
            _set_rate(sending.process, TRICKLE)
            await conductor.watch(time.monotonic() + WAIT_LEASES * plan.lease)
            assert sending.process.stdin is not None
            sending.process.stdin.close()
            if not await until(lambda: not sending.alive, 10) or sending.process.returncode:
                raise Failure(f"the producer of {name} did not end well:\n{last_words(sending.log, 30)}")
            await conductor.watch(time.monotonic() + CALM)
        watch.look()
        done = Counter(fault.kind.value for fault in conductor.done)
        return judged(name, seed, plan.seconds, dict(done), watch.entries)


@asynccontextmanager
async def _looking(watch: Watch) -> AsyncIterator[None]:
    async def look() -> None:
        while True:
            watch.look()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()


def _set_rate(process: subprocess.Popen[bytes], rate: float) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{rate}\n".encode())
    process.stdin.flush()


def judged(name: str, seed: int, seconds: float, faults: dict[str, int], entries: Sequence[Entry]) -> Result:
    """As far as it can be seen from outside: jobs that never ended, that ended twice, that began again."""
    entries = sorted(entries, key=lambda entry: entry.at)
    counts = {event: Counter(each.job_id for each in entries if each.event == event) for event in (ACKED, START, END)}
    _, recoveries = runs_of(entries)
    times = sorted(each.seconds for each in recoveries)
    lost = sorted(counts[ACKED].keys() - counts[END].keys())
    return Result(
        name=name,
        seed=seed,
        seconds=seconds,
        faults=faults,
        acknowledged=len(counts[ACKED]),
        lost=len(lost),
        ended_twice=sum(count > 1 for count in counts[END].values()),
        started_again=sum(count > 1 for count in counts[START].values()),
        recovered=len(times),
        recovery_p50=round(times[len(times) // 2], 2) if times else 0.0,
        recovery_max=round(times[-1], 2) if times else 0.0,
        lost_jobs=lost[:10],
    )
