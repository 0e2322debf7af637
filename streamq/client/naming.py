"""Names of tasks: the same in every process, however the module was started."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamq.errors import ConfigurationError


def task_name(fn: Callable[..., Any]) -> str:
    """The module and the qualified name of a function: `shop.mail.send`.

    A module that is run as a script is called `__main__`; its file's name is used instead, which is what a
    worker that imports it calls it. Raises `ConfigurationError` for a thing without a name.
    """
    module = getattr(fn, "__module__", None)
    name = getattr(fn, "__qualname__", None)
    if not module or not name:
        raise ConfigurationError(f"{fn!r} has no name of its own: give one, @app.task(name='shop.send').")
    if name.endswith("<lambda>"):
        raise ConfigurationError("A lambda has no name that a worker could find: give one, name='shop.send'.")
    return f"{_script() if module == '__main__' else module}.{name.replace('.<locals>', '')}"


def _script() -> str:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:  # python -m shop.tasks
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"
