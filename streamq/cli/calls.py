"""Calls as people write them, on the command line and in files: checked here as `Task.enqueue` would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from streamq.cli.chosen import not_there

if TYPE_CHECKING:
    from streamq.client.app import Application
    from streamq.client.partial import Signature


def signature(
    app: Application[Any], task: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> Signature[Any]:
    """A call that can be enqueued. An application without tasks lets every name pass.

    Raises `Stopped` for a task that the application does not have, `ConfigurationError`, `InvalidArguments`,
    `PayloadTooLarge`.
    """
    from streamq.client.call import NO_CALL_OPTIONS, call_options
    from streamq.client.partial import Signature

    if app.tasks and task not in app.tasks:
        raise not_there("task", task, app.tasks, "the application")
    given = {name: _date(value) if name in ("eta", "expires") else value for name, value in options.items()}
    made = Signature[Any](task, tuple(args), kwargs, call_options(NO_CALL_OPTIONS, given))
    app.build(made)
    return made


def read_line(app: Application[Any], line: bytes, defaults: Mapping[str, Any]) -> Signature[Any]:
    """The call in one line of a file. Raises as `signature` does."""
    import msgspec

    from streamq.errors import ConfigurationError

    if len(line) > longest(app):
        raise ConfigurationError(f"more than {longest(app):,} bytes")
    try:
        call = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"no JSON object: {error}") from error
    task, args, kwargs = call.pop("task", None), call.pop("args", []), call.pop("kwargs", {})
    if not isinstance(task, str) or not task:
        raise ConfigurationError('it names no task: {"task": "mail.send", "args": [42]}')
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise ConfigurationError("args is an array, kwargs an object")
    named = cast("dict[str, Any]", kwargs)
    return signature(app, task, args, named, {**defaults, **call})  # pyright: ignore[reportUnknownArgumentType]


def longest(app: Application[Any]) -> int:
    """Bytes of a line: JSON can need six for one of the payload's."""
    return 8 * app.options.max_payload


def _date(value: Any) -> Any:
    """An ISO date as a datetime; anything else stays what it is."""
    if isinstance(value, str):
        with suppress(ValueError):
            return datetime.fromisoformat(value)
    return value
