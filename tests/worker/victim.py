"""A worker process: `python victim.py URL NAMESPACE LEDGER [GRACE]`. It writes a line per start and end."""

from __future__ import annotations

import asyncio
import os
import sys

from streamq import StreamQ

URL, NAMESPACE, LEDGER = sys.argv[1:4] if __name__ == "__main__" else ("redis://localhost", "unused", os.devnull)
GRACE = sys.argv[4] if __name__ == "__main__" and len(sys.argv) > 4 else "0.2"


def note(*words: object) -> None:
    with open(LEDGER, "a", encoding="utf-8") as ledger:
        ledger.write(" ".join(map(str, words)) + "\n")


app: StreamQ[None] = StreamQ(URL, namespace=NAMESPACE, lease="1s", grace=float(GRACE))


@app.task(name="hang")
async def hang() -> str:
    note("START", os.getpid())
    await asyncio.Event().wait()
    return "never"


@app.task(name="die")
async def die() -> None:
    note("DIE", os.getpid())
    os._exit(9)


@app.task(name="brief")
async def brief(number: int) -> int:
    note("START", number)
    await asyncio.sleep(0.1)
    note("END", number)
    return number


@app.task(name="innocent")
async def innocent(number: int) -> int:
    await asyncio.sleep(0.01)
    return number


async def main() -> None:
    async with app:
        await app.worker(handle_signals=True, concurrency=10).run()


if __name__ == "__main__":
    asyncio.run(main())
