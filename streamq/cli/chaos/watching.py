"""What the books say while a run goes on: counters for the screen, who holds what, how many jobs wait."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from streamq.cli.trial.judge import KILL
from streamq.cli.trial.ledger import ABORT, ACKED, END, FAIL, FAULT, START, UP, Entry, Reader


@dataclass(slots=True)
class Watch:
    """Reads on at each `look`. The entries of the present round are kept for the judge."""

    reader: Reader
    entries: list[Entry] = field(default_factory=list[Entry])
    up: set[int] = field(default_factory=set[int])
    done_by: Counter[int] = field(default_factory=Counter[int])
    recovered: int = 0  # jobs that another worker began after a kill
    finished: int = 0
    _enqueued: int = 0  # before this round
    _acked: set[str] = field(default_factory=set[str])
    _ended: set[str] = field(default_factory=set[str])
    _holding: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _cut_off: set[str] = field(default_factory=set[str])

    @property
    def enqueued(self) -> int:
        """Jobs that Redis has acknowledged, in all rounds."""
        return self._enqueued + len(self._acked)

    def held(self, pid: int) -> int:
        """Jobs that a process has begun and not ended."""
        return self._holding[pid].total()

    def waiting(self) -> int:
        """Jobs that were acknowledged and have not come to their end."""
        return len(self._acked) - len(self._ended & self._acked)

    def look(self) -> None:
        """Read on."""
        for entry in self.reader.news():
            self.entries.append(entry)
            if entry.event == ACKED:
                self._acked.add(entry.job_id)
            elif entry.event == START:
                self._began(entry)
            elif entry.event in (END, FAIL, ABORT):
                self._over(entry)
            elif entry.event == UP:
                self.up.add(entry.pid)
            elif entry.event == FAULT and entry.key.startswith(KILL):
                self._cut_off.update(self._holding.pop(int(entry.key.removeprefix(KILL)), ()))

    def next_round(self, *, emptied: bool) -> None:
        """What was judged is forgotten, and the books emptied; the counters go on."""
        self.look()
        if emptied:
            self.reader.forget()
        self._enqueued += len(self._acked)
        self.entries, self._acked, self._ended, self._cut_off = [], set(), set(), set()
        self._holding.clear()

    def _began(self, entry: Entry) -> None:
        self._holding[entry.pid][entry.job_id] += 1
        if entry.job_id in self._cut_off:
            self._cut_off.discard(entry.job_id)
            self.recovered += 1

    def _over(self, entry: Entry) -> None:
        holding = self._holding[entry.pid]
        holding[entry.job_id] -= 1
        if holding[entry.job_id] <= 0:
            del holding[entry.job_id]
        if entry.event == END and entry.job_id not in self._ended:
            self._ended.add(entry.job_id)
            self.finished += 1
            self.done_by[entry.pid] += 1
