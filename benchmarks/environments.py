"""One environment a contender, built once and kept: a virtual environment, or a folder of Node packages."""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path

from benchmarks.processes import REPOSITORY, Failure

CACHE = Path("~/.cache/streamq-bench")
CONTENDERS = Path(__file__).parent / "contenders"
DRIVER = "uvloop==0.23.0"
ALSO_SHOWN = {"streamq", "redis", "hiredis", "uvloop", "msgspec"}  # what many stand on without naming it


@dataclass(frozen=True)
class Contender:
    """What a contender's module says of itself, see `contenders/__init__.py`."""

    name: str
    settings: str
    results: bool
    jobs: int
    requires: list[str] = field(default_factory=list)
    npm: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str) -> Contender:
        """From the source: its packages are not at hand here. Raises `Failure`."""
        path = CONTENDERS / f"{name}.py"
        if not path.exists():
            raise Failure(f"benchmarks/contenders/{path.name} does not exist")
        found: dict[str, object] = {}
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Name) and target.id in _NAMES:
                    found[target.id.lower()] = ast.literal_eval(node.value)
        try:
            return cls(name, **found)  # type: ignore[arg-type]  # literals of another module: as its contract says
        except TypeError as error:
            raise Failure(f"benchmarks/contenders/{path.name} lacks a name of the contract: {error}") from None


_NAMES = {"REQUIRES", "NPM", "SETTINGS", "RESULTS", "JOBS"}


@dataclass(frozen=True)
class Environment:
    """Where a contender runs."""

    contender: Contender
    folder: Path | None  # None: with the interpreter that runs the harness

    def command(self, verb: str) -> list[str]:
        """What runs a verb of `drive.py`, `worker` among them."""
        name = self.contender.name
        if self.contender.npm:
            return ["node", str(self.path / f"{name}.mjs"), verb]
        python = self.path / "bin" / "python" if self.folder else Path(sys.executable)
        return [str(python), "-m", "benchmarks.drive", name, verb]

    @property
    def path(self) -> Path:
        return self.folder or Path(sys.prefix)

    def versions(self) -> dict[str, str]:
        """The packages that it names, and the few that many stand on."""
        if self.contender.npm:
            modules = self.path / "node_modules"
            found = {name: modules / name / "package.json" for name in self.contender.npm}
            return {"node": _node_version()} | {
                name: str(json.loads(package.read_text())["version"]) for name, package in found.items()
            }
        named = {re.split(r"[\[=<>~! ;]", each)[0].lower() for each in self.contender.requires} | ALSO_SHOWN
        places = [str(each) for each in self.path.glob("lib/python*/site-packages")]
        installed = distributions(path=places) if self.folder else distributions()
        return {each.name: each.version for each in installed if each.name.lower().replace("_", "-") in named}


def _node_version() -> str:
    return subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def prepare(contender: Contender, cache: Path) -> Environment:
    """Its environment, built now if it is not there. Raises `Failure`."""
    if not contender.requires and not contender.npm:
        return Environment(contender, None)
    pins: list[str] = [f"{name}@{version}" for name, version in contender.npm.items()]
    if not pins:
        driver = [] if any(each.startswith("uvloop") for each in contender.requires) else [DRIVER]
        pins = [*contender.requires, *driver]
    key = hashlib.sha256(json.dumps([platform.python_version(), *pins]).encode()).hexdigest()[:12]
    folder = cache.expanduser().resolve() / f"{contender.name}-{key}"
    ready = folder / "ready"
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        build = _build_node if contender.npm else _build_python
        build(folder, pins)
        ready.touch()
    if contender.npm:
        shutil.copy(CONTENDERS / f"{contender.name}.mjs", folder)
    return Environment(contender, folder)


def _build_python(folder: Path, pins: list[str]) -> None:
    venv.create(folder, with_pip=True)
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *pins])


def _build_node(folder: Path, pins: list[str]) -> None:
    if not shutil.which("npm"):
        raise Failure("skipped: no node and npm on PATH")
    folder.mkdir(parents=True)
    (folder / "package.json").write_text('{"private": true}')
    _run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--save-exact", *pins])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"{' '.join(command)} failed:\n" + "\n".join(done.stderr.strip().splitlines()[-20:]))
