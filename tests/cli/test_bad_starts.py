"""Bad starts: one screen each, its exact text, its exit code, and no traceback unless asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
import redis

from streamq.broker.embedded import EmbeddedServer
from streamq.cli.exits import ENDINGS, Exit, Screen, ending, users_traceback
from streamq.cli.main import main
from streamq.errors import BrokerUnavailable, ConfigurationError, JobNotFound, ResultTimeout, UnsuitableServer

from .conftest import Start

APP = "from streamq import StreamQ\napp = StreamQ()\n"
MODULES = {
    "shop.py": APP + "other = 7\n",
    "empty.py": "x = 1\n",
    "twins.py": APP + "mail = StreamQ()\n",
    "crooked.py": "def f(:\n",
    "raising.py": "def start():\n    return 1 / 0\n\nstart()\n",
    "needy.py": "import not_installed_anywhere.at_all\n",
    "leaving.py": "raise SystemExit(3)\n",
    "ready.py": APP + "@app.task\nasync def job() -> None: ...\n",
    "pack/__init__.py": "",
    "pack/jobs.py": APP,
}


@dataclass
class Ended:
    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """`streamq` in a folder with the modules above."""
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["streamq", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(int(code), *capsys.readouterr())

    yield run
    for name in set(sys.modules) - before:
        if name.split(".")[0] + ".py" in MODULES or name.startswith("pack"):
            del sys.modules[name]


SCREENS = [
    (
        "shp:app",
        2,
        """
        streamq: there is no module 'shp'

          where  {here} and the installed packages
          cause  the name is misspelt, or the command is typed in another folder
          type   streamq worker shop:app
        """,
    ),
    (
        "zzzzzz:app",
        2,
        """
        streamq: there is no module 'zzzzzz'

          where  {here} and the installed packages
          cause  the name is misspelt, or the command is typed in another folder
          type   cd    to the folder that holds zzzzzz.py
        """,
    ),
    (
        "pack.job:app",
        2,
        """
        streamq: there is no module 'pack.job'

          where  {here} and the installed packages
          cause  the name is misspelt, or the command is typed in another folder
          type   streamq worker pack.jobs:app
        """,
    ),
    (
        "pack/job.py:app",
        2,
        """
        streamq: there is no file pack/job.py

          where  {here}
          cause  the path is misspelt, or the command is typed in another folder
          type   streamq worker pack/jobs.py:app
        """,
    ),
    (
        "shop:ap",
        2,
        """
        streamq: shop has no 'ap'

          where  shop.py
          cause  its applications are app
          type   streamq worker shop:app
        """,
    ),
    (
        "shop:other",
        2,
        """
        streamq: shop:other is no StreamQ, but of type int

          where  shop.py
          cause  its applications are app
          type   streamq worker shop:app
        """,
    ),
    (
        "empty",
        2,
        """
        streamq: empty holds no StreamQ

          where  empty.py
          cause  the application is in another module
          type   app = StreamQ()    in that module
        """,
    ),
    (
        "empty:app",
        2,
        """
        streamq: empty has no 'app'

          where  empty.py
          cause  it holds no application
          type   app = StreamQ()    in that module
        """,
    ),
    (
        "twins",
        2,
        """
        streamq: twins holds 2 applications

          where  twins.py
          cause  one must be chosen
          type   streamq worker twins:app
                 streamq worker twins:mail
        """,
    ),
    (
        "crooked:app",
        1,
        """
        streamq: SyntaxError: invalid syntax

          where  crooked.py, line 1: def f(:
          cause  Python cannot read this file
          type   streamq worker crooked:app    once it is mended
        """,
    ),
    (
        "raising:app",
        1,
        """
        streamq: importing raising failed: ZeroDivisionError: division by zero

          where  raising.py, line 2: return 1 / 0
          cause  the module raises this while it is imported
          type   streamq worker raising:app -v    shows the traceback
        """,
    ),
    (
        "needy:app",
        1,
        """
        streamq: needy needs the module 'not_installed_anywhere', which is not installed

          where  needy.py, line 1: import not_installed_anywhere.at_all
          cause  a package is missing, or its name is misspelt
          type   pip install not_installed_anywhere
        """,
    ),
    (
        "leaving:app",
        1,
        """
        streamq: importing leaving failed: SystemExit: 3

          where  leaving.py, line 1: raise SystemExit(3)
          cause  the module raises this while it is imported
          type   streamq worker leaving:app -v    shows the traceback
        """,
    ),
    (
        "shop:app",
        2,
        """
        streamq: shop:app has no tasks

          cause  the modules that define them are not imported by this one
          type   import shop.jobs    at the end of the module of shop:app
        """,
    ),
]


@pytest.mark.parametrize(("target", "code", "screen"), SCREENS, ids=[each[0] for each in SCREENS])
def test_a_bad_start_is_one_screen(command: Command, tmp_path: Path, target: str, code: int, screen: str) -> None:
    ended = command("worker", target)
    assert ended.err == dedent(screen).lstrip().format(here=tmp_path)
    assert ended.code == code
    assert ended.out == ""


QUEUES = [
    ("high:0", "'high:0' is no queue with a weight"),
    ("high:many", "'high:many' is no queue with a weight"),
    (":3", "':3' is no queue with a weight"),
    ("high,,low", "'' is no queue with a weight"),
    ("a b", "'a b' cannot name a queue: no spaces and no braces"),
    ("high:2,high", "'high' is there twice"),
]


@pytest.mark.parametrize(("spec", "cause"), QUEUES)
def test_queues_that_cannot_be_read(command: Command, spec: str, cause: str) -> None:
    ended = command("worker", "shop:app", "-Q", spec)
    assert ended.code == Exit.USAGE
    assert ended.err == (
        f"streamq: the queues {spec!r} cannot be read\n\n"
        "  where  --queues, or the variable STREAMQ_QUEUES\n"
        f"  cause  {cause}\n"
        "  type   --queues high:3,default    names, each with a weight of 1 or more\n"
    )


def test_a_url_that_cannot_be_used(command: Command) -> None:
    ended = command("worker", "ready:app", "--url", "http://localhost")
    assert ended.code == Exit.USAGE
    assert "streamq: " in ended.err
    assert "http" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("words", [("-v", "worker", "raising:app"), ("worker", "raising:app", "-v")])
def test_a_traceback_only_if_asked_for_and_only_of_the_user(command: Command, words: tuple[str, ...]) -> None:
    ended = command(*words)
    trace = ended.err.partition("\n\nTraceback")[2].splitlines()
    assert [line.split(", ")[1] for line in trace if line.startswith("  File")] == ["line 4", "line 2"]
    assert trace[-1] == "ZeroDivisionError: division by zero"


def test_a_misspelt_command(command: Command) -> None:
    ended = command("wroker", "shop:app")
    assert ended.code == Exit.USAGE
    assert ended.err == (
        "streamq: streamq has no command 'wroker'\n\n"
        "  cause  it is misspelt: there is worker\n"
        "  type   streamq worker shop:app\n"
    )


def test_an_option_that_does_not_exist(command: Command) -> None:
    ended = command("worker", "shop:app", "--concurency", "3")
    assert ended.code == Exit.USAGE
    assert ended.err == (
        "streamq: streamq worker has no option --concurency\n\n"
        "  where  streamq worker [OPTIONS] MODULE[:APP]\n"
        "  cause  it is misspelt: there is --concurrency\n"
        "  type   streamq worker shop:app --concurrency 3\n"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BrokerUnavailable("down"), Exit.UNREACHABLE),
        (UnsuitableServer("evicts"), Exit.UNSUITABLE),
        (ConfigurationError("bad"), Exit.USAGE),
        (JobNotFound("none"), Exit.NOT_FOUND),
        (ResultTimeout("late"), Exit.TIMED_OUT),
        (RuntimeError("ours"), Exit.FAILED),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: Exit) -> None:
    found, screen = ending(error)
    assert found is code
    assert str(error) in str(screen)


def test_the_special_error_stands_before_the_general_one() -> None:
    kinds = [kind for kind, _ in ENDINGS]
    for place, kind in enumerate(kinds):
        assert not [earlier for earlier in kinds[:place] if issubclass(kind, earlier)]


def test_frames_of_the_standard_library_are_left_out() -> None:
    try:
        Path("/nonexistent/file").read_text()
    except OSError as error:
        shown = users_traceback(error)
    assert "test_bad_starts.py" in shown
    assert "pathlib" not in shown


# ---- servers ---------------------------------------------------------------------------------------------------

UNREACHABLE = [
    (
        "redis://localhost:1/0",
        """
        streamq: cannot reach Redis: the connection was refused

          where  redis://localhost:1/0
          cause  Is Redis running there? Start it (redis-server), or use embedded://
          type   redis-server    starts one; streamq demo runs without a server of your own
        """,
    ),
    (
        "redis://user:secret@no-such-host.invalid:6379/0",
        """
        streamq: cannot find Redis: the host name does not resolve

          where  redis://user:***@no-such-host.invalid:6379/0
          cause  Is it spelt right?
          type   --url    with the right host
        """,
    ),
    (
        "unix:///nonexistent/redis.sock",
        """
        streamq: cannot reach Redis: there is no such socket

          where  unix:///nonexistent/redis.sock
          cause  Is Redis running, and is unixsocket set to this path?
          type   redis-server    starts one; streamq demo runs without a server of your own
        """,
    ),
]


@pytest.mark.parametrize(("url", "screen"), UNREACHABLE, ids=[each[0][:12] for each in UNREACHABLE])
@pytest.mark.parametrize("words", [("doctor",), ("info",), ("enqueue", "shop.add"), ("result", "0" * 32)])
def test_a_server_that_is_not_there_is_one_screen(
    command: Command, words: tuple[str, ...], url: str, screen: str
) -> None:
    ended = command(*words, "--url", url)
    assert (ended.code, ended.out) == (Exit.UNREACHABLE, "")
    assert ended.err == dedent(screen).lstrip()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start() as server:
        yield server


def test_a_wrong_password_is_one_screen(command: Command, own: EmbeddedServer) -> None:
    path = own.url.removeprefix("unix://").partition("?")[0]
    with redis.Redis.from_url(own.url) as client:
        client.config_set("requirepass", "right")
        ended = command("info", "--url", f"unix://:wrong@{path}")
        client.config_set("requirepass", "")
    assert ended.code == Exit.UNREACHABLE
    assert ended.err == (
        "streamq: cannot log in to Redis: user name or password is missing or wrong\n\n"
        f"  where  unix://:***@{path}\n"
        "  cause  Give them as scheme://user:password@host\n"
        "  type   export STREAMQ_URL=redis://user:password@host:6379/0    which no process list shows\n"
    )


def test_a_server_that_evicts_is_refused(command: Command, own: EmbeddedServer) -> None:
    with redis.Redis.from_url(own.url) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
    ended = command("info", "--url", own.url)
    assert ended.code == Exit.UNSUITABLE
    assert ended.err == (
        "streamq: the server would drop jobs when its memory is full: maxmemory-policy is allkeys-lru\n\n"
        f"  where  {own.url}\n"
        "  cause  it is set up as a cache\n"
        "  type   redis-cli CONFIG SET maxmemory-policy noeviction    and the same in its configuration file\n"
    )


@pytest.mark.parametrize("words", [(), ("--check",)])
def test_processes_that_would_each_have_a_server_of_their_own_are_refused(
    start: Start, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "alone.py").write_text(
        'from streamq import StreamQ\napp = StreamQ("embedded://")\n@app.task\nasync def job() -> None: ...\n'
    )
    process = start("worker", "alone:app", "-p", "2", *words)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert err.partition("streamq: ")[2] == (
        "2 processes cannot share embedded://\n\n"
        "  where  alone:app\n"
        "  cause  each would start a server of its own, and see none of the jobs of the others\n"
        "  type   streamq worker alone:app -p 2 --url embedded:///var/lib/my-app    a folder can be shared\n"
    )


def test_a_server_of_one_process_alone_is_no_place_to_enqueue_to(command: Command) -> None:
    ended = command("enqueue", "shop.add", "--url", "embedded://")
    assert (ended.code, ended.out) == (Exit.USAGE, "")
    assert ended.err == (
        "streamq: embedded:// is the server of one process alone\n\n"
        "  where  the URL of the application, --url or STREAMQ_URL\n"
        "  cause  this command would start an empty one, and what it writes would end with it\n"
        "  type   --url embedded:///var/lib/my-app    a folder is shared by all who name it;"
        " or --url redis://localhost:6379/0\n"
    )


def test_a_task_that_is_not_named_is_asked_for_before_redis(command: Command) -> None:
    ended = command("enqueue", "--url", "redis://localhost:1/0")
    assert ended.code == Exit.USAGE
    assert ended.err.startswith("streamq: Missing argument '[TASK]'. Name a task, or a file of jobs with --from-file\n")


def test_no_screen_commands_a_terminal() -> None:
    assert str(Screen("a\x1b]0;title\x07\nb", cause="\x1b[31mred")) == (
        "streamq: a\ufffd]0;title\ufffd\nb\n\n  cause  \ufffd[31mred"
    )


def test_a_setting_that_cannot_be_used_is_a_mistake_of_usage(command: Command, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(APP + "@app.task(executor='proces')\ndef job() -> None: ...\n")
    ended = command("worker", "wrong:app")
    assert ended.code == Exit.USAGE
    assert ended.err.startswith("streamq: importing wrong failed: ConfigurationError: ")
