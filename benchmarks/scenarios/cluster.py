"""The same work over one, two and three shards of a Redis Cluster: the limit moves with their number.

The cluster is a real one, of masters without replicas, but streamq has no cluster URL yet. All keys of a queue share
one hash tag, and the list of queues has another. So for each master a namespace is looked for whose tags both lie in
its slots, and an application of its own, with one worker process, is run against the plain URL of that master.

Workers need as much CPU as the server does, so on a few cores they would be the limit, whatever the number of shards.
Therefore each master is held to a tenth of one core: the rates are not those of a server, only their ratios count.
"""

from __future__ import annotations

import shutil
import signal
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from benchmarks import marks
from benchmarks.processes import Failure, Process, end_all
from benchmarks.server import Server
from benchmarks.stage import Figures, Stage
from streamq.broker.keys import Keys, queues
from streamq.core.options import DEFAULT_QUEUE

HOST = "127.0.0.1"
FORMING = 20.0  # seconds for the masters to know each other
SHARE, PERIOD = 0.1, 100_000  # of one core, for each master; us
QUOTA = round(SHARE * PERIOD)
# Folder in which groups of processes are made, and what gives one its quota: version 2 of cgroup, version 1.
GROUPS: Mapping[str, Mapping[str, str]] = {
    "/sys/fs/cgroup": {"cpu.max": f"{QUOTA} {PERIOD}"},
    "/sys/fs/cgroup/cpu": {"cpu.cfs_period_us": f"{PERIOD}", "cpu.cfs_quota_us": f"{QUOTA}"},
}


def cluster(shards: int) -> Callable[[Stage], Figures]:
    """Workers are up and stand still while the queues are filled; first start to last acknowledgement of all shards."""

    def run(stage: Stage) -> Figures:
        brakes = [_brake(stage) for _ in range(shards)]
        stage.server.close()  # the masters take its place
        masters = _masters(stage, shards)
        parts = [_part(stage, master, slots) for master, slots in zip(masters, _joined(masters), strict=True)]
        for part in parts:
            part.start_workers()
            part.warm()
            part.workers[0].settle()
            part.send(signal.SIGSTOP)
            part.drive("fill")
        watches = [part.start_driver("watch") for part in parts]
        for watch in watches:
            watch.settle()
        meters = [part.meter() for part in parts]
        for brake, master in zip(brakes, masters, strict=True):
            brake(master.pid)
        for part in parts:
            part.send(signal.SIGCONT)
        found = [part.answer(watch) for part, watch in zip(parts, watches, strict=True)]
        spent = [meter() for meter in meters]
        jobs = sum(part.jobs for part in parts)
        took = max(each["acknowledged"] for each in found) - min(each["first"] for each in found)
        mean = {name: statistics.fmean(each[name] for each in spent) for name in spent[0]}
        busy = mean["server_cpu_us"] * 1e-6 * jobs / (took * SHARE * shards)
        return {"per_second": jobs / took, "shards": shards, "server_busy": busy} | mean

    return run


class Master(Server):
    """A server that is to be one shard."""

    def __init__(self, folder: Path, env: Mapping[str, str], number: int) -> None:
        port, self.bus = _free_ports()
        options = [
            "--bind", HOST, "--cluster-enabled", "yes", "--cluster-port", str(self.bus),
            "--cluster-config-file", f"nodes-{number}.conf",
        ]  # fmt: skip
        super().__init__(folder, env, name=f"master-{number}", port=port, options=options)

    def ask(self, *words: str | int) -> Any:
        """Send one command."""
        return self._client.execute_command(*words)  # type: ignore[no-untyped-call]

    @property
    def pid(self) -> int:
        return int(self._info("server")["process_id"])

    def knows(self, masters: int) -> bool:
        """Whether it takes the cluster for whole, and of so many masters."""
        said = self.ask("CLUSTER INFO")
        return bool(said["cluster_state"] == "ok" and int(said["cluster_size"]) == masters)


def _free_ports() -> tuple[int, int]:
    """For clients, and for the bus of the cluster."""
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind((HOST, 0))
        return first.getsockname()[1], second.getsockname()[1]


def _masters(stage: Stage, number: int) -> list[Master]:
    found: list[Master] = []
    for index in range(number):
        found.append(master := Master(stage.folder, stage.env, index))
        stage.processes.callback(master.close)
    for master in found:
        master.wait()
    return found


def _joined(masters: Sequence[Master]) -> list[range]:
    """Make a cluster of them; the slots of each."""
    bounds = [REDIS_CLUSTER_HASH_SLOTS * index // len(masters) for index in range(len(masters) + 1)]
    slots = [range(*each) for each in pairwise(bounds)]
    for epoch, (master, own) in enumerate(zip(masters, slots, strict=True), 1):
        master.ask("CLUSTER SET-CONFIG-EPOCH", epoch)
        master.ask("CLUSTER ADDSLOTSRANGE", own[0], own[-1])
    for other in masters[1:]:
        masters[0].ask("CLUSTER MEET", HOST, other.port, other.bus)
    deadline = time.perf_counter() + FORMING
    while not all(master.knows(len(masters)) for master in masters):
        if time.perf_counter() > deadline:
            raise Failure(f"the cluster is not formed within {FORMING:g} s")
        time.sleep(0.05)
    return slots


def _part(stage: Stage, master: Master, slots: range) -> Stage:
    """A stage for one shard: its server, its share of the jobs, marks of its own, a namespace in its slots."""
    jobs = max(1, stage.jobs * len(slots) // REDIS_CLUSTER_HASH_SLOTS)
    path = str(stage.folder / f"marks-{slots.start}")
    marks.create(path, max(jobs, 1_000))
    starts = marks.attach(path)
    stage.processes.callback(starts.release)
    stage.processes.callback(end_all, f"BENCH_MARKS={path}")
    env = stage.env | {"BENCH_MARKS": path, "BENCH_NAMESPACE": namespace_in(slots)}
    return replace(stage, jobs=jobs, env=env, server=master, starts=starts, workers=[])


def namespace_in(slots: range) -> str:
    """A namespace whose list of queues and whose default queue are both in these slots."""
    names = (f"bench{number}" for number in count())
    return next(
        name
        for name in names
        if all(key_slot(key.encode()) in slots for key in (queues(name), Keys(name, DEFAULT_QUEUE).jobs))
    )


def _brake(stage: Stage) -> Callable[[int], object]:
    """What holds the process with a pid to SHARE of one core. Raises `Failure` if nothing here can."""
    for folder, settings in GROUPS.items():
        if group := _group(Path(folder), settings):
            stage.processes.callback(group.rmdir)
            return lambda pid: (group / "cgroup.procs").write_text(str(pid))
    if program := shutil.which("cpulimit"):

        def limit(pid: int) -> None:
            command = [program, "--lazy", f"--pid={pid}", f"--limit={round(100 * SHARE)}"]
            process = Process(f"cpulimit-{pid}", command, folder=stage.folder, env=stage.env)
            stage.processes.callback(process.stop)

        return limit
    raise Failure("not supported: a share of a core needs a cgroup that can be written to (root), or cpulimit on PATH")


def _group(folder: Path, settings: Mapping[str, str]) -> Path | None:
    """A new group of processes with this quota; None if there is no such controller here, or it is not ours."""
    if not (folder / "cgroup.procs").exists():
        return None
    try:
        group = Path(tempfile.mkdtemp(prefix="streamq-bench-", dir=folder))
    except OSError:  # not root, or mounted read-only
        return None
    try:
        for name, value in settings.items():
            with (group / name).open("r+") as file:  # which does not make one
                file.write(value)
    except OSError:  # CPU is not among what is controlled here
        group.rmdir()
        return None
    return group
