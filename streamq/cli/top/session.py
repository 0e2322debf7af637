"""A terminal that `streamq top` has for itself: keys come in, pictures go out."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import termios
import tty
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Final

from rich.console import Console
from rich.live import Live

from streamq.broker.broker import Broker
from streamq.broker.inspector import Inspector
from streamq.cli.top.screen import Chosen, draw
from streamq.cli.top.views import View, look
from streamq.errors import BrokerError

PATIENCE: Final = 2  # seconds: a person waits, and so does the key q; the setting `timeout` is for programs
WIDE: Final = 140  # columns of a picture that goes into a pipe
NAMES: Final = {b"\x1b[A": "up", b"\x1b[B": "down", b"\r": "enter", b"\n": "enter", b"\x1b": "escape"}


def picture(view: View) -> None:
    """One picture on stdout."""
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    console.print(draw(view, Chosen(), console.width, len(view.queues) + len(view.workers) + 40))


async def watch(broker: Broker, every: float) -> None:
    """Until q or Ctrl-C. Redis being away leaves the last picture, and says so."""
    console, chosen, woken = Console(), Chosen(), asyncio.Event()
    pressed: asyncio.Queue[str] = asyncio.Queue()

    def press(key: str) -> None:
        pressed.put_nowait(key)
        woken.set()

    view = await look(broker)
    with _keys(press), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            while not pressed.empty():
                key = pressed.get_nowait()
                if key == "q":
                    return
                chosen.said = await _obey(key, view, chosen, broker)
            view = await _again(broker, view)
            if not chosen.queue and view.queues:
                chosen.queue = view.queues[0].info.name
            live.update(draw(view, chosen, console.width, console.height), refresh=True)
            woken.clear()
            if pressed.empty():
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), every)


async def _again(broker: Broker, before: View) -> View:
    try:
        async with asyncio.timeout(PATIENCE):
            return await look(broker)
    except TimeoutError:
        return dataclasses.replace(before, problem=f"this picture is old: Redis does not answer within {PATIENCE} s")
    except BrokerError as error:
        return dataclasses.replace(before, problem=f"this picture is old: {error}")


async def _obey(key: str, view: View, chosen: Chosen, broker: Broker) -> str:
    names = [each.info.name for each in view.queues]
    place = names.index(chosen.queue) if chosen.queue in names else 0
    if key in ("up", "down") and names and not chosen.opened:
        chosen.queue = names[max(0, min(len(names) - 1, place + (1 if key == "down" else -1)))]
    elif key in ("enter", "escape"):
        chosen.opened = key == "enter"
    elif key == "p" and chosen.queue in names:
        return await _toggle(broker, chosen.queue)
    return ""


async def _toggle(broker: Broker, queue: str) -> str:
    try:
        if (await Inspector(broker).queue(queue)).paused is not None:
            await broker.resume(queue)
            return f"{queue} goes on"
        await broker.pause(queue, "streamq top")
        return f"{queue} is paused: its jobs wait"
    except BrokerError as error:
        return str(error)


@contextmanager
def _keys(press: Callable[[str], None]) -> Generator[None]:
    """Read single keys from the terminal, which is as it was afterwards."""
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    loop = asyncio.get_running_loop()

    def read() -> None:
        data = os.read(number, 64)
        press(NAMES.get(data) or data[:1].decode(errors="replace") or "q")  # nothing: the terminal is gone

    tty.setcbreak(number)
    loop.add_reader(number, read)
    try:
        yield
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)
