"""Tasks, schedules and routes: where they are written down, and which application they belong to."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from typing import Any

import pytest

from streamq import ConfigurationError, Cron, Event, Every, Router, StreamQ, crontab, shared_task
from streamq.client.dispatch import Dispatch
from streamq.client.registry import Scheduled
from streamq.client.routes import RouteTable

URL = "redis://localhost:1/0"  # nobody listens there: what is tested here asks no server


def app(**settings: Any) -> StreamQ[Any]:
    return StreamQ(URL, **settings)


def mail_router() -> Router:
    router = Router()

    @router.task(name="send", max_retries=9)
    async def send(to: str) -> None: ...

    @router.task(name="urgent", queue="fast", priority=9)
    async def urgent(to: str) -> None: ...

    @router.every("5m", name="digest", args=("all",))
    @router.task(name="digest")
    async def digest(to: str) -> None: ...

    return router


def test_names() -> None:
    def inner() -> None: ...

    assert app().task(inner).name == f"{__name__}.test_names.inner"
    assert app().task(name="mine")(inner).name == "mine"
    with pytest.raises(ConfigurationError, match="lambda"):
        app().task(lambda: None)


def test_the_name_of_a_script_is_its_files(tmp_path: Any) -> None:
    script = tmp_path / "shop.py"
    script.write_text("from streamq import StreamQ\n@StreamQ('redis://x').task\ndef f(): ...\nprint(f.name)\n")
    for command in ([str(script)], ["-m", "shop"]):
        done = subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": ":".join([".", *sys.path])},
        )
        assert done.stdout == "shop.f\n", done.stderr


def test_a_router_belongs_to_the_application_that_includes_it() -> None:
    router, shop = mail_router(), app(max_retries=1, default_retry_delay=7)
    send = router.tasks["send"]
    with pytest.raises(ConfigurationError, match=r"app\.include"):
        asyncio.run(send.enqueue("me"))
    shop.include(router, prefix="mail.", queue="slow")
    assert [name for name in shop.tasks if name.startswith("mail.")] == ["mail.send", "mail.urgent", "mail.digest"]
    included = shop.tasks["mail.send"]
    assert (included.options.queue, shop.tasks["mail.urgent"].options.queue) == ("slow", "fast")
    assert (included.options.retry.max_retries, included.options.retry.default_delay) == (9, 7.0)
    assert isinstance(send.outlet, Dispatch)
    assert send.name == "mail.send"
    assert shop.timetable["mail.digest"] == Scheduled("mail.digest", "mail.digest", Every("5m"), ("all",))


def test_what_is_added_later_is_included_too_and_a_router_keeps_no_application_alive() -> None:
    router, shop, other = Router(), app(), app()
    shop.include(router, prefix="a.")
    other.include(router, prefix="b.")

    @router.cron("0 3 * * *", name="n")
    async def late() -> None: ...

    own = late.original_name
    assert (f"a.{own}" in shop.tasks, f"b.{own}" in other.tasks) == (True, True)
    assert shop.tasks[f"a.{own}"].name == f"a.{own}"
    assert "a.n" in shop.timetable
    dead = weakref.ref(shop)
    del shop
    gc.collect()
    assert dead() is None


def test_shared_tasks_are_in_every_application() -> None:
    before = app()

    @shared_task(name="shared.one", queue="q")
    def one() -> None: ...

    @shared_task
    async def two() -> int:
        return 2

    after = app()
    for each in (before, after):
        assert {"shared.one", two.original_name} <= each.tasks.keys()
    assert asyncio.run(two()) == 2


def test_two_tasks_of_one_name_are_refused_and_a_redefinition_is_not() -> None:
    shop = app()

    def one() -> None: ...

    def two() -> None: ...

    shop.task(name="same")(one)
    shop.task(name="same")(one)
    with pytest.raises(ConfigurationError, match="Two tasks are named 'same'"):
        shop.task(name="same")(two)


@pytest.mark.parametrize("wrong", [3, None])
def test_what_cannot_be_a_task(wrong: Any) -> None:
    async def stream() -> Any:
        yield 1

    with pytest.raises(ConfigurationError, match="generator"):
        app().task(stream)
    with pytest.raises(ConfigurationError, match="is a task already"):
        app().task(app().task(test_names))
    with pytest.raises((ConfigurationError, TypeError)):
        app().task(wrong)(wrong)


def test_schedules() -> None:
    shop = app(tz="Europe/Berlin")

    @shop.every("90s", queue="q")
    @shop.cron("0 3 * * *", catch_up="all")
    @shop.cron("0 4 * * *", tz="UTC", name="four", kwargs={"x": 1})
    @shop.task(name="t")
    async def task(x: int = 0) -> None: ...

    @shop.cron(crontab(hour=5))
    def plain() -> None: ...

    assert shop.timetable["four"].schedule == Cron("0 4 * * *", "UTC")
    assert shop.timetable["t"] == Scheduled("t", "t", Cron("0 3 * * *", "Europe/Berlin"), catch_up="all")
    assert shop.timetable["t every 1m30s"].options.queue == "q"
    assert shop.timetable["four"].signature().kwargs == {"x": 1}
    assert shop.timetable[plain.name].schedule == crontab(hour=5, tz="Europe/Berlin")
    assert plain() is None
    with pytest.raises(ConfigurationError, match="catch_up='maybe'"):
        shop.every(1, catch_up="maybe")  # type: ignore[arg-type]


def test_a_schedule_that_does_not_fit_its_task_is_refused() -> None:
    async def needs(x: int) -> None: ...

    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        app().every("1m")(needs)


def test_celerys_timetable() -> None:
    beat = {
        "report": {
            "task": "shop.report",
            "schedule": crontab(hour=3, minute=0),
            "args": (7,),
            "options": {"queue": "q"},
        },
        "ping": {"task": "shop.ping", "schedule": 30.0, "kwargs": {"x": 1}},
    }
    shop = app(beat_schedule=beat, tz="Europe/Berlin")
    assert (shop.timetable["report"].args, shop.timetable["report"].options.queue) == ((7,), "q")
    assert shop.timetable["report"].schedule == crontab(hour=3, minute=0, tz="Europe/Berlin")
    assert shop.timetable["ping"].schedule == Every(30)
    with pytest.raises(ConfigurationError, match=r"beat_schedule\['x'\].*Did you mean schedule"):
        app(beat_schedule={"x": {"task": "t", "shedule": 1}})
    with pytest.raises(ConfigurationError, match="needs a task and a schedule"):
        app(beat_schedule={"x": {"task": "t"}})


def test_routes() -> None:
    table = RouteTable(
        {"images.*": "images", "images.icon": {"queue": "fast", "priority": 7}, "*.low": {"priority": 0}}
    )
    assert table("images.icon") == ("fast", 7)
    assert table("images.resize") == ("images", None)
    assert table("images.low") == ("images", None)
    assert table("other.low") == ("default", 0)
    assert table("other") == ("default", None)
    assert table.queues == ["images", "fast", "default"]
    asked = RouteTable(lambda task: {"queue": "q"} if task == "a" else None)
    assert [asked("a"), asked("b")] == [("q", None), ("default", None)]
    with pytest.raises(ConfigurationError, match="colour is not known"):
        RouteTable({"a": {"colour": "red"}})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(ConfigurationError, match=r"routes\['a'\]"):
        RouteTable({"a": "two words"})


def test_the_call_wins_over_the_task_and_the_task_over_the_routes() -> None:
    shop = app(routes={"t*": {"queue": "routed", "priority": 4}})

    @shop.task(name="t1")
    async def one() -> None: ...

    @shop.task(name="t2", queue="own", priority=2)
    async def two() -> None: ...

    def place(signature: Any) -> tuple[str, int]:
        queue, job = shop.build(signature)
        return queue, job.priority

    @shop.task(name="t3", priority=0)
    async def three() -> None: ...

    assert place(one.s()) == ("routed", 4)
    assert place(three.s()) == ("routed", 0)
    assert place(two.s()) == ("own", 2)
    assert place(two.s().using(queue="call", priority=0)) == ("call", 0)
    assert place(one.using(priority=9).s()) == ("routed", 9)
    assert {"routed", "own"} <= set(shop.queues)


def test_signatures_are_values() -> None:
    shop = app()

    @shop.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    assert add.s(1).clone(2, y=3) == add.s(2, 1, y=3)
    assert add.s(1).using(queue="q") != add.s(1)
    assert add.using(queue="q").s(1) == add.s(1).using(queue="q")
    assert repr(add.s(1, y=2)) == "add(1, y=2)"
    with pytest.raises(TypeError, match="immutable"):
        add.si(1).clone(2)


def test_hooks_of_a_task_hear_of_that_task_only() -> None:
    shop, heard = app(), []

    @shop.task(name="a", on_success=lambda event: heard.append(event.job_id))
    async def a() -> None: ...

    assert shop.events.wants("job.succeeded")
    assert not shop.events.wants("job.failed")
    shop.events.emit(Event(name="job.succeeded", task="a", job_id="1"))
    shop.events.emit(Event(name="job.succeeded", task="b", job_id="2"))
    assert heard == ["1"]


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Did you mean job\.failed"):
        app().on("job.faild")(print)
