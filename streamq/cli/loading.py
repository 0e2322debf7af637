"""Finding the application that a person names: `shop.jobs:app`, `shop.jobs` or `examples/hello.py:app`."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from streamq.cli.exits import Exit, Screen, Stopped, short_path
from streamq.core.frames import is_users
from streamq.errors import ConfigurationError
from streamq.worker.app import StreamQ


def load_app(target: str, command: str = "streamq worker") -> StreamQ[Any]:
    """The application of `module:attribute`, or the only one of `module`. The current folder is searched too.

    Raises `Stopped`, with a screen that says what to type instead of `command target`.
    """
    name, _, attribute = target.partition(":")
    module_name = _dotted(name, attribute, command) if _is_path(name) else name
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _import(module_name, name, attribute, command)
    return _named(module, name, attribute, command) if attribute else _only(module, name, command)


def _is_path(name: str) -> bool:
    return name.endswith(".py") or os.sep in name


def _dotted(name: str, attribute: str, command: str) -> str:
    """The module name of a file: dotted from the first folder that is no package, as Python would import it."""
    path = Path(name).resolve()
    if path.is_dir():
        path = path / "__init__.py"
    if not path.is_file():
        files = [short_path(str(each)) for each in sorted(Path(name).parent.glob("*.py"))]
        near = _nearest(name, files)
        raise Stopped(
            Screen(
                f"there is no file {name}",
                str(Path.cwd()),
                "the path is misspelt, or the command is typed in another folder",
                f"{command} {near}{_tail(attribute)}" if near else "ls    shows what is here",
            )
        )
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return ".".join(parts)


def _import(module: str, name: str, attribute: str, command: str) -> ModuleType:
    again = f"{command} {name}{_tail(attribute)}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module == missing or module.startswith(f"{missing}."):
            raise _no_module(module, missing, attribute, command) from error
        what = f"{name} needs the module {missing!r}, which is not installed"
        typed = f"pip install {missing.split('.')[0]}"
        screen = Screen(what, _users_place(error), "a package is missing, or its name is misspelt", typed)
        raise Stopped(screen, Exit.FAILED) from error
    except SyntaxError as error:
        raise Stopped(_syntax(error, again), Exit.FAILED) from error
    except ConfigurationError as error:
        raise Stopped(_raised(name, error, again), Exit.USAGE) from error
    except (ValueError, TypeError) as error:
        if not _module_like(module):
            raise _no_module(module, module, attribute, command) from error
        raise Stopped(_raised(name, error, again), Exit.FAILED) from error
    except (Exception, SystemExit) as error:
        raise Stopped(_raised(name, error, again), Exit.FAILED) from error


def _module_like(module: str) -> bool:
    return all(part.isidentifier() for part in module.split("."))


def _no_module(module: str, missing: str, attribute: str, command: str) -> Stopped:
    parent, _, leaf = missing.rpartition(".")
    near = _nearest(leaf, _modules(parent))
    found = ".".join(each for each in (parent, near, module[len(missing) + 1 :]) if each)
    return Stopped(
        Screen(
            f"there is no module {missing!r}",
            f"{Path.cwd()} and the installed packages",
            "the name is misspelt, or the command is typed in another folder",
            f"{command} {found}{_tail(attribute)}" if near else f"cd    to the folder that holds {leaf}.py",
        )
    )


def _modules(parent: str) -> list[str]:
    folders = list(getattr(sys.modules.get(parent), "__path__", [])) if parent else [str(Path.cwd())]
    return [each.name for each in pkgutil.iter_modules(folders)]


def _syntax(error: SyntaxError, again: str) -> Screen:
    line = (error.text or "").strip()
    return Screen(
        f"{type(error).__name__}: {error.msg}",
        f"{short_path(error.filename or '?')}, line {error.lineno}" + (f": {line}" if line else ""),
        "Python cannot read this file",
        f"{again}    once it is mended",
    )


def _raised(name: str, error: BaseException, again: str) -> Screen:
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    return Screen(
        f"importing {name} failed: {said}",
        _users_place(error),
        "the module raises this while it is imported",
        f"{again} -v    shows the traceback",
    )


def _users_place(error: BaseException) -> str:
    frames = [each for each in traceback.extract_tb(error.__traceback__) if is_users(each.filename)]
    if not frames:
        return ""
    last = frames[-1]
    return f"{short_path(last.filename)}, line {last.lineno}" + (f": {last.line}" if last.line else "")


def _is_app(value: object) -> TypeGuard[StreamQ[Any]]:
    return isinstance(value, StreamQ)


def _apps(module: ModuleType) -> dict[str, StreamQ[Any]]:
    """The applications of a module, each under the first of its names."""
    found: dict[str, StreamQ[Any]] = {}
    for name, value in vars(module).items():
        if _is_app(value) and not any(value is each for each in found.values()):
            found[name] = value
    return found


def _named(module: ModuleType, name: str, attribute: str, command: str) -> StreamQ[Any]:
    value: object = module
    for part in attribute.split("."):
        value = getattr(value, part, None)
    if _is_app(value):
        return value
    apps = list(_apps(module))
    chosen = _nearest(attribute, apps) or (apps[0] if len(apps) == 1 else "")
    if value is None:
        what = f"{name} has no {attribute!r}"
    else:
        what = f"{name}:{attribute} is no StreamQ, but of type {type(value).__name__}"
    cause = f"its applications are {', '.join(apps)}" if apps else "it holds no application"
    typed = f"{command} {name}:{chosen or apps[0]}" if apps else "app = StreamQ()    in that module"
    raise Stopped(Screen(what, short_path(module.__file__ or name), cause, typed))


def _only(module: ModuleType, name: str, command: str) -> StreamQ[Any]:
    apps = _apps(module)
    if len(apps) == 1:
        return next(iter(apps.values()))
    where = short_path(module.__file__ or name)
    if not apps:
        cause = "the application is in another module"
        raise Stopped(Screen(f"{name} holds no StreamQ", where, cause, "app = StreamQ()    in that module"))
    typed = "\n".join(f"{command} {name}:{each}" for each in apps)
    raise Stopped(Screen(f"{name} holds {len(apps)} applications", where, "one must be chosen", typed))


def _nearest(name: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")


def _tail(attribute: str) -> str:
    return f":{attribute}" if attribute else ""
