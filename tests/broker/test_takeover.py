"""Several processes on one folder: when the one that started the server ends, another starts it again."""

from __future__ import annotations

import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from pathlib import Path

from streamq.broker.broker import Broker
from streamq.core.options import AppOptions

OWNER = """
import asyncio, sys
from streamq.broker.broker import Broker
from streamq.core.options import AppOptions

async def main():
    broker = Broker(sys.argv[1], AppOptions())
    await broker.open()
    await broker.command("SET", "kept", "yes")
    print("ready", flush=True)
    sys.stdin.readline()
    await broker.close()

asyncio.run(main())
"""


async def test_a_joined_process_goes_on_when_the_owner_ends(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}/data"
    owner = await create_subprocess_exec(sys.executable, "-c", OWNER, url, stdin=PIPE, stdout=PIPE)
    assert owner.stdin is not None
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"ready\n"
    broker = Broker(url, AppOptions())
    await broker.open()
    try:
        assert await broker.command("GET", "kept") == b"yes"
        owner.stdin.write(b"\n")
        await owner.communicate()
        assert owner.returncode == 0
        assert await broker.command("GET", "kept") == b"yes"
    finally:
        await broker.close()
