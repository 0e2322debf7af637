"""A worker process with a task for child processes, all in one script: `python crunching.py URL NAMESPACE LEDGER`."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from streamq import StreamQ

URL, NAMESPACE, LEDGER = sys.argv[1:4] if __name__ == "__main__" else ("redis://localhost", "unused", "")

app: StreamQ[None] = StreamQ(URL, namespace=NAMESPACE, lease="1s", grace=0.2)


class Mine(Exception):
    """A class of the script, which the child has under another module name."""


@app.task(name="hang", executor="process")
def hang(ledger: str) -> None:
    with open(ledger, "a", encoding="utf-8") as lines:
        lines.write(f"{os.getpid()}\n")
    time.sleep(60)


@app.task(name="fail", executor="process", autoretry_for=(Mine,), max_retries=1, retry_backoff=False)
def fail() -> None:
    raise Mine(f"in {__name__}")


async def main() -> None:
    async with app:
        await app.worker(handle_signals=True).run()


if __name__ == "__main__":
    asyncio.run(main())
