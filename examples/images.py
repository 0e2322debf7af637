"""Images resized in child processes, with progress that the waiting side shows.

Nothing has to run beforehand; the server and the worker live inside the script, and the pictures are made by it:

    pip install 'streamq[embedded]' pillow
    python examples/images.py

A task with executor="process" may compute for long: it uses a core of its own, holds up nobody on the event loop, and
at its time limit it is really killed.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from PIL import Image

from streamq import Context, Job, Progress, StreamQ, as_completed

app = StreamQ("embedded://", namespace="images")
NAMES = ("dawn", "dune", "lake", "moon", "snow", "wave")
WIDTHS = (320, 160, 80)


@app.task(name="images.thumbnail", executor="process", time_limit="30s")
def thumbnail(folder: str, name: str, width: int) -> str:
    """One picture in one width. Arguments are names of files: the pictures themselves do not belong into a queue."""
    with Image.open(Path(folder, f"{name}.png")) as picture:
        picture.thumbnail((width, width), Image.Resampling.LANCZOS)
        picture.save(Path(folder, f"{name}.{width}.jpg"))
        return f"{name} {picture.width} x {picture.height}"


@app.task(name="images.album", time_limit="5m")
async def album(ctx: Context[None], folder: str) -> list[str]:
    """Every picture in every width: one job each, and one progress for all."""
    jobs = await app.enqueue_many(thumbnail.s(folder, name, width) for name in NAMES for width in WIDTHS)
    done = 0
    async for _ in as_completed(jobs, timeout="4m"):
        done += 1
        await ctx.progress(done, total=len(jobs))
    return [await job.result() for job in jobs]


async def follow(job: Job[list[str]]) -> list[str]:
    """Draw a bar on stderr that grows until the job has ended."""
    ended = asyncio.ensure_future(job.result(timeout=60))
    while not ended.done():
        draw(await job.progress())
        await asyncio.wait([ended], timeout=0.05)
    lines = ended.result()  # raises what the job failed with
    draw(Progress(1, 1))
    print(file=sys.stderr)
    return lines


def draw(progress: Progress | None) -> None:
    part = (progress and progress.fraction) or 0
    print(f"\r{'#' * round(40 * part):.<40} {part:4.0%}", end="", file=sys.stderr, flush=True)


def paint(folder: str) -> None:
    for number, name in enumerate(NAMES):
        Image.new("RGB", (1200, 600 + 100 * number), (40 * number, 90, 160)).save(Path(folder, f"{name}.png"))


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        paint(folder)
        async with app, app.worker(concurrency=8):
            print(*await follow(await album.enqueue(folder)), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
