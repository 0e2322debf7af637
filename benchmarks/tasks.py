"""What the benchmark's worker runs: two ints in, one int out."""

from __future__ import annotations

from streamq import StreamQ

app = StreamQ(namespace="bench")


@app.task
async def add(x: int, y: int) -> int:
    return x + y
