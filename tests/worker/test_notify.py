"""sd_notify: what goes to which address, and nothing when nobody asked."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from streamq.worker.alive import alive
from streamq.worker.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True])
async def test_the_watchdog_is_fed_while_nobody_objects(tmp_path: Path, abstract: bool) -> None:
    name = f"streamq-test-{os.getpid()}"
    environ = {"NOTIFY_SOCKET": f"@{name}" if abstract else str(tmp_path / "s"), "WATCHDOG_USEC": "20000", "HOME": "/"}
    objection = ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else str(tmp_path / "s"))
        manager.setblocking(False)
        notifier = Notifier(environ)
        notifier.alive, notifier.shown = lambda: objection, lambda: objection or "well"
        assert environ == {"HOME": "/"}
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5), alive([notifier]):
            assert await loop.sock_recv(manager, 100) == b"WATCHDOG=1\nSTATUS=well"
            assert await loop.sock_recv(manager, 100) == b"WATCHDOG=1"
            objection = "stands still"
            while (said := await loop.sock_recv(manager, 100)) == b"WATCHDOG=1":
                pass
            assert said == b"STATUS=stands still"
            notifier.stopping()
            assert await loop.sock_recv(manager, 100) == b"STOPPING=1"


async def test_without_systemd_it_ends_at_once() -> None:
    notifier = Notifier({})
    notifier.ready()
    async with asyncio.timeout(1):
        await notifier.run()


async def test_a_manager_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    notifier.ready()


async def test_the_watchdog_of_another_process_is_not_ours(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"})
        notifier.shown = lambda: "well"
        async with asyncio.timeout(5), alive([notifier]):
            assert await asyncio.get_running_loop().sock_recv(manager, 100) == b"STATUS=well"
