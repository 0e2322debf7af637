"""streamq.toml and [tool.streamq]: which file counts, above what, and what is refused; and `streamq config`."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import click
import pytest

from streamq.cli.commands.worker import worker
from streamq.cli.exits import Exit, Stopped
from streamq.cli.main import main, streamq
from streamq.cli.project import Project, find, forget, options, settings
from streamq.client.settings import _APP as KNOWN
from streamq.core.options import AppOptions

from .conftest import Start

JOBS = "from streamq import StreamQ\napp = StreamQ({})\n@app.task\nasync def job() -> None: ...\n"


@dataclass
class Ended:
    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which commands are typed; the environment and what they import are as before afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before, modules = dict(os.environ), set(sys.modules)
    for name in [each for each in os.environ if each.startswith("STREAMQ_")]:
        del os.environ[name]
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)
    for name in set(sys.modules) - modules:
        if name.startswith("shop"):
            del sys.modules[name]


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["streamq", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(int(str(ended.value.code)), *capsys.readouterr())

    return run


# ---- which file --------------------------------------------------------------------------------------------------


def test_the_nearest_file_counts(folder: Path) -> None:
    below = folder / "src" / "deep"
    below.mkdir(parents=True)
    (folder / "streamq.toml").write_text('namespace = "above"')
    assert find(below).settings == {"namespace": "above"}
    (folder / "src" / "pyproject.toml").write_text('[tool.other]\nx = 1\n[tool.streamq]\nnamespace = "between"')
    assert find(below).settings == {"namespace": "between"}
    (below / "pyproject.toml").write_text("[tool.other]\nx = 1")  # says nothing about streamq
    assert find(below).settings == {"namespace": "between"}
    (folder / "src" / "streamq.toml").write_text('namespace = "own file"')
    assert find(below).settings == {"namespace": "own file"}
    (below / "pyproject.toml").write_text("[tool.other\nx = 1")  # somebody else's mistake
    assert find(below).path == folder / "src" / "streamq.toml"


def test_a_variable_can_name_the_file_or_none(folder: Path) -> None:
    (folder / "streamq.toml").write_text('namespace = "found"')
    (folder / "other.toml").write_text('namespace = "named"')
    assert find(environ={"STREAMQ_CONFIG": "other.toml"}).settings == {"namespace": "named"}
    assert find(environ={"STREAMQ_CONFIG": ""}) == Project()
    assert find(environ={}).settings == {"namespace": "found"}
    with pytest.raises(Stopped) as stopped:
        find(environ={"STREAMQ_CONFIG": "missing.toml"})
    assert str(stopped.value) == (
        "streamq: there is no file missing.toml\n\n"
        "  where  STREAMQ_CONFIG\n"
        "  cause  the path is misspelt\n"
        "  type   export STREAMQ_CONFIG=FILE"
    )


def test_the_environment_stands_above_the_file() -> None:
    found = Project(None, {"namespace": "file", "lease": 5, "accept": ["json"], "ignore_result": True})
    environ = {"STREAMQ_NAMESPACE": "environment", "STREAMQ_LEASE": ""}
    assert found.apply(environ) == ("lease", "accept", "ignore_result")
    assert environ == {
        "STREAMQ_NAMESPACE": "environment",
        "STREAMQ_LEASE": "5",
        "STREAMQ_ACCEPT": "json",
        "STREAMQ_IGNORE_RESULT": "true",
    }


def test_the_settings_of_a_file_are_those_that_have_a_variable() -> None:
    assert set(settings()) == {"app", "url", *KNOWN}
    assert {*KNOWN, "codec"} == {each.name for each in fields(AppOptions)}


@pytest.mark.parametrize("target", ["shop_above:app", "shop_above.py:app"])
def test_an_application_is_named_as_seen_from_its_file(folder: Path, command: Command, target: str) -> None:
    (folder / "streamq.toml").write_text(f'app = "{target}"')
    (folder / "shop_above.py").write_text(JOBS.format("'redis://localhost:1/7'"))
    (folder / "below").mkdir()
    os.chdir(folder / "below")
    ended = command("config")
    assert (ended.code, ended.err) == (0, "")
    assert rows(ended)["url"][0] == "redis://localhost:1/7"


# ---- options of commands -----------------------------------------------------------------------------------------


def test_options_are_spelt_as_on_the_command_line(folder: Path) -> None:
    (folder / "streamq.toml").write_text(
        '[worker]\nqueues = ["high:3", "low"]\nlog-level = "debug"\nlog_format = "json"\nburst = true\n'
        "[schedule.list]\njson = true\n"
        '[bench]\nscenario = ["bulk", "drain"]\n'
    )
    assert find().defaults(streamq) == {
        "worker": {"queues": "high:3,low", "log_level": "debug", "log_format": "json", "burst": True},
        "schedule": {"list": {"form": "json"}},
        "bench": {"scenarios": ["bulk", "drain"]},
    }


SCREENS = [
    (
        'namespce = "shop"',
        """\
streamq: the key 'namespce' is not known

  where  streamq.toml
  cause  it is misspelt: there is namespace
  type   namespace = "shop"
""",
    ),
    (
        "[worker]\nconcurency = 50",
        """\
streamq: the key 'concurency' is not known

  where  streamq.toml, [worker]
  cause  it is misspelt: there is concurrency
  type   concurrency = 50
""",
    ),
    (
        "[wroker]\nconcurrency = 50",
        """\
streamq: the section 'wroker' is not known

  where  streamq.toml
  cause  it is misspelt: there is worker
  type   [worker]
""",
    ),
    (
        "[schedule.lst]\njson = true",
        """\
streamq: the section 'lst' is not known

  where  streamq.toml, [schedule]
  cause  it is misspelt: there is list
  type   [schedule.list]
""",
    ),
    (
        "[completion]\nzzzz = 1",
        """\
streamq: the key 'zzzz' is not known

  where  streamq.toml, [completion]
  cause  there are none
  type   streamq completion --help
""",
    ),
    (
        '[worker]\nconcurrency = "many"',
        """\
streamq: concurrency: 'many' is not a valid integer range.

  where  streamq.toml, [worker]
  type   mend that line of the file
""",
    ),
    (
        "namespace = ",
        """\
streamq: streamq.toml cannot be read

  where  {here}/streamq.toml
  cause  Invalid value (at end of document)
  type   mend that line of the file
""",
    ),
    (
        'lease = "3x"',
        """\
streamq: lease='3x' is not a duration: give seconds (90, 0.25), a timedelta, or text like "250ms", "90s", "1h30m", \
"1.5h", "2d", "1w".

  where  streamq.toml, lease
  type   mend that line of the file
""",
    ),
]


@pytest.mark.parametrize(("text", "screen"), SCREENS, ids=[each[0] for each in SCREENS])
def test_what_cannot_be_used_is_one_screen(folder: Path, command: Command, text: str, screen: str) -> None:
    (folder / "streamq.toml").write_text(text)
    for words in (("config",), ("schedule", "list", "--app", "shop:app")):
        (folder / "shop.py").write_text(JOBS.format("'redis://localhost:1/0'"))
        ended = command(*words)
        assert ended.err.partition("\n\nTraceback")[0] == screen.format(here=folder)
        assert (ended.code, ended.out) == (Exit.USAGE, "")
        sys.modules.pop("shop", None)
        os.environ.pop("STREAMQ_LEASE", None)  # the process goes on, which it never does


@pytest.mark.parametrize("words", [("worker", "--help"), ("schedule", "list", "-h"), ("--help",), ("--version",)])
def test_help_comes_whatever_the_file_says(folder: Path, command: Command, words: tuple[str, ...]) -> None:
    (folder / "streamq.toml").write_text("namespce = ")
    ended = command(*words)
    assert (ended.code, ended.err) == (0, "")


def test_every_option_of_the_worker_can_stand_in_a_file() -> None:
    spelt = options(worker)
    names = {each.name for each in worker.params if isinstance(each, click.Option) and each.expose_value}
    assert {each.name for each in spelt.values()} == names
    assert {"concurrency", "queues", "log-level"} <= set(spelt)


# ---- streamq config ------------------------------------------------------------------------------------------------


def rows(ended: Ended) -> dict[str, tuple[str, str]]:
    assert ended.code == 0, ended.err
    return {name: (value, source) for name, value, source in (line.split("\t") for line in ended.out.splitlines())}


def test_each_value_and_where_it_comes_from(folder: Path, command: Command) -> None:
    (folder / "streamq.toml").write_text(
        'app = "shop_code:app"\nnamespace = "file"\nresult_ttl = "2h"\nlease = "9s"\n[worker]\nprefetch = 7\n'
    )
    (folder / "shop_code.py").write_text(JOBS.format("namespace='code', grace='5s'"))
    os.environ |= {
        "STREAMQ_LEASE": "8s",
        "STREAMQ_URL": "redis://me:secret@redis.example.com/1",
        "STREAMQ_RESULT_URL": "redis://:secret@other.example.com/1",
        "STREAMQ_CONCURRENCY": "50",
    }
    found = rows(command("config"))
    assert found["app"] == ("shop_code:app", "streamq.toml")
    assert found["url"] == ("redis://me:***@redis.example.com/1", "STREAMQ_URL")
    assert found["result_url"] == ("redis://:***@other.example.com/1", "STREAMQ_RESULT_URL")
    assert found["namespace"] == ("code", "the code of shop_code:app")
    assert found["grace"] == ("5", "the code of shop_code:app")
    assert found["lease"] == ("8", "STREAMQ_LEASE")
    assert found["result_ttl"] == ("7200", "streamq.toml")
    assert found["timeout"] == ("30", "default")
    assert found["worker.concurrency"] == ("50", "STREAMQ_CONCURRENCY")
    assert found["worker.prefetch"] == ("7", "streamq.toml, [worker]")
    assert found["worker.loop"] == ("uvloop", "default")
    assert set(settings()) <= set(found)


def test_config_as_json_hides_secrets(command: Command) -> None:
    os.environ["STREAMQ_URL"] = "redis://:secret@redis.example.com/1"
    ended = command("config", "--json")
    found = {each["name"]: each for each in json.loads(ended.out)}
    assert found["url"] == {
        "name": "url",
        "value": "redis://:***@redis.example.com/1",
        "source": "STREAMQ_URL",
        "variable": "STREAMQ_URL",
    }
    assert found["accept"]["value"] == ["msgpack", "json"]
    assert "secret" not in ended.out


def test_config_shows_the_ids_of_the_signing_keys_and_no_secret(command: Command, folder: Path) -> None:
    secret = base64.b64encode(b"a secret of 20 bytes").decode()
    os.environ["STREAMQ_SIGNING_KEYS"] = f"2026-11:{secret},2026-10:{secret}"
    shown = command("config", "--json")
    (keys,) = [each for each in json.loads(shown.out) if each["name"] == "signing_keys"]
    assert (keys["value"], keys["source"]) == ("<Keyring 2026-11, 2026-10>", "STREAMQ_SIGNING_KEYS")
    assert secret not in shown.out + command("config").out
    os.environ["STREAMQ_SIGNING_KEYS"] = f"2026-11:{secret}?"
    ended = command("config")
    assert ended.code == 2
    assert "STREAMQ_SIGNING_KEYS" in ended.err
    assert secret not in ended.out + ended.err


def test_config_of_an_application_that_cannot_be_loaded(folder: Path, command: Command) -> None:
    ended = command("config", "--app", "shop_missing:app")
    assert ended.err == "there is no module 'shop_missing': what the code of shop_missing:app sets is not shown\n"
    assert rows(ended)["app"] == ("shop_missing:app", "--app")


# ---- those that bring their own settings -----------------------------------------------------------------------------


def test_forgetting_is_for_this_process_and_its_children() -> None:
    environ = {"STREAMQ_LEASE": "3s", "PATH": "/bin"}
    forget(environ)
    assert environ == {"STREAMQ_CONFIG": "", "PATH": "/bin"}


FOREIGN = 'url = "redis://localhost:1/0"\nnamespace = "foreign"\nresult_url = "redis://localhost:1/1"\nlease = "300s"\n'


@pytest.mark.parametrize("where", ["file", "environment"])
def test_the_demo_is_not_disturbed(start: Start, tmp_path: Path, where: str) -> None:
    environ = {"STREAMQ_RESULT_URL": "redis://localhost:1/1", "STREAMQ_LEASE": "300s"}
    if where == "file":
        (tmp_path / "streamq.toml").write_text(FOREIGN + "[worker]\nprefetch = 50\n")  # its workers run below it
        environ = {}
    process = start("demo", "--jobs", "20", "--json", **environ)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["ok"] is True


def test_a_benchmark_uses_no_server_of_a_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "streamq.toml").write_text(FOREIGN)
    process = start("bench", "--jobs", "50", "--runs", "1", "--scenario", "drain", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    (found,) = json.loads(out)
    assert found["environment"]["embedded"] is True
