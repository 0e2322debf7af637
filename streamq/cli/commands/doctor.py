"""`streamq doctor`: whether this server and this set-up are sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from streamq.cli.connected import connected
from streamq.cli.console import Format, format_options, show
from streamq.cli.exits import Exit

if TYPE_CHECKING:
    from streamq.broker.checkup import Finding
    from streamq.client.app import Application

COLOURS: Final = {"ok": "green", "note": "cyan", "warning": "yellow", "unsuitable": "red"}


@click.command()
@click.option(
    "--strict", is_flag=True, envvar="STREAMQ_STRICT", show_envvar=True, help="Exit with 1 on a warning, too."
)
@format_options
@connected
async def doctor(app: Application[Any], strict: bool, form: Format | None) -> None:
    """Look at the server, the queues and the workers, and say what is wrong.

    \b
      streamq doctor --url redis://localhost:6379/0
      streamq doctor --app shop.jobs:app --strict      in a deployment's checks

    Nothing is changed. Exit code 5: jobs are not safe on this server.
    """
    from streamq.broker.checkup import Severity, examine
    from streamq.broker.facts import gather

    found = examine(await gather(app.broker))
    if form is not None:
        rows = [{"check": f.check, "severity": f.severity, "says": f.says, "do": f.do} for f in found]
        show(rows, form, columns=("check", "severity", "says", "do"))
    else:
        for finding in found:
            click.echo(_line(finding))
    worst = {finding.severity for finding in found}
    if Severity.UNSUITABLE in worst:
        click.get_current_context().exit(Exit.UNSUITABLE)
    if strict and Severity.WARNING in worst:
        click.get_current_context().exit(Exit.FAILED)


def _line(finding: Finding) -> str:
    severity = click.style(f"{finding.severity:<11}", fg=COLOURS[finding.severity])
    text = f"{severity}{finding.check:<13}{finding.says}"
    return f"{text}\n{'':<24}{finding.do}" if finding.do else text
