"""`streamq config`: each setting, its value, and where that comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from streamq.cli.console import Format, format_options, show
from streamq.cli.exits import Stopped, short_path
from streamq.cli.main import Session, verbose_option

if TYPE_CHECKING:
    from streamq.worker.app import StreamQ

DEFAULT: Final = "default"
COLUMNS: Final = ("name", "value", "source")


@click.command()
@click.option("--app", "target", metavar="MODULE:APP", envvar="STREAMQ_APP", show_envvar=True, help="Whose settings.")
@format_options
@verbose_option
@click.pass_context
def config(context: click.Context, target: str | None, form: Format | None) -> None:
    """Each setting, its value, and where that comes from.

    \b
      streamq config
      streamq config --json

    The order is: an option of the command line, the code of the application, a variable STREAMQ_<NAME> of the
    environment, streamq.toml or [tool.streamq] of pyproject.toml, the default. Durations are seconds. Passwords are
    not shown.
    """
    session = context.ensure_object(Session)
    typed = {"app"} if context.get_parameter_source("target") is ParameterSource.COMMANDLINE else set[str]()
    show([*_settings(session, target, typed), *_worker(context, session)], form, columns=COLUMNS)


def _settings(session: Session, target: str | None, typed: set[str]) -> Iterator[dict[str, Any]]:
    from streamq.cli.project import settings, variable
    from streamq.client.settings import DEFAULT_URL, app_options

    said = app_options({})
    values: dict[str, Any] = {name: getattr(said, name, None) for name in settings()}
    values |= {"app": target, "url": os.environ.get("STREAMQ_URL") or DEFAULT_URL}
    app = _loaded(target)
    in_code = {} if app is None else {name: getattr(app.options, name) for name in values if hasattr(app.options, name)}
    if app is not None:
        in_code["url"] = app.link.url
    for name, value in values.items():
        source = (
            f"--{name}" if name in typed
            else f"the code of {target}" if in_code.get(name, value) != value
            else _path(session) if name in session.counting
            else variable(name) if os.environ.get(variable(name))
            else DEFAULT
        )  # fmt: skip
        found = in_code.get(name, value)
        yield _row(name, found / 1000 if name == "result_ttl" else found, source, variable(name))


def _loaded(target: str | None) -> StreamQ[Any] | None:
    from streamq.cli.loading import load_app

    if target is None:
        return None
    try:
        return load_app(target, "streamq config --app")
    except Stopped as stopped:
        click.echo(f"{stopped.screen.what}: what the code of {target} sets is not shown", err=True)
        return None


def _worker(context: click.Context, session: Session) -> Iterator[dict[str, Any]]:
    from streamq.cli.commands.worker import worker
    from streamq.cli.project import options, settings

    inside = worker.make_context("worker", [], parent=context.parent)
    for spelling, option in options(worker).items():
        assert option.name is not None
        value, origin = inside.params[option.name], inside.get_parameter_source(option.name)
        variable = str(option.envvar or "")
        sources = {
            ParameterSource.ENVIRONMENT: variable,
            ParameterSource.DEFAULT_MAP: f"{_path(session)}, [worker]",
        }
        source = sources.get(origin or ParameterSource.DEFAULT, DEFAULT)
        if source != DEFAULT or option.name not in settings():  # else it is the application's
            yield _row(f"worker.{spelling}", value, source, variable)


def _path(session: Session) -> str:
    return "" if session.project is None else short_path(str(session.project.path))


def _row(name: str, value: Any, source: str, variable: str) -> dict[str, Any]:
    from streamq.broker.address import redact

    if isinstance(value, str):
        value = redact(value)
    elif name == "signing_keys" and value is not None:
        value = str(value)  # the ids of the keys
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return {"name": name, "value": value, "source": source, "variable": variable}
