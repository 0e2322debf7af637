"""`Secret[...]`: a plain type for the task, and shown by nothing."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from typing import Any, Optional

import msgspec
import pydantic
import pytest

from streamq import InvalidArguments, JobFailed, Secret, StreamQ
from streamq.client.info import arguments
from streamq.client.secret import hides
from streamq.client.signature import Parameters
from tests.conftest import MakeApp
from tests.worker.waits import until

HUNTER = "hunter" + "2"


@dataclass
class Login:
    user: str
    password: Secret[str]


class Inner(msgspec.Struct):
    key: Secret[bytes]


class Model(pydantic.BaseModel):
    number: int
    inner: Secret[str] = ""


@dataclass
class Tree:
    left: Tree | None
    value: int


HIDING: list[Any] = [
    Secret[str], Secret[dict[str, int]], Secret[str] | None, Optional[Secret[int]], list[Secret[str]], Login,  # noqa: UP045
    dict[str, Login], Inner, Model, "Secret[str]", "streamq.Secret[Missing]", "list[Secret[str]]",
]  # fmt: skip


@pytest.mark.parametrize("annotation", HIDING, ids=str)
def test_it_is_found_wherever_it_stands(annotation: Any) -> None:
    assert hides(annotation)


@pytest.mark.parametrize("annotation", [str, list[str], "str", "SecretKey", Tree, Any, None, int | None], ids=str)
def test_nothing_else_is_hidden(annotation: Any) -> None:
    assert not hides(annotation)


def test_only_what_is_secret_is_hidden() -> None:
    def send(to: str, token: Secret[str], *rest: Secret[int], subject: str = "", **more: Secret[str]) -> None: ...

    shown = Parameters("send", send).shown
    assert shown(["a", "x", 1, 2], {"subject": "s", "other": "y"}) == (
        ["a", "***", "***", "***"], {"subject": "s", "other": "***"},
    )  # fmt: skip
    assert shown(["a"], {"token": "x"}) == (["a"], {"token": "***"})


def test_messages_do_not_tell() -> None:
    def send(token: Secret[str], number: Secret[Model]) -> None: ...

    parameters = Parameters("send", send)
    for call in (
        lambda: parameters.check([HUNTER], {}),
        lambda: parameters.check([HUNTER, HUNTER, HUNTER], {}),
        lambda: parameters.encode([Shown(), 1], {}, "msgpack"),
        lambda: parameters.encode([], {"token": Shown()}, "json"),
        lambda: parameters.decode(*parameters.encode(["x", {"number": HUNTER}], {}, "msgpack"), "msgpack"),
        lambda: parameters.decode(*parameters.encode([5, {"number": 1}], {}, "json"), "json"),
        lambda: parameters.decode(*parameters.encode(["x"], {"number": {"number": HUNTER}}, "msgpack"), "msgpack"),
    ):
        with pytest.raises(InvalidArguments) as caught:
            call()
        assert HUNTER not in "".join(traceback.format_exception(caught.value))


class Shown:
    def __repr__(self) -> str:
        return HUNTER


async def test_on_its_way(app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    here = app(lease="1s")
    seen: list[object] = []

    @here.task(log_args=True, name="login")
    async def login(user: str, token: Secret[str], login: Login | None = None) -> int:
        seen.extend((user, token, login))
        return len(token)

    @here.task(log_args=True, name="picky")
    async def picky(number: Secret[int]) -> None: ...

    call = login.s("ann", "hunter2", login=Login("ann", "hunter2"))
    assert repr(call) == "login('ann', '***', login='***')"
    assert repr(call.using(priority=3)) == repr(call)
    assert repr(login.s("hunter2").clone("ann")) == "login('ann', '***')"
    assert repr(login.si("ann", "hunter2")) == "login('ann', '***')"
    assert repr(login.using(priority=1).s("ann", "hunter2")) == "login('ann', '***')"
    with caplog.at_level(logging.INFO):
        async with here:
            jobs = [await call.enqueue(), await login.using(serializer="json").enqueue("bob", token="hunter2")]
            bad = await here.enqueue("picky", "hunter2")
            found = await here.broker.find("default", jobs[0].id)
            assert found.body is not None
            shown = arguments(found.body, here.options, lambda name: here.tasks[name].signature)
            assert shown == (["ann", "***"], {"login": "***"})
            async with here.worker():
                assert [await job.result(timeout=10) for job in jobs] == [7, 7]
                with pytest.raises(JobFailed) as caught:
                    await bad.result(timeout=10)
                await until(lambda: caplog.text.count("login(") == 2 and "picky(" in caplog.text)
    assert "login('ann', '***', login='***')" in caplog.text
    assert "login('bob', token='***')" in caplog.text
    assert "hunter2" not in caplog.text + str(caught.value)
    assert seen == ["ann", "hunter2", Login("ann", "hunter2"), "bob", "hunter2", None]


def test_a_router_s_task_keeps_its_secrets() -> None:
    here = StreamQ[None]()

    @here.task(name="t")
    async def t(token: Secret[str]) -> None: ...

    assert "hunter2" not in repr(here.tasks["t"].s("hunter2"))
