"""The scheduler alone: enqueues what the schedules say, and runs no jobs."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from streamq.client.app import Application
from streamq.worker.alive import alive, causes
from streamq.worker.patience import GaveUp, opened
from streamq.worker.scheduler import schedulers
from streamq.worker.signals import STOPS, answered

logger = logging.getLogger("streamq.worker")


async def beat(app: Application[Any]) -> None:
    """Fire the schedules of an application until SIGTERM or SIGINT. Only in the main thread.

    Workers and other beats may fire them too: each occurrence is enqueued once. Redis being away is waited out; any
    other error is raised.
    """
    stopping = asyncio.Event()
    with answered(dict.fromkeys(STOPS, stopping.set)):
        try:
            await opened(app, what="beat", stopping=stopping)
            logger.info("beat: fires %s", ", ".join(app.timetable))
            async with alive(schedulers(app)):
                await stopping.wait()
            logger.info("beat: stopped")
        except GaveUp:
            logger.warning("beat: stopped before Redis could be reached")
        except BaseExceptionGroup as group:
            raise next(causes(group)) from None
        finally:
            await app.close()
