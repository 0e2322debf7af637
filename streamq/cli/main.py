"""The command `streamq`. Each of its commands is imported when it is used, so that `--help` is quick."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Final, cast

import click

from streamq import __version__
from streamq.cli.exits import INTERRUPTED, Exit, Screen, Stopped, report, usage

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from streamq.cli.project import Project

# Under its heading in `streamq --help`, in the order in which a newcomer needs them: name -> where it is, and its line.
COMMANDS: Final = {
    "Begin": {
        "demo": ("streamq.cli.demo.command:demo", "See it work: real jobs, a killed worker, nothing lost."),
        "init": ("streamq.cli.commands.init:init", "Write a first application to start from."),
        "worker": ("streamq.cli.commands.worker:worker", "Run the jobs of an application."),
        "beat": ("streamq.cli.commands.beat:beat", "Run the schedules of an application, and no jobs."),
    },
    "Jobs": {
        "enqueue": ("streamq.cli.commands.enqueue:enqueue", "Enqueue one job, or a file of them."),
        "result": ("streamq.cli.commands.result:result", "Wait for a job and print what it returned."),
        "jobs": ("streamq.cli.commands.jobs:jobs", "List, show, cancel and retry jobs."),
        "dlq": ("streamq.cli.commands.dlq:dlq", "Dead letters: list, show, retry, discard."),
        "schedule": ("streamq.cli.commands.schedule:schedule", "Schedules: list, next, run, pause, resume."),
    },
    "Look": {
        "info": ("streamq.cli.commands.info:info", "Queues and workers at a glance."),
        "top": ("streamq.cli.top.command:top", "The same, live."),
        "queues": ("streamq.cli.commands.queues:queues", "Queues: list, pause, resume, purge."),
        "workers": ("streamq.cli.commands.workers:workers", "What each live worker runs."),
        "events": ("streamq.cli.commands.events:events", "What happened to which job, as it happens."),
        "explain": ("streamq.cli.commands.explain:explain", "Why a job does not run, and what to do."),
        "timeline": ("streamq.cli.commands.timeline:timeline", "All that happened to one job."),
        "doctor": ("streamq.cli.commands.doctor:doctor", "Whether this server and this set-up are sound."),
        "bench": ("streamq.cli.bench.command:bench", "Measure it on a server of yours, and see what bounds it."),
        "chaos": ("streamq.cli.chaos.command:chaos", "Kill its workers and its server, and see what comes of it."),
    },
    "Set up": {
        "config": ("streamq.cli.commands.config:config", "Each setting, its value, and where that comes from."),
        "acl": ("streamq.cli.commands.acl:acl", "The Redis user that a producer or a worker needs."),
        "completion": ("streamq.cli.commands.completion:completion", "Completion for bash, zsh and fish."),
        "man": ("streamq.cli.commands.man:man", "Write the manual pages."),
    },
}
COMPLETE: Final = "_STREAMQ_COMPLETE"  # the variable in which a shell asks, however the program was started
HELP: Final = {"-h", "--help"}
OF_THEIR_OWN: Final = {"demo", "bench", "chaos"}  # settings of their own, and no server that was not meant for them
HOMES: Final = {name: home for section in COMMANDS.values() for name, (home, _) in section.items()}


@dataclass
class Session:
    """What one invocation was told that every command shares."""

    verbose: bool = False
    helping: bool = False  # help was asked for: it must come whatever is wrong
    project: Project | None = None
    counting: tuple[str, ...] = ()  # settings of the project's file with no variable of the environment above them


class Nearest(click.Group):
    """A group that answers a misspelt command with the nearest one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that was typed. Raises `Stopped` with the nearest name."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(args[0], known, n=1)
            screen = Screen(
                f"{ctx.command_path} has no command {args[0]!r}",
                "",
                f"it is misspelt: there is {near[0]}" if near else f"there are {', '.join(known)}",
                " ".join([ctx.command_path, *near, *args[1:]]) if near else f"{ctx.command_path} --help",
            )
            raise Stopped(screen)
        return super().resolve_command(ctx, args)


class LazyGroup(Nearest):
    """A group that knows its commands by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which a newcomer needs them."""
        return list(HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in HOMES:
            return None
        module, _, attribute = HOMES[cmd_name].partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), attribute))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that was typed. Raises `Stopped` with the nearest name."""
        ctx.ensure_object(Session).helping = not HELP.isdisjoint(takewhile(lambda word: word != "--", args))
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Its commands, without importing any, and its options."""
        from click.shell_completion import CompletionItem

        lines = [line for section in COMMANDS.values() for line in section.items()]
        found = [CompletionItem(name, help=about) for name, (_, about) in lines if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, without importing any."""
        for heading, section in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:<10}", about) for name, (_, about) in section.items()])


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
    allow_from_autoenv=False,
    help="Show the traceback of an error.",
)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"streamq {__version__}")
        ctx.exit()


# Every option has a variable, STREAMQ_<COMMAND>_<OPTION>, beside those that name a shorter one.
@click.group(cls=LazyGroup, context_settings={"help_option_names": sorted(HELP), "auto_envvar_prefix": "STREAMQ"})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    allow_from_autoenv=False,
    help="Show it.",
)
@verbose_option
@click.pass_context
def streamq(ctx: click.Context) -> None:
    """Jobs for asyncio on Redis Streams.

    \b
    Exit codes: 0 ok, 1 failed, 2 usage, 3 Redis unreachable, 4 not found,
    5 unsuitable server, 6 timed out. Data goes to stdout, all else to stderr.
    """
    session = ctx.ensure_object(Session)
    if session.helping:
        return
    from streamq.cli.project import find

    session.project = find()
    ctx.default_map = session.project.defaults(streamq)
    if ctx.invoked_subcommand not in OF_THEIR_OWN:
        session.counting = session.project.apply()


def main(program: str = "streamq") -> None:
    """Run the command line, and exit with its code."""
    session = Session()
    try:
        code = streamq.main(prog_name=program, complete_var=COMPLETE, standalone_mode=False, obj=session)
    except click.UsageError as error:
        helps = type(error).__name__ == "NoArgsIsHelpError"  # a class that click 8.1 does not have
        click.echo(error.format_message() if helps else usage(error, sys.argv[1:]), err=True)
        sys.exit(Exit.USAGE)
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
        found = error if session.project is None else session.project.blamed(error, session.counting)
        sys.exit(report(found, verbose=session.verbose))
    sys.exit(code if isinstance(code, int) else Exit.OK)
