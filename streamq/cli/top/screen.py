"""The picture: a function of what is known and of what the keys have chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from streamq.cli.console import ago, iso
from streamq.cli.top.views import QueueView, View

KEYS: Final = "↑↓ choose   Enter open   p pause or resume   q end"
OPEN_KEYS: Final = "Esc back   p pause or resume   q end"


@dataclass
class Chosen:
    """What the person at the keys looks at."""

    queue: str = ""
    opened: bool = False
    said: str = ""  # the answer to the last key


def draw(view: View, chosen: Chosen, width: int, height: int) -> RenderableType:
    """The whole screen, in at most `height` lines."""
    here = next((each for each in view.queues if each.info.name == chosen.queue), None)
    parts: list[RenderableType] = [_head(view)]
    room = max(4, height - 6)
    if chosen.opened and here is not None:
        parts += [_queues([here], chosen, width), _opened(here), _running(view, here.info.name, max(3, room - 14))]
    else:
        shown = _window(view.queues, chosen.queue, max(3, room - 8))
        parts += [_queues(shown, chosen, width), _workers(view, max(3, room - len(shown) - 4))]
    parts.append(Text(f"{chosen.said}  " if chosen.said else "", style="yellow", end=""))
    parts.append(Text(OPEN_KEYS if chosen.opened else KEYS, style="dim"))
    return Group(*parts)


def _head(view: View) -> Text:
    text = Text.assemble(
        ("streamq top", "bold"),
        f"  {view.where}  {view.version}  {view.memory}  {iso(view.at)}  asked in {view.took * 1000:.0f} ms",
    )
    if view.problem:
        text.append(f"\n{view.problem}", style="bold red")
    return text


def _window(queues: list[QueueView], name: str, room: int) -> list[QueueView]:
    """As many as fit, so that the chosen one is among them."""
    place = next((n for n, each in enumerate(queues) if each.info.name == name), 0)
    first = max(0, min(place - room // 2, len(queues) - room))
    return queues[first : first + room]


def _queues(queues: list[QueueView], chosen: Chosen, width: int) -> RenderableType:
    if not queues:
        return Text("no queue was ever used here", style="dim")
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("QUEUE", ratio=1, no_wrap=True)
    shown = [(name, cell) for name, least, cell in COLUMNS if width >= least]
    for name, _ in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for each in queues:
        name = escape(each.info.name) + (" [yellow](paused)[/]" if each.info.paused is not None else "")
        style = "reverse" if each.info.name == chosen.queue else ""
        table.add_row(name, *(cell(each) for _, cell in shown), style=style)
    return table


def _red(text: str, when: bool) -> str:
    return f"[red]{text}[/]" if when else text


def _stuck(each: QueueView) -> bool:
    return each.info.queued > 0 and not each.info.workers


# Head, from how many columns of the terminal on it is shown, text.
COLUMNS: Final[tuple[tuple[str, int, Callable[[QueueView], str]], ...]] = (
    ("QUEUED", 0, lambda each: _red(f"{each.info.queued:,}", _stuck(each))),
    ("RUNNING", 0, lambda each: f"{each.info.running:,}"),
    ("LATER", 90, lambda each: f"{each.info.scheduled:,}"),
    ("DEAD", 0, lambda each: _red(f"{each.info.dead:,}", each.info.dead > 0)),
    ("OLDEST", 100, lambda each: ago(each.info.oldest) if each.info.oldest else "-"),
    ("ENDED/s", 0, lambda each: _number(each.rates.ended)),
    ("FAILED/s", 80, lambda each: _red(_number(each.rates.failed), bool(each.rates.failed))),
    ("RUN p50", 0, lambda each: _span(each.rates.run_p50)),
    ("p95", 70, lambda each: _span(each.rates.run_p95)),
    ("WORKERS", 110, lambda each: _red(str(each.info.workers), _stuck(each))),
)


def _workers(view: View, room: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("WORKER", ratio=2, no_wrap=True)
    table.add_column("QUEUES", ratio=1, no_wrap=True)
    for name in ("RUNNING", "OF", "UP", "LONGEST"):
        table.add_column(name, justify="right", no_wrap=True)
    for worker in view.workers[:room]:
        oldest = min((since for _, _, since in worker.running), default=0)
        table.add_row(
            escape(worker.id),
            escape(", ".join(worker.queues)),
            str(len(worker.running)),
            str(worker.concurrency),
            ago(max(0, view.at - worker.started_at) / 1000),
            ago(max(0, view.at - oldest) / 1000) if oldest else "-",
        )
    if not view.workers:
        table.add_row("[red]no live worker[/]", *[""] * 5)
    if len(view.workers) > room:
        table.add_row(f"[dim]and {len(view.workers) - room} more[/]", *[""] * 5)
    return table


def _opened(queue: QueueView) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    info, rates = queue.info, queue.rates
    table.add_row("by priority", ", ".join(f"{p}: {count:,}" for p, count in info.by_priority.items()) or "-")
    table.add_row("waited p50, p95", f"{_span(rates.wait_p50)}, {_span(rates.wait_p95)}")
    table.add_row("sample", f"{rates.sample} finished jobs of the last {rates.window:.1f} s")
    if info.paused is not None:
        table.add_row(
            "paused", f"since {iso(info.paused.since)}{': ' if info.paused.reason else ''}{info.paused.reason}"
        )
    return table


def _running(view: View, queue: str, room: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    for name in ("RUNNING JOB", "TASK", "WORKER"):
        table.add_column(name, no_wrap=True)
    table.add_column("SINCE", justify="right", no_wrap=True)
    jobs = [
        (since, job_id, task, worker.id)
        for worker in view.workers
        if queue in worker.queues
        for job_id, task, since in worker.running
    ]
    for since, job_id, task, worker in sorted(jobs)[:room]:
        table.add_row(escape(job_id), escape(task), escape(worker), ago(max(0, view.at - since) / 1000))
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else ago(seconds)
