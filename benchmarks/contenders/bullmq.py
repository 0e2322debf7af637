"""BullMQ, on Node: see bullmq.mjs."""

from __future__ import annotations

NPM: dict[str, str] = {"bullmq": "6.7.0", "ioredis": "6.0.0"}
SETTINGS = "one Worker, finished jobs and their results are kept (the default), bulk in four calls of 100 at a time"
RESULTS = True
JOBS = 20_000
