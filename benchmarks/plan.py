"""What is run in which order, and what is written down of it."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.environments import Environment
from benchmarks.processes import Failure
from benchmarks.scenarios import SCENARIOS
from benchmarks.stage import Figures, stage

BASE = "end_to_end"  # the rate that the load scenarios take their share of: drained, with the producer beside it

Record = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One run of one contender in one scenario."""

    scenario: str
    contender: str
    run: int


@dataclass
class Plan:
    """Contenders in a new order for each scenario of each run; a contender is there as an environment or an error."""

    environments: Mapping[str, Environment | Failure]
    scenarios: Sequence[str]
    runs: int
    seed: int
    quick: bool = False
    limit: int = 0  # at most so many jobs; 0: as many as the scenario says
    rates: dict[str, list[float]] = field(default_factory=dict)

    def steps(self) -> list[Step]:
        """All of them. Those that need a rate come last, when it has been measured in every run."""
        chance = random.Random(self.seed)
        found: list[Step] = []
        for last in (False, True):
            for run in range(self.runs):
                for name in self.scenarios:
                    if bool(SCENARIOS[name].share) is last:
                        entered = [each for each in self.environments if each in SCENARIOS[name].contenders]
                        chance.shuffle(entered)
                        found += [Step(name, contender, run) for contender in entered]
        return found

    def records(self) -> Iterator[tuple[Record, float]]:
        """Each run's record, and the seconds left after it."""
        steps = self.steps()
        spent: dict[str, list[float]] = {}
        for index, step in enumerate(steps):
            start = time.perf_counter()
            record = self._record(step)
            spent.setdefault(step.scenario, []).append(time.perf_counter() - start)
            known = [each for some in spent.values() for each in some]
            ahead = [statistics.mean(spent.get(each.scenario, known)) for each in steps[index + 1 :]]
            yield record, sum(ahead)

    def _record(self, step: Step) -> Record:
        record: Record = {"scenario": step.scenario, "contender": step.contender, "run": step.run, "jobs": 0}
        try:
            record["jobs"], record["figures"] = self._measure(step.scenario, step.contender)
        except Exception as error:  # whatever it is, it is this contender's result, and the others go on
            record["error"] = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
        else:
            if step.scenario == BASE:
                self.rates.setdefault(step.contender, []).append(record["figures"]["per_second"])
        return record

    def _measure(self, name: str, contender: str) -> tuple[int, Figures]:
        environment = self.environments[contender]
        if isinstance(environment, Failure):
            raise environment
        scenario = SCENARIOS[name]
        rate = scenario.share * self._rate(contender) if scenario.share else 0.0
        jobs = scenario.jobs(environment.contender.jobs, quick=self.quick, limit=self.limit)
        if rate:
            jobs = min(jobs, int(rate * 4))
        if name == "round_trip" and not environment.contender.results:
            raise Failure("not supported: no results")
        with stage(
            environment, jobs=jobs, concurrency=scenario.concurrency, rate=rate, pinned=scenario.pinned
        ) as set_up:
            return jobs, scenario.run(set_up)

    def _rate(self, contender: str) -> float:
        if contender not in self.rates:
            self.rates[contender] = [self._measure(BASE, contender)[1]["per_second"]]
        return statistics.median(self.rates[contender])
