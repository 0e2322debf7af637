"""The code of the migration pages, and of those for operators: what is streamq's in them runs as it stands."""

from __future__ import annotations

import ast
import asyncio
import functools
import inspect
import re
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from streamq import StreamQ
from tests.docs.pages import DOCS, Block, Page

OTHERS = ("celery", "arq", "streaq")
QUEUES = ("default", "mail", "slow")


def page(name: str) -> Page:
    return Page(f"docs/{name}", (DOCS / name).read_text())


def introduction(text: str, block: Block) -> str:
    """The paragraph before a block."""
    lines = text.splitlines()[: block.line - 1]
    return "\n".join(lines).rstrip().rpartition("\n\n")[2]


def is_ours(text: str, block: Block) -> bool:
    said = introduction(text, block).lower().removeprefix("enqueueing, ")
    about = block.text.lower()
    return not (said.startswith(OTHERS) or any(f"import {name}" in about or f"from {name}" in about for name in OTHERS))


def blocks(name: str) -> list[tuple[Block, bool]]:
    found = page(name)
    return [(block, is_ours(found.text, block)) for block in found.blocks if block.language == "python"]


@dataclass
class Answers:
    """What an HTTP client, a payment gateway or a mail server gives back, whatever it is asked."""

    asked: list[Any] = field(default_factory=list[Any])

    class Busy(Exception):
        """Try later."""

    async def __call__(self, *args: object, **named: object) -> str:
        self.asked.append(args)
        return "answer"

    get = charge = send = __call__

    async def __aenter__(self) -> Answers:
        return self

    async def __aexit__(self, *_: object) -> None: ...


def surroundings() -> dict[str, Any]:
    """What the code of a page takes for granted."""
    answers = Answers()
    return {
        "__name__": "page",
        "gateway": answers,
        "http": answers,
        "Client": Answers,
        "State": SimpleNamespace,
        "switched_over": lambda task: True,
    }


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages fetch https://example.org."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text="hello"))
    monkeypatch.setattr(httpx, "AsyncClient", functools.partial(httpx.AsyncClient, transport=transport))


@dataclass
class Reader:
    """Runs the blocks of one page in their order, with a worker for what a block enqueues."""

    url: str
    namespace: str
    folder: Path
    names: dict[str, Any] = field(default_factory=surroundings)
    apps: list[StreamQ[Any]] = field(default_factory=list[StreamQ[Any]])

    async def run(self, block: Block) -> None:
        text = self.adapted(block.text)
        code = compile(text, block.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if module := re.match(r"# (shop/\w+\.py)", text):
            (self.folder / module[1]).write_text(text)
        if "async def main" in text:
            exec(code, self.names)
            await self.names["main"]()
        else:
            async with self.worker():
                if "_sync(" in text:
                    await asyncio.to_thread(exec, code, self.names)
                elif inspect.isawaitable(made := eval(code, self.names)):
                    await made
        self.note()

    def adapted(self, text: str) -> str:
        return (
            text.replace("redis://localhost:6379/0", self.url)
            .replace('namespace="shop"', f'namespace="{self.namespace}"')
            .replace("countdown=10", "countdown=0.1")
            .replace('durability="fsync"', 'durability="memory"')  # the servers of the tests keep nothing
            .replace("async with app:", "async with app, app.worker():")
        )

    def note(self) -> None:
        app = self.names.get("app")
        if isinstance(app, StreamQ) and not any(app is each for each in self.apps):
            self.apps.append(app)

    @asynccontextmanager
    async def worker(self) -> AsyncGenerator[None, None]:
        if not self.apps or not self.apps[-1].tasks:
            yield
            return
        async with self.apps[-1].worker(queues=QUEUES):
            yield


@pytest.fixture
async def reader(url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Reader]:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    made = Reader(url, namespace, tmp_path)
    yield made
    for app in made.apps:
        await app.close()
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


def given(names: dict[str, Any], url: str, namespace: str) -> None:
    """The tasks that pages for operators speak of, without defining them."""
    app = StreamQ(url, namespace=namespace)

    @app.task(name="given")
    async def task(number: int) -> int:
        return number

    names.update(dict.fromkeys(("charge", "send_welcome", "process"), task), app=app)


# Each page, how many of its blocks are streamq's, and what it takes for granted.
PAGES: list[tuple[str, int, Callable[[dict[str, Any], str, str], None] | None]] = [
    ("migrating-from-celery.md", 10, None),
    ("migrating-from-arq.md", 2, None),
    ("migrating-from-streaq.md", 1, None),
    ("deployment.md", 1, given),
    ("troubleshooting.md", 3, given),
    ("brokers.md", 1, given),
]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("name", "ours", "before"), PAGES, ids=lambda value: str(value) if "md" in str(value) else "")
async def test_the_code_of_a_page_runs(reader: Reader, name: str, ours: int, before: Any) -> None:
    chosen = [block for block, mine in blocks(name) if mine]
    assert len(chosen) == ours, [block.place for block in chosen]
    if before is not None:
        before(reader.names, reader.url, reader.namespace)
        reader.note()
    from streamq import Context

    reader.names.setdefault("Context", Context)
    for block in chosen:
        try:
            await reader.run(block)
        except Exception as error:
            raise AssertionError(f"{block.place}: {type(error).__name__}: {error}") from error


def test_code_of_others_is_told_apart() -> None:
    told = {name: [ours for _, ours in blocks(name)] for name, *_ in PAGES}
    assert told["migrating-from-arq.md"] == [False, True, False, True]
    assert told["migrating-from-streaq.md"] == [False, True]
    assert told["migrating-from-celery.md"].count(False) == 7
