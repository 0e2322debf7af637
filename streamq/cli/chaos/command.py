"""`streamq chaos`: workers and server are killed while jobs run, and the books say what came of each job."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import click

from streamq.cli.exits import Exit
from streamq.cli.main import verbose_option
from streamq.cli.project import forget


def _option(*names: str, **more: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    long = next(name for name in names if name.startswith("--")).removeprefix("--")
    return click.option(*names, envvar=f"STREAMQ_CHAOS_{long.upper().replace('-', '_')}", show_envvar=True, **more)


@click.command()
@_option("--minutes", type=click.FloatRange(0.05, 1440), default=1.0, show_default=True, help="How long.")
@_option("--workers", type=click.IntRange(1, 64), default=3, show_default=True, help="Worker processes.")
@_option("-c", "--concurrency", type=click.IntRange(1, 1000), default=16, show_default=True, help="Jobs at once, each.")
@_option("--lease", type=click.FloatRange(0.5, 60), default=1.0, show_default=True, help="Seconds.")
@_option("--seed", type=click.IntRange(0), help="Of a run that is to be repeated.  [default: chance]")
@click.option(
    "--url", metavar="URL", envvar="STREAMQ_CHAOS_URL", show_envvar=True, help="Redis; by default an embedded server."
)
@_option("--server-faults", is_flag=True, help="With --url: SCRIPT FLUSH as well, which all its users notice.")
@_option("--keep", is_flag=True, help="Keep the ledger and the workers' logs.")
@_option("--json", "as_json", is_flag=True, help="The verdict as one JSON object.")
@click.option("--compare", is_flag=True, help="Run nothing: show how others fared under the same kills.")
@verbose_option
def chaos(
    minutes: float,
    workers: int,
    concurrency: int,
    lease: float,
    seed: int | None,
    url: str | None,
    server_faults: bool,
    keep: bool,
    as_json: bool,
    compare: bool,
) -> int:
    """Kill workers and server while jobs run, and see what comes of it.

    \b
      streamq chaos --minutes 5
      streamq chaos --url redis://localhost:6379/0
      streamq chaos --seed 7            the same faults again

    Workers are killed with SIGKILL, stopped for longer than their leases, restarted, killed while they shut down, and
    poisoned by a job; the embedded server is killed, stopped, and made to forget its scripts. On a server of yours
    only workers are harmed, in a namespace of its own, which is deleted at the end.

    Every process keeps a book of its own. Exits with 1 if the books and Redis disagree: a job lost, invented,
    completed twice, or begun more often than lost leases and retries explain.
    """
    if compare:
        from streamq.cli.chaos.compare import shown

        click.echo(shown())
        return Exit.OK
    if server_faults and url is None:
        raise click.UsageError("--server-faults is for --url: the embedded server is struck by all faults anyway.")
    forget()
    from streamq.cli.chaos.run import Plan
    from streamq.cli.chaos.schedule import OF_WORKERS, Kind
    from streamq.cli.chaos.stage import perform

    harmless = OF_WORKERS | {Kind.POISON}
    kinds = frozenset(Kind) if url is None else harmless | {Kind.FLUSH} if server_faults else harmless
    chosen = secrets.randbelow(10**6) if seed is None else seed
    return perform(Plan(minutes * 60, workers, concurrency, chosen, lease, kinds), url, keep=keep, as_json=as_json)
