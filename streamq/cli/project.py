"""What a project says once for all commands: `streamq.toml`, or `[tool.streamq]` in pyproject.toml.

    app = "shop.jobs:app"           # what --app and the worker's argument are unless given
    url = "redis://localhost:6379/0"
    namespace = "shop"              # any setting of StreamQ(...) that has a variable

    [worker]                        # defaults of one command's options
    concurrency = 50

A variable of the environment stands above the file, an option of the command line above both. What stands in the
code of an application is not asked here. STREAMQ_CONFIG names another file; if it is there and empty, none is read.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, cast

import click

from streamq.cli.exits import Exit, Screen, Stopped, short_path

NAMES: Final = ("streamq.toml", "pyproject.toml")
OWN: Final = ("app", "url")  # beside the settings of StreamQ(...)
CONFIG: Final = "STREAMQ_CONFIG"


@dataclass(frozen=True)
class Project:
    """The file that was found, and what stands in it."""

    path: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])  # `app`, `url`, and settings of StreamQ
    commands: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])

    def apply(self, environ: MutableMapping[str, str] = os.environ) -> tuple[str, ...]:
        """Let the settings count where the environment says nothing; which ones do."""
        counting = tuple(name for name in self.settings if not environ.get(variable(name)))
        for name in counting:
            environ[variable(name)] = text(self.settings[name])
        if "app" in counting and self.path is not None and self.path.parent != Path.cwd():
            sys.path.insert(0, str(self.path.parent))  # it is named as seen from there
            file, colon, attribute = text(self.settings["app"]).partition(":")
            if file.endswith(".py") or os.sep in file:
                environ[variable("app")] = f"{self.path.parent / file}{colon}{attribute}"
        return counting

    def defaults(self, group: click.Group) -> dict[str, Any]:
        """What stands in the tables of the commands, as click's `default_map`. Raises `Stopped`.

        Every key is looked at, whichever command is called.
        """
        unknown = [name for name in self.settings if name not in settings()]
        if unknown:
            raise self._unknown(unknown[0], self.settings[unknown[0]], settings(), "")
        return self._options(group, self.commands, "")

    def blamed(self, error: Exception, counting: Iterable[str]) -> Exception:
        """The error of a value that stands in this file, if it is one: it names the variable that nobody has set."""
        raised = error.__cause__ if isinstance(error, Stopped) and error.__cause__ else error
        for name in counting:
            if variable(name) in str(raised):
                what = str(raised).replace(variable(name), name)
                found = Stopped(Screen(what, f"{self._where}, {name}", "", "mend that line of the file"), Exit.USAGE)
                found.__cause__ = error
                return found
        return error

    @property
    def _where(self) -> str:
        return short_path(str(self.path))

    def _options(self, group: click.Group, table: Mapping[str, Any], section: str) -> dict[str, Any]:
        context = click.Context(group)
        found: dict[str, Any] = {}
        for name, below in table.items():
            command = group.get_command(context, name)
            title = f"{section}.{name}" if section else name
            if command is None or not isinstance(below, dict):
                raise self._unknown(name, below, group.list_commands(context), section)
            inner = cast("dict[str, Any]", below)
            found[name] = (
                self._options(command, inner, title)
                if isinstance(command, click.Group)
                else self._values(command, inner, title)
            )
        return found

    def _values(self, command: click.Command, table: Mapping[str, Any], section: str) -> dict[str, Any]:
        known = options(command)
        found: dict[str, Any] = {}
        for key, value in table.items():
            option = known.get(key.replace("_", "-"))
            if option is None:
                raise self._unknown(key, value, known, section)
            given = value if option.multiple or not isinstance(value, list) else text(cast(object, value))
            try:
                option.type_cast_value(click.Context(command), given)
            except click.BadParameter as error:
                where = f"{self._where}, [{section}]"
                raise Stopped(Screen(f"{key}: {error.message}", where, "", "mend that line of the file")) from error
            word = option.is_flag and not option.is_bool_flag  # --json says form=json
            found[option.name] = option.flag_value if word and given is True else given
        return found

    def _unknown(self, key: str, value: object, known: Iterable[str], section: str) -> Stopped:
        known = sorted(known)
        near = difflib.get_close_matches(key, known, n=1)
        if near and isinstance(value, dict):
            typed = f"[{'.'.join(filter(None, (section, near[0])))}]"
        elif near:
            typed = f"{near[0]} = {json.dumps(value, default=str)}"
        else:
            typed = f"streamq {section.replace('.', ' ')} --help" if section else "streamq config"
        return Stopped(
            Screen(
                f"the {'section' if isinstance(value, dict) else 'key'} {key!r} is not known",
                f"{self._where}, [{section}]" if section else self._where,
                f"it is misspelt: there is {near[0]}" if near else f"there are {', '.join(known) or 'none'}",
                typed,
            )
        )


def forget(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let neither STREAMQ_* nor a file count, in this process and in those that it starts."""
    for name in [each for each in environ if each.startswith("STREAMQ_")]:
        del environ[name]
    environ[CONFIG] = ""


def variable(name: str) -> str:
    """The environment's name of a setting.

    >>> variable("result_ttl")
    'STREAMQ_RESULT_TTL'
    """
    return f"STREAMQ_{name.upper()}"


def settings() -> tuple[str, ...]:
    """What may stand in the file before any section."""
    from streamq.core.options import AppOptions

    return (*OWN, *(each.name for each in fields(AppOptions) if each.repr))  # a codec is an object: no text names it


def options(command: click.Command) -> dict[str, click.Option]:
    """The options of a command as a file may spell them: the long name without its dashes."""
    return {
        spelling.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option) and option.expose_value
        for spelling in option.opts
        if spelling.startswith("--")
    }


def find(start: Path | None = None, environ: Mapping[str, str] = os.environ) -> Project:
    """The file that STREAMQ_CONFIG names, else the nearest of this folder and those above it. Raises `Stopped`.

    An empty project if there is none.
    """
    if (named := environ.get(CONFIG)) is not None:
        return _project(Path(named).resolve(), _named(Path(named))) if named else Project()
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        for name in NAMES:
            path = folder / name
            if path.is_file() and (table := _read(path)) is not None:
                return _project(path, table)
    return Project()


def _named(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise Stopped(Screen(f"there is no file {path}", CONFIG, "the path is misspelt", f"export {CONFIG}=FILE"))
    return _read(path) or {}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        if path.name == "pyproject.toml" and "[tool.streamq" not in path.read_text(encoding="utf-8", errors="replace"):
            return None  # somebody else's mistake, in a file that says nothing about streamq
        screen = Screen(f"{short_path(str(path))} cannot be read", str(path), str(error), "mend that line of the file")
        raise Stopped(screen) from error
    if path.name != "pyproject.toml":
        return content
    return cast("dict[str, Any] | None", content.get("tool", {}).get("streamq"))


def _project(path: Path, table: Mapping[str, Any]) -> Project:
    commands = {name: cast("dict[str, Any]", value) for name, value in table.items() if isinstance(value, dict)}
    return Project(path, {name: value for name, value in table.items() if name not in commands}, commands)


def text(value: object) -> str:
    """A value of the file as the environment would say it."""
    match value:
        case bool():
            return str(value).lower()
        case list():
            return ",".join(map(str, cast("list[object]", value)))
        case _:
            return str(value)
