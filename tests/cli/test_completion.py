"""`streamq completion`: the scripts, and what they ask for."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class

from streamq.cli.commands.completion import PLACES
from streamq.cli.main import COMPLETE, HOMES, streamq

from .conftest import PROJECT, Start

APP = """
from streamq import StreamQ
print("imported")
app = StreamQ("redis://localhost:1/0")

@app.every("1h", name="nightly")
@app.task(name="mail.send")
async def send() -> None: ...
"""


def completed(start: Start, *words: str, **environ: str) -> list[str]:
    """What bash would offer for the last word."""
    process = start(
        COMP_WORDS=" ".join(["streamq", *words]), COMP_CWORD=str(len(words)), **{COMPLETE: "bash_complete"}, **environ
    )
    out, err = process.communicate(timeout=20)
    assert err == ""
    return [line.partition(",")[2] for line in out.splitlines()]


@pytest.mark.parametrize("shell", list(PLACES))
def test_the_script_of_a_shell(start: Start, shell: str) -> None:
    process = start("completion", shell)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    found = get_completion_class(shell)
    assert found is not None
    assert out.rstrip() == found(streamq, {}, "streamq", COMPLETE).source().rstrip()
    assert f"{shell}_complete" in out


def test_on_a_terminal_it_says_where_to_put_it(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "streamq", "completion", "fish"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    _, err = process.communicate(timeout=20)
    os.close(ours)
    assert err == "# put it there: streamq completion fish > ~/.config/fish/completions/streamq.fish\n"


def test_commands_and_their_commands(start: Start) -> None:
    assert completed(start, "sch") == ["schedule"]
    assert set(completed(start, "")) >= set(HOMES)
    assert completed(start, "schedule", "") == ["list", "next", "pause", "resume", "run"]
    assert completed(start, "completion", "z") == ["zsh"]
    assert "worker" in completed(start, "wroker", "")


def test_options(start: Start) -> None:
    assert "--version" in completed(start, "--")
    assert completed(start, "worker", "--conc") == ["--concurrency"]
    assert completed(start, "worker", "--loop", "") == ["uvloop", "asyncio"]
    assert completed(start, "schedule", "list", "--js") == ["--json", "--jsonl"]


@pytest.mark.parametrize("environ", [{"STREAMQ_APP": "shop:app"}, {}], ids=["environment", "file"])
def test_names_of_the_application(start: Start, tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "shop.py").write_text(APP)
    if not environ:
        (tmp_path / "streamq.toml").write_text('app = "shop:app"')
    assert completed(start, "schedule", "pause", "", **environ) == ["nightly"]


def test_completing_commands_imports_none_of_them() -> None:
    code = (
        "import sys\n"
        "from streamq.cli.main import main\n"
        "sys.argv = ['streamq']\n"
        "try:\n    main()\n"
        "except SystemExit:\n"
        "    print([name for name in sys.modules if name.startswith('streamq.cli.commands')], file=sys.stderr)\n"
    )
    environ = {COMPLETE: "bash_complete", "COMP_WORDS": "streamq sch", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=os.environ | environ, capture_output=True, text=True, timeout=20
    )
    assert (done.stdout, done.stderr) == ("plain,schedule\n", "[]\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_itself(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "streamq"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m streamq "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(streamq completion bash)"
        COMP_WORDS=(streamq schedule pa) COMP_CWORD=2
        _streamq_completion streamq pa schedule
        echo "${COMPREPLY[@]}"
    """
    environ = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=20
    )
    assert (done.stdout, done.stderr) == ("pause\n", "")
