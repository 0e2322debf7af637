"""`streamq` itself: the help is quick and complete, the version is said."""

from __future__ import annotations

import json
import subprocess
import sys

import streamq
from streamq.cli.main import COMMANDS, HOMES

from .conftest import PROJECT, Start

HEAVY = ("redis", "uvloop", "msgspec", "asyncio")


def test_the_help_names_every_command(start: Start) -> None:
    process = start("--help")
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert all(about in out for section in COMMANDS.values() for _, about in section.values())


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


LOOK = """
import click, contextlib, io, json, sys
from streamq.cli.main import Session, streamq

HEAVY = ("redis", "rich", "streamq.client", "streamq.broker", "streamq.worker")

def look(words, command):
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            streamq.main([*words, "--help"], prog_name="streamq", obj=Session())
    except SystemExit as ended:
        code = ended.code
    heavy = [name for name in HEAVY if name in sys.modules]
    found.append([" ".join(words), code, out.getvalue(), command.help, heavy])
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            look([*words, name], command.get_command(context, name))

found = []
look([], streamq)
print(json.dumps(found))
"""


def test_each_command_has_help_and_imports_little_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert set(HOMES) | {"schedule pause"} <= {words for words, *_ in found}
    for words, code, out, about, heavy in found:
        assert (words, code, heavy) == (words, 0, [])
        assert out.startswith(f"Usage: streamq {words}".rstrip())
        assert about, f"streamq {words} does not say what it is for"


def test_without_a_command_the_help_is_shown(start: Start) -> None:
    for words in ((), ("schedule",)):
        process = start(*words)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (2, "")
        assert err.startswith("Usage: ")
        assert "\n  type " not in err


def test_the_version(start: Start) -> None:
    out, _ = start("--version").communicate(timeout=20)
    assert out == f"streamq {streamq.__version__}\n"


def test_every_option_has_a_variable(start: Start, url: str, namespace: str) -> None:
    for n in range(3):
        start("enqueue", "shop.add", str(n), "--url", url, STREAMQ_NAMESPACE=namespace).communicate(timeout=20)
    listed = start("jobs", "list", "--url", url, STREAMQ_NAMESPACE=namespace, STREAMQ_JOBS_LIST_LIMIT="2")
    out, _ = listed.communicate(timeout=20)
    assert len(out.splitlines()) == 2
    wrong = start("jobs", "list", "--url", url, STREAMQ_JOBS_LIST_LIMIT="many")
    _, err = wrong.communicate(timeout=20)
    assert (wrong.returncode, "'many' is not a valid integer" in err) == (2, True)


def test_a_variable_that_only_sounds_like_an_option_does_nothing(start: Start) -> None:
    process = start("--help", STREAMQ_VERSION="3", STREAMQ_VERBOSE="loud")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("Usage: ")
