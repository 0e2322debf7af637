"""The scheduler alone: enqueues what the schedules say, and runs no jobs."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from streamq.client.app import Application
from streamq.worker.patience import GaveUp, opened
from streamq.worker.scheduler import Scheduler
from streamq.worker.signals import STOPS

logger = logging.getLogger("streamq.worker")


async def beat(app: Application[Any]) -> None:
    """Fire the schedules of an application until SIGTERM or SIGINT. Only in the main thread.

    Workers and other beats may fire them too: each occurrence is enqueued once. Redis being away is waited out; any
    other error is raised.
    """
    scheduler = Scheduler(app)
    loop = asyncio.get_running_loop()
    for number in STOPS:
        loop.add_signal_handler(number, scheduler.stop)
    try:
        await opened(app, what="beat", stopping=scheduler.stopping)
        logger.info("beat: fires %s", ", ".join(app.timetable))
        await scheduler.run()
        logger.info("beat: stopped")
    except GaveUp:
        logger.warning("beat: stopped before Redis could be reached")
    finally:
        for number in STOPS:
            loop.remove_signal_handler(number)
        await app.close()
