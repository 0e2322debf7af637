"""`streamq acl`: the least that a producer or a worker must be allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamq.cli.exits import Screen, Stopped
from streamq.cli.main import verbose_option

if TYPE_CHECKING:
    from streamq.broker.acl import Role


@click.command()
@click.option("--role", type=click.Choice(["producer", "worker"]), required=True, help="What it is to do.")
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="On this queue; several times for several.")
@click.option(
    "--namespace", default="streamq", show_default=True, envvar="STREAMQ_NAMESPACE", show_envvar=True, metavar="NAME",
    help="Of the keys.",
)  # fmt: skip
@click.option("--cluster", is_flag=True, help="On a Redis Cluster, where it has to ask which server has which keys.")
@click.option("--user", metavar="NAME", help="Its name; without it streamq-producer or streamq-worker.")
@verbose_option
def acl(role: Role, queues: tuple[str, ...], namespace: str, cluster: bool, user: str | None) -> None:
    """Print the command that makes a Redis user with no more rights than it needs.

    \b
      streamq acl --role producer --queue orders
      streamq acl --role worker --queue orders --queue mail --namespace shop --user mailer

    Put a password in place of PASSWORD first. A producer enqueues, waits for results and looks; to cancel, pause and
    retry needs the rights of a worker. Users are not replicated: make them on every server, replicas too. With
    durability "fsync" add +waitaof, which Redis 7.0 does not know.
    """
    from streamq.broker.acl import rules
    from streamq.client.call import queue_name

    for name in queues:
        queue_name("--queue", name)
    queue_name("--namespace", namespace)
    chosen = user or f"streamq-{role}"
    if not chosen.isprintable() or any(each.isspace() for each in chosen):
        raise Stopped(Screen(f"--user {chosen!r} cannot name a user", "", "it has a space in it", "--user shop"))
    first, second, *rest = rules(role, namespace, queues or ("default",), cluster=cluster)
    click.echo(" ".join(["ACL SETUSER", chosen, first, second, ">PASSWORD", *rest]))
