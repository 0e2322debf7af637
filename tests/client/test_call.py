"""Options of a call and of an application, and the job that a call becomes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamq import ConfigurationError, InvalidArguments, PayloadTooLarge, Signature
from streamq.broker import wire
from streamq.client.call import NO_CALL_OPTIONS, Call, CallOptions, build_job, call_options
from streamq.client.settings import app_options, task_options
from streamq.client.signature import Parameters
from streamq.core.options import AppOptions, TaskOptions
from streamq.core.retry import FOREVER

NOW = 1_750_000_000_000
ETA = datetime(2025, 7, 1, tzinfo=UTC)


def add(x: int, y: int) -> int:
    return x + y


def built(task: TaskOptions | None = None, app: AppOptions | None = None, **options: Any) -> Any:
    call = Call("add", (1, 2), {}, call_options(NO_CALL_OPTIONS, options) if options else NO_CALL_OPTIONS)
    return build_job(call, task or TaskOptions(), Parameters("add", add), app or AppOptions(), "default", 3, NOW)


def said(job: Any) -> Any:
    return wire.decode_options(wire.decode_job(job.body, 1_000_000).options)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"queue": "q"}, {"queue": "q"}),
        ({"priority": 9}, {"priority": 9}),
        ({"countdown": "10m"}, {"countdown": 600_000}),
        ({"eta": ETA}, {"eta": 1_751_328_000_000}),
        ({"expires": timedelta(seconds=5)}, {"expires": 5_000}),
        ({"expires": ETA}, {"expires": ETA}),
        ({"task_id": "mine"}, {"job_id": "mine"}),
        ({"result_expires": 60}, {"result_ttl": 60_000}),
        ({"result_ttl": 0}, {"result_ttl": 0}),
        ({"max_retries": None}, {"max_retries": FOREVER}),
        ({"time_limit": 1.5, "soft_time_limit": "1s"}, {"time_limit": 1500, "soft_time_limit": 1000}),
        ({"durability": "replicas:2"}, {"durability": "replicas:2"}),
        ({"queue": None, "eta": None}, {}),
    ],
)
def test_options_are_read(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert call_options(NO_CALL_OPTIONS, given) == CallOptions(**expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quueue": "q"}, "quueue is not a known call option. Did you mean queue"),
        ({"queue": "a b"}, "cannot name a queue"),
        ({"queue": "a}b"}, "cannot name a queue"),
        ({"queue": ""}, "queue=''"),
        ({"priority": 10}, "0 to 9"),
        ({"priority": True}, "0 to 9"),
        ({"countdown": -1}, "countdown=-1 is negative"),
        ({"countdown": 1, "eta": ETA}, "countdown and eta"),
        ({"job_id": "a", "task_id": "b"}, "job_id and task_id are the same option"),
        ({"on_failed": "maybe"}, "on_failed='maybe'"),
        ({"headers": {"a": 1}}, "dict of str to str"),
        ({"durability": "replicas:0"}, "durability='replicas:0'"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"ignore_result": 1}, "neither True nor False"),
        ({"time_limit": 0}, "no time at all"),
        ({"serializer": "pickle"}, "msgpack, json"),
    ],
)
def test_bad_options_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        call_options(NO_CALL_OPTIONS, given)


def test_a_bad_job_id_is_a_bad_argument() -> None:
    with pytest.raises(InvalidArguments, match="job_id"):
        call_options(NO_CALL_OPTIONS, {"job_id": "two words"})


def test_later_options_replace_earlier_ones() -> None:
    first = call_options(NO_CALL_OPTIONS, {"countdown": 5, "queue": "a"})
    second = call_options(first, {"eta": ETA})
    assert (second.queue, second.countdown, second.eta) == ("a", 0, 1_751_328_000_000)
    assert call_options(second, {"countdown": 1}).eta == 0


def test_a_plain_call_carries_no_options() -> None:
    job = built()
    body = wire.decode_job(job.body, 1_000_000)
    assert (bytes(body.options), body.task, body.enqueued_at) == (b"\x80", "add", NOW)
    assert (wire.decode_value(body.args), wire.decode_value(body.kwargs)) == ([1, 2], {})
    assert (job.priority, job.due, job.delay, job.own_id, job.key) == (3, 0, 0, False, "")
    assert job.job_id != built().job_id


def test_a_countdown_counts_by_the_servers_clock() -> None:
    job = built(countdown=2)
    assert (job.due, job.delay, said(job).eta) == (0, 2000, NOW + 2000)
    later = built(eta=ETA)
    assert (later.due, later.delay, said(later).eta) == (1_751_328_000_000, 0, 1_751_328_000_000)


def test_expiry_is_a_date_by_the_servers_clock() -> None:
    assert said(built(expires="1m")).expires == NOW + 60_000
    assert said(built(expires=ETA)).expires == 1_751_328_000_000
    assert said(built(TaskOptions(expires=5.0))).expires == NOW + 5_000
    assert said(built(TaskOptions(expires=5.0), expires=1)).expires == NOW + 1_000


def test_the_idempotency_key_belongs_to_the_task_and_its_arguments() -> None:
    one, same = built(idempotency_key="k"), built(idempotency_key="k", queue="other")
    assert (one.key, one.fingerprint) == (same.key, same.fingerprint)
    assert one.job_id != same.job_id
    assert said(one).key == "k"
    assert built(idempotency_key="k", on_failed="retry").retry_failed
    other = Call("add", (1, 3), {}, call_options(NO_CALL_OPTIONS, {"idempotency_key": "k"}))
    job = build_job(other, TaskOptions(), Parameters("add", add), AppOptions(), "default", 0, NOW)
    assert (job.key == one.key, job.fingerprint == one.fingerprint) == (True, False)


def test_headers_of_task_and_call_are_one() -> None:
    task = TaskOptions(headers={"a": "task", "b": "task"})
    assert said(built(task, headers={"b": "call"})).headers == {"a": "task", "b": "call"}


def test_the_applications_serializer_is_told_to_the_worker() -> None:
    job = built(app=AppOptions(serializer="json"))
    body = wire.decode_job(job.body, 1_000_000)
    assert said(job).codec == "json"
    assert Parameters("add", add).decode(body.args, body.kwargs, "json") == ([1, 2], {})


def test_a_payload_over_the_limit_is_refused() -> None:
    with pytest.raises(PayloadTooLarge, match="the arguments of add"):
        built(app=AppOptions(max_payload=10))


def test_application_settings_and_their_variables() -> None:
    environ = {"STREAMQ_LEASE": "5s", "STREAMQ_MAX_PAYLOAD": "2048", "STREAMQ_IGNORE_RESULT": "true", "STREAMQ_TZ": ""}
    options = app_options({"namespace": None, "lease": 2, "accept": ["json", "msgpack"]}, environ)
    assert (options.lease, options.max_payload, options.ignore_result) == (2.0, 2048, True)
    assert (options.namespace, options.tz, options.accept) == ("streamq", "UTC", ("json", "msgpack"))
    assert app_options({"result_ttl": "1h"}, {}).result_ttl == 3_600_000


@pytest.mark.parametrize(
    ("given", "environ", "message"),
    [
        ({}, {"STREAMQ_LEASE": "soon"}, "STREAMQ_LEASE='soon' is not a duration"),
        ({}, {"STREAMQ_MAX_CRASHES": "0"}, "STREAMQ_MAX_CRASHES='0'"),
        ({}, {"STREAMQ_MAX_CRASHES": "²"}, "whole number of 1 or more"),
        ({}, {"STREAMQ_IGNORE_RESULT": "perhaps"}, "STREAMQ_IGNORE_RESULT='perhaps'"),
        ({}, {"STREAMQ_TZ": "Mars/Olympus"}, "STREAMQ_TZ='Mars/Olympus' is not a known time zone"),
        ({"leese": 3}, {}, "leese is not a known setting of StreamQ. Did you mean lease"),
        ({"lease": 0}, {}, "lease=0"),
        ({"serializer": "json", "accept": ["msgpack"]}, {}, "would refuse"),
        ({"namespace": "a{b"}, {}, "namespace='a{b'"),
    ],
)
def test_bad_settings_name_their_source(given: dict[str, Any], environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        app_options(given, environ)


def test_task_options() -> None:
    options = task_options({"time_limit": "1m", "result_expires": 5, "max_retries": None, "expires": "2s"})
    assert (options.time_limit, options.result_ttl, options.expires) == (60.0, 5000, 2.0)
    assert options.retry.max_retries == FOREVER
    with pytest.raises(ConfigurationError, match="Did you mean max_retries"):
        task_options({"max_retrys": 3})
    with pytest.raises(ConfigurationError, match="never see it"):
        task_options({"time_limit": 1, "soft_time_limit": 1})
    with pytest.raises(ConfigurationError, match="never see it"):
        call_options(NO_CALL_OPTIONS, {"time_limit": 1, "soft_time_limit": "5s"})
    with pytest.raises(ConfigurationError, match="never see it"):
        app_options({"time_limit": 1, "soft_time_limit": 1}, {})
    with pytest.raises(ConfigurationError, match="on_error=3"):
        task_options({"on_error": 3})


async def test_a_signature_of_no_application_says_so() -> None:
    lonely = Signature[None]("shop.send", (1,), {})
    with pytest.raises(ConfigurationError, match="belongs to no application"):
        await lonely.enqueue()
    with pytest.raises(ConfigurationError, match="belongs to no application"):
        lonely.enqueue_sync()
