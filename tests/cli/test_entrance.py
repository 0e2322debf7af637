"""`streamq` itself: the help is quick and complete, the version is said."""

from __future__ import annotations

import subprocess
import sys

import streamq
from streamq.cli.main import COMMANDS

from .conftest import PROJECT, Start

HEAVY = ("redis", "uvloop", "msgspec", "asyncio")


def test_the_help_names_every_command(start: Start) -> None:
    process = start("--help")
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert all(about in out for _, about in COMMANDS.values())


def test_the_help_imports_nothing_heavy() -> None:
    """It has to answer in 200 ms; redis alone takes longer than that on a slow machine."""
    code = (
        "import sys\n"
        "from streamq.cli.main import main\n"
        "sys.argv = ['streamq', '--help']\n"
        "try:\n    main()\n"
        f"except SystemExit:\n    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=20)
    assert done.stderr.strip() == "[]"


def test_each_command_has_help(start: Start) -> None:
    for name in COMMANDS:
        process = start(name, "--help")
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "")
        assert f"streamq {name}" in out


def test_the_version(start: Start) -> None:
    out, _ = start("--version").communicate(timeout=20)
    assert out == f"streamq {streamq.__version__}\n"
