"""Commands that ask Redis: how they are told which one, and how they come by an open application."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import click

from streamq.cli.exits import Screen, Stopped
from streamq.cli.main import verbose_option

if TYPE_CHECKING:
    from streamq.client.app import Application
    from streamq.worker.app import StreamQ

OPTIONS: Final = (
    click.option("--app", "target", metavar="MODULE:APP", envvar="STREAMQ_APP", show_envvar=True, help="Whose jobs."),
    click.option(
        "--url", metavar="URL", help="Redis, whatever the application says.  [env var, if it says nothing: STREAMQ_URL]"
    ),
    click.option("--namespace", metavar="NAME", help="Without --app: of the keys.  [env var: STREAMQ_NAMESPACE]"),
)

NOBODY_ELSE: Final = Screen(
    "embedded:// is the server of one process alone",
    "the URL of the application, --url or STREAMQ_URL",
    "this command would start an empty one, and what it writes would end with it",
    "--url embedded:///var/lib/my-app    a folder is shared by all who name it; or --url redis://localhost:6379/0",
)
Command = Callable[..., Coroutine[Any, Any, None]]  # its first parameter is the application


def connected(function: Command) -> Callable[..., None]:
    """An `async def` whose first parameter is an open application, as the body of a click command.

    The options --app, --url, --namespace and -v are added. Redis is tried once, so that a person is answered at once.

        @click.command()
        @connected
        async def info(app: Application[Any], ...) -> None: ...
    """

    @functools.wraps(function)
    def run(target: str | None, url: str | None, namespace: str | None, **options: Any) -> None:
        asyncio.run(_run(application(target, url, namespace), function, options))

    decorated: Callable[..., None] = run
    for option in reversed(OPTIONS):
        decorated = option(decorated)
    return verbose_option(decorated)


async def _run(app: Application[Any], function: Command, options: dict[str, Any]) -> None:
    if app.broker.connections.address.private:
        raise Stopped(NOBODY_ELSE)
    try:
        await app.open(timeout=0)
        await function(app, **options)
    finally:
        await app.close()


def application(target: str | None, url: str | None, namespace: str | None) -> Application[Any]:
    """The application that the options name: the user's own, or one that knows no tasks. Raises `Stopped`."""
    if target is not None:
        return loaded(target, url, "streamq --app")
    from streamq.client.app import Application

    return Application(url, namespace=namespace)


def loaded(target: str, url: str | None, command: str) -> StreamQ[Any]:
    """The user's own application, on the Redis of `url` if there is one.

    Raises `Stopped`, with a screen that says what to type instead of `command target`.
    """
    from streamq.cli.loading import load_app

    if url is not None:
        os.environ["STREAMQ_URL"] = url
    app = load_app(target, command)
    if url is not None:
        app.link.redirect(url)
    return app


def unnamed(where: str, cause: str, typed: str) -> Stopped:
    """The end of a command that needs an application and was told of none; `where` in the line it would stand."""
    return Stopped(
        Screen(
            "no application is named",
            f"{where}, STREAMQ_APP, and `app` in streamq.toml or [tool.streamq] of pyproject.toml",
            cause,
            f"{typed}    the module and the variable that holds the StreamQ",
        )
    )
