"""`streamq` typed in this very process, on a server of the test; and jobs in Redis to look at."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

import pytest

from streamq import StreamQ
from streamq.cli.main import main
from streamq.client.partial import Signature
from tests.cli.conftest import PROJECT

T = TypeVar("T")

MODULE = """
    from streamq import StreamQ, Context, Reject
    app = StreamQ()

    @app.task(name="mail.send")
    async def send(to: int, subject: str = "", *, html: bool = False) -> dict[str, object]:
        return {"to": to, "subject": subject, "html": html}

    @app.task(name="mail.copy", queue="slow", priority=3)
    async def copy(ctx: Context, to: int) -> int:
        return to

    @app.task(name="fail")
    async def fail(text: str) -> None:
        raise ValueError(text)
"""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def jsonl(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Keyboard:
    """Types commands. `shop:app` is an application in the current folder."""

    def __init__(
        self,
        url: str,
        namespace: str,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.url = url
        self.namespace = namespace
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        (folder / "shop.py").write_text(dedent(MODULE))
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        monkeypatch.setenv("STREAMQ_URL", url)
        monkeypatch.setenv("STREAMQ_NAMESPACE", namespace)
        monkeypatch.setenv("STREAMQ_APP", "")  # a streamq.toml may set it: the end of the test takes that back

    def __call__(self, *words: str) -> Ended:
        self._monkeypatch.setattr(sys, "argv", ["streamq", *words])
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            self.forget()
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(int(code), *self._capsys.readouterr())

    def forget(self) -> None:
        """The modules of this folder: another test has others of that name."""
        for name in [path.stem for path in self._folder.glob("*.py")]:
            sys.modules.pop(name, None)

    def meanwhile(self, work: Callable[[StreamQ[Any]], Awaitable[T]]) -> T:
        """Do something with an application of the same namespace."""

        async def run() -> T:
            async with StreamQ(self.url, namespace=self.namespace) as app:
                return await work(app)

        return asyncio.run(run())


class Terminal:
    """`streamq` as a process on a pseudo terminal: stdin, stdout and stderr are one; `answer` is typed."""

    def __init__(self, url: str, namespace: str, folder: Path) -> None:
        said = {"PYTHONPATH": str(PROJECT), "STREAMQ_URL": url, "STREAMQ_NAMESPACE": namespace}
        self._environ = {**os.environ, **said}
        self._folder = folder
        self._opened: list[int] = []
        self._started: list[subprocess.Popen[bytes]] = []

    def __call__(self, *words: str, answer: str = "") -> tuple[int, str]:
        ours, theirs = pty.openpty()
        self._opened.append(ours)
        process = subprocess.Popen(
            [sys.executable, "-m", "streamq", *words],
            cwd=self._folder, env=self._environ, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        self._started.append(process)
        os.close(theirs)
        if answer:
            os.write(ours, answer.encode())
        text = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                text += os.read(ours, 65_536)
            except OSError:  # what Linux says once the other side is closed
                break
        return process.wait(10), text.decode().replace("\r\n", "\n")

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
        for descriptor in self._opened:
            os.close(descriptor)


def call(task: str, *args: object) -> Signature[Any]:
    return Signature(task, args, {})
