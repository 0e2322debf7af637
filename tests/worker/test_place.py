"""How long a supervisor waits before it replaces a process, and what it calls its end."""

from __future__ import annotations

import signal
import subprocess
import sys

from streamq.worker.place import pause_after, reading


def test_the_pause_between_two_tries_is_bounded() -> None:
    longest = [max(pause_after(failures) for _ in range(100)) for failures in range(1, 40)]
    assert longest[0] <= 0.25
    assert max(longest) <= 30
    assert min(pause_after(1_000) for _ in range(100)) >= 15
    assert len({pause_after(5) for _ in range(10)}) > 1


def test_ends_are_read_as_people_know_them() -> None:
    assert reading(0) == "exit code 0"
    assert reading(-signal.SIGKILL) == "SIGKILL"
    assert reading(-40) == "signal 40"


def test_a_supervisor_imports_nothing_that_speaks_to_redis() -> None:
    code = "import sys, streamq.worker.supervisor as _; print({'redis', 'streamq.client.app'} & {*sys.modules})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"
