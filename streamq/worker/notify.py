"""What systemd is told, if it asked: the protocol of sd_notify, without its library."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Final

SHOWN_EVERY: Final = 5.0  # seconds between two texts in `systemctl status`
VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

logger = logging.getLogger("streamq.worker")


class Notifier:
    """Takes systemd's variables out of the environment, for no child may speak in this process's name.

    `run` sends the watchdog's ping, twice in its time, for as long as `alive` has no objection, and what `shown` says.
    Without NOTIFY_SOCKET it does nothing.

        notifier = Notifier()
        notifier.ready()
    """

    name = "notifier"

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        path, interval, pid = (environ.pop(name, "") for name in VARIABLES)
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        meant = interval.isdigit() and pid in ("", str(os.getpid()))
        self._every = int(interval) / 2e6 if meant else 0.0
        self.alive: Callable[[], str] = str  # an objection, or nothing
        self.shown: Callable[[], str] = str

    def ready(self) -> None:
        """All processes take jobs, for the first time or again."""
        self._say("READY=1")

    def reloading(self) -> None:
        """They are replaced one by one; `ready` ends it."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """No more jobs are taken."""
        self._say("STOPPING=1")

    async def run(self) -> None:
        """Ping and tell until cancelled."""
        if not self._address:
            return
        shown = ""
        while True:
            lines = ["WATCHDOG=1"] if self._every and not self.alive() else []
            if (text := self.shown()) != shown:
                shown = text
                lines.append(f"STATUS={text}")
            if lines:
                self._say(*lines)
            await asyncio.sleep(self._every or SHOWN_EVERY)

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:  # systemd is busy or gone: it notices a missing ping by itself
            logger.debug("%s: %s", lines[0], error)
