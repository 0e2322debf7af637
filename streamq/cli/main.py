"""The command `streamq`. Each of its commands is imported when it is used, so that `--help` is quick."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from dataclasses import dataclass
from typing import Final, cast

import click

from streamq import __version__
from streamq.cli.exits import INTERRUPTED, Exit, report

# name -> where it is, and its line in `streamq --help`
COMMANDS: Final = {
    "demo": ("streamq.cli.demo:demo", "See it work: real jobs, a killed worker, nothing lost."),
    "worker": ("streamq.cli.worker:worker", "Run the jobs of an application."),
    "bench": ("streamq.cli.bench:bench", "Measure it on a server of yours, and see what bounds it."),
}


@dataclass
class Session:
    """What one invocation was told that every command shares."""

    verbose: bool = False


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that was typed. Raises `click.UsageError` with the nearest name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(COMMANDS)}."
            ctx.fail(f"There is no command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)


def be_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Remember -v, wherever in the line it was typed."""
    if value:
        ctx.ensure_object(Session).verbose = True


verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=be_verbose,
    help="Show the traceback of an error.",
)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"streamq {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show it.")
@verbose_option
def streamq() -> None:
    """Jobs for asyncio on Redis Streams.

    \b
    Exit codes: 0 ok, 1 failed, 2 usage, 3 Redis unreachable, 4 not found,
    5 unsuitable server, 6 timed out. Data goes to stdout, all else to stderr.
    """


def main(program: str = "streamq") -> None:
    """Run the command line, and exit with its code."""
    session = Session()
    try:
        code = streamq.main(prog_name=program, standalone_mode=False, obj=session)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # `streamq ... | head` has seen enough. Python would complain when it flushes stdout at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)
    except Exception as error:  # noqa: BLE001 - the last one who can tell the user in a few words
        sys.exit(report(error, verbose=session.verbose))
    sys.exit(code if isinstance(code, int) else Exit.OK)
