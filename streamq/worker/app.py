"""The application with a worker inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamq.client.app import Application
from streamq.client.context import StateT
from streamq.core.clock import Duration
from streamq.worker.worker import Worker


class StreamQ(Application[StateT]):
    """Tasks, where their jobs are kept, and workers that run them.

    app = StreamQ("redis://localhost:6379/0", namespace="shop")
    """

    def worker(
        self,
        *,
        queues: Sequence[str] | Mapping[str, int] | None = None,
        concurrency: int = 100,
        prefetch: int = 0,
        burst: bool = False,
        schedules: bool = True,
        grace: Duration | None = None,
        name: str | None = None,
        handle_signals: bool = False,
    ) -> Worker:
        """A worker in this event loop: `async with app.worker(): ...`, or `await app.worker().run()`.

        `queues` are names (by default all that tasks and routes name, and "default"), or names with weights:
        `{"high": 3, "default": 1}` gives "high" three of four free slots while both have jobs. `concurrency`
        jobs run at once, `prefetch` more are held ready. `burst` ends the worker when nothing is left.
        `schedules=False` leaves the schedules to other workers or to `streamq beat`. `grace` is how long running jobs
        may go on after a stop; then they are cancelled and given back. Raises `ConfigurationError`.

            async with app.worker(queues=["io"], concurrency=10):
                ...
        """
        return Worker(
            self,
            queues=queues,
            concurrency=concurrency,
            prefetch=prefetch,
            burst=burst,
            schedules=schedules,
            grace=grace,
            name=name,
            handle_signals=handle_signals,
        )
