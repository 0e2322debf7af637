"""`streamq completion`: what a shell has to know to complete commands, options, and names of queues and tasks."""

from __future__ import annotations

import sys
from typing import Final

import click

from streamq.cli.main import COMPLETE, streamq, verbose_option

PLACES: Final = {
    "bash": "streamq completion bash > ~/.local/share/bash-completion/completions/streamq",
    "zsh": 'streamq completion zsh > "${fpath[1]}/_streamq"    # a folder of yours; compinit has to run after it',
    "fish": "streamq completion fish > ~/.config/fish/completions/streamq.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(PLACES)))
@verbose_option
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
      streamq completion bash > ~/.local/share/bash-completion/completions/streamq
      source <(streamq completion bash)      for this shell alone
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(streamq, {}, "streamq", COMPLETE).source())
    if sys.stdout.isatty():
        click.echo(f"# put it there: {PLACES[shell]}", err=True)
