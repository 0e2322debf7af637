"""The queues that are struck, one module each, run in the environment that `contenders` pins for it.

A module has, beside its task `work(key, seconds)`, which notes START, sleeps, and notes END:

SETTINGS        str: how it was configured not to lose jobs, a literal
worker() -> list[str]   the arguments after `python` that start one worker; it notes UP when it takes jobs
producer()      an async context manager that gives `enqueue(key, seconds)`, which returns when Redis has the job

CHAOS_URL, CHAOS_CONCURRENCY and CHAOS_LEASE (seconds) are in the environment.
"""

NAMES = ("streamq", "streaq", "taskiq_streams")
