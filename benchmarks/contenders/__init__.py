"""The systems that are measured. One module each, with the same few names; run in an environment of its own.

A contender's module is imported in its own virtual environment, where only the standard library, its `REQUIRES`
and this package are at hand. Every name below is a module attribute. The harness reads the four upper-case ones without
importing the module, so they are literals:

REQUIRES        list[str]: pinned packages of its environment, uvloop and hiredis among them where it can use them (the
                driver needs uvloop: it is added where it is not named); [] is the interpreter that runs the harness
SETTINGS        str: what was set other than by default, and where its documentation advises that; "" if nothing
RESULTS         bool: whether the worker stores results in this configuration
JOBS            int: how many jobs a run of the drain and enqueue scenarios takes (2 to 10 seconds of its work)
worker(concurrency: int) -> list[str]
                the arguments after `python` that start one worker process; it reads BENCH_URL from the environment.
                The worker logs at WARNING and runs on uvloop where the system allows.
open_producer(url: str) -> Producer     an `async` function

Producer, all methods `async`:
enqueue(i: int, y: int) -> handle       one no-op job `add(i, y)`, awaited until the server has it
enqueue_many(count: int) -> None        jobs add(i, 1) for i < count in the fastest way it documents; None (the
                                        attribute) if it has no bulk call
enqueue_naps(count: int) -> None        jobs `nap(i)` that sleep 50 ms
enqueue_in(delay: float, i: int) -> None    `add(i, 1)`, due in `delay` seconds; None if it has no delays
result(handle) -> int                   wait for the job's result; None if results are not stored
left() -> int                           jobs not finished yet and not acknowledged yet, asked of the server; may be
                                        approximate while jobs run, is 0 exactly when everything was acknowledged
close() -> None

The tasks are the same everywhere, and have these short names where one can be given (it is stored with each job):
`add(i, y)` calls `marks.mark(i)` and returns `i + y`; `nap(i)` marks and then sleeps 50 ms: asyncio.sleep, or
time.sleep in systems of threads.
"""

NAMES = (
    "streamq", "raw", "hiredis", "bullmq", "saq", "arq", "taskiq_streams", "taskiq_list", "streaq", "docket",
    "dramatiq", "celery", "rq",
)  # fmt: skip
