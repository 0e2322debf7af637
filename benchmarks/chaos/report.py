"""What `chaos` has written, added up: a table in docs/reliability.md, the data of `streamq chaos --compare`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from benchmarks.chaos.drive import Result
from benchmarks.chaos.peers import NAMES
from streamq.cli.chaos.compare import RECORDED, Comparison, System

BEGIN, END = "<!-- chaos -->", "<!-- /chaos -->"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
SHOWN = {"streamq": "streamq", "streaq": "streaQ", "taskiq_streams": "taskiq-redis, stream broker"}
ASIDE = {"uvloop", "msgspec", "orjson", "hiredis"}  # packages that are not shown in a sentence


class Environment(msgspec.Struct):
    """The first line of a file."""

    date: str
    python: str
    machine: str
    cores: int
    server: str
    versions: dict[str, dict[str, str]]
    settings: dict[str, str]
    plan: dict[str, float]


def main(paths: Sequence[Path], page: Path = PAGE, data: Path = RECORDED) -> str:
    """Write both. Raises ValueError for files that do not fit together, and for a run that failed."""
    found = added_up(paths)
    data.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    shown = table(found)
    text = page.read_text(encoding="utf-8")
    before, mark, rest = text.partition(BEGIN)
    if not mark or END not in rest:
        return f"{shown}\n\n{page} has no {BEGIN} and {END}: nothing was changed there."
    page.write_text(f"{before}{BEGIN}\n\n{shown}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return shown


def added_up(paths: Iterable[Path]) -> Comparison:
    """All runs of each queue together."""
    environments: list[Environment] = []
    results: dict[str, list[Result]] = {name: [] for name in NAMES}
    for path in paths:
        for line in path.read_bytes().splitlines():
            values = msgspec.json.decode(line, type=dict[str, object])
            if "environment" in values:
                environments.append(msgspec.convert(values["environment"], Environment))
            elif "error" in values:
                raise ValueError(f"{path}: {values['name']} failed under seed {values['seed']}: {values['error']}")
            else:
                result = msgspec.convert(values, Result)
                results[result.name].append(result)
    if not environments:
        raise ValueError("no environment is described")
    first = environments[0]
    if any(
        (each.versions, each.plan, each.machine) != (first.versions, first.plan, first.machine) for each in environments
    ):
        raise ValueError("the files are of different versions, plans or machines")
    return Comparison(
        date=first.date[:10],
        machine=f"{first.machine}, {first.cores} cores, Python {first.python}",
        server=f"{first.server} without persistence",
        seeds=sorted({result.seed for found in results.values() for result in found}),
        seconds=first.plan["seconds"],
        waited=first.plan["waited"],
        settings={name: first.plan[name] for name in ("workers", "concurrency", "lease", "rate")},
        systems=[_system(name, found, first) for name, found in results.items() if found],
    )


def _system(name: str, found: Sequence[Result], environment: Environment) -> System:
    def faults(*kinds: str) -> int:
        return sum(result.faults.get(kind, 0) for result in found for kind in kinds)

    versions = environment.versions[name].items()
    return System(
        name=SHOWN[name],
        versions={package: version for package, version in versions if package not in ASIDE},
        settings=environment.settings[name],
        runs=len(found),
        kills=faults("kill", "kill in shutdown"),
        stops=faults("stop"),
        restarts=faults("restart"),
        acknowledged=sum(result.acknowledged for result in found),
        lost=sum(result.lost for result in found),
        ended_twice=sum(result.ended_twice for result in found),
        started_again=sum(result.started_again for result in found),
        recovery_p50=round(statistics.median(result.recovery_p50 for result in found), 2),
        recovery_max=max(result.recovery_max for result in found),
    )


def table(found: Comparison) -> str:
    """For docs/reliability.md."""
    lines = [
        "| | kills | stops | restarts | acknowledged | lost | ended twice | started again | kill to next start |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in found.systems:
        counts = (
            each.kills,
            each.stops,
            each.restarts,
            each.acknowledged,
            each.lost,
            each.ended_twice,
            each.started_again,
        )
        cells = " | ".join(f"{count:,}" for count in counts)
        lines.append(f"| {each.name} | {cells} | median {each.recovery_p50:.2f} s, at most {each.recovery_max:.2f} s |")
    versions = "; ".join(
        f"{each.name}: " + ", ".join(f"{package} {version}" for package, version in each.versions.items())
        for each in found.systems
    )
    settings = "\n".join(f"* {each.name}: {each.settings}." for each in found.systems)
    seeds = ", ".join(map(str, found.seeds))
    taken = f"Measured on {found.date}: {found.machine}, {found.server}, {found.seconds:g} s each, seeds {seeds}."
    return "\n".join([*lines, "", f"{taken} {versions}.", "", settings])
