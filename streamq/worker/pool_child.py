"""The other end of `streamq.worker.pool`: a process that runs one call after the other.

Frames are a length and msgpack, on a socket of their own: what a task prints goes where the worker's prints go.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any, BinaryIO, Final, Literal, NoReturn

import msgspec
from msgspec import Raw

from streamq.broker.wire import encode_value
from streamq.client.context import current_job_id
from streamq.client.signature import Parameters
from streamq.client.task import Task
from streamq.core.limits import check_payload
from streamq.core.outcome import NIL
from streamq.errors import ConfigurationError, InvalidResult, SoftTimeLimitExceeded
from streamq.worker import log
from streamq.worker.remote import Raised, taken_down

LENGTH: Final = struct.Struct(">Q")
_PR_SET_PDEATHSIG: Final = 1


class Hello(msgspec.Struct, array_like=True):
    """The first frame: which module is wanted first, and how the worker logs, if it is streamq that set that up."""

    module: str
    log_level: str = ""
    log_format: Literal["text", "json"] = "text"


class Order(msgspec.Struct, array_like=True):
    """One call. `soft` is its soft time limit in seconds, 0: none."""

    module: str
    qualname: str
    task: str
    args: Raw
    kwargs: Raw
    codec: str
    job_id: str
    soft: float
    max_payload: int


class Reply(msgspec.Struct, array_like=True):
    """What came of it."""

    result: Raw = NIL
    raised: Raised | None = None


def main() -> None:
    """`python -c "... main()" SOCKET PARENT`: serve until the worker closes the socket, or is gone."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    _child.inside = True
    # The worker decides when: Ctrl-C and `systemctl stop` reach its children too. A handler, for what is ignored
    # would be ignored by the programs too that a task starts.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _not_now)
    os.set_inheritable(descriptor, False)
    os.register_at_fork(after_in_child=partial(os.close, descriptor))  # the worker must see the end of this process
    with socket.socket(fileno=descriptor) as link, link.makefile("rwb") as stream:
        serve(stream)  # type: ignore[arg-type]


class _Child:
    inside = False


_child: Final = _Child()


def inside() -> bool:
    """Whether this process is a child of a pool."""
    return _child.inside


def serve(stream: BinaryIO) -> None:
    """Answer frames until there are no more."""
    hello = msgspec.msgpack.decode(_read(stream), type=Hello)
    if hello.log_level:
        log.configure(hello.log_level, hello.log_format)
    with contextlib.suppress(BaseException):  # the call that needs the module raises it again
        importlib.import_module(hello.module)
    orders = msgspec.msgpack.Decoder(Order)
    frame = b""
    _write(stream, frame)
    while frame := _read(stream):
        reply = perform(orders.decode(frame))
        for output in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # closed by the task, or nobody reads it
                output.flush()
        _write(stream, msgspec.msgpack.encode(reply))


def perform(order: Order) -> Reply:
    """Run one call."""
    current_job_id.set(order.job_id)
    try:
        fn, parameters = find(order.module, order.qualname, order.task)
        args, kwargs = parameters.decode(order.args, order.kwargs, order.codec)
        return Reply(_encoded(within(order.soft, partial(fn, *args, **kwargs)), order))
    except BaseException as error:  # noqa: BLE001 - SystemExit in a task is that task's failure
        return Reply(raised=taken_down(error))


@cache
def find(module: str, qualname: str, task: str) -> tuple[Callable[..., object], Parameters]:
    """The function and its parameters: of the task that has its name, or of itself."""
    found: Any = importlib.import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    if isinstance(found, Task):
        return found.fn, found.signature
    if not callable(found):
        raise ConfigurationError(
            f"{task}: a child process finds no function {qualname!r} in the module {module!r}: a task with "
            'executor="process" must stand there under its own name.'
        )
    return found, Parameters(task, found)


def within(soft: float, call: Callable[[], object]) -> object:
    """Call it; after `soft` seconds `SoftTimeLimitExceeded` is raised wherever it is."""
    if not soft:
        return call()
    running = True

    def ring(*_: object) -> None:
        if running:
            raise SoftTimeLimitExceeded(f"the soft time limit of {soft:g} s was reached")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, soft)
    try:
        return call()
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)


def _encoded(result: object, order: Order) -> Raw:
    if result is None:
        return NIL
    try:
        encoded = encode_value(result)
    except Exception as error:  # noqa: BLE001 - encoding calls what a user wrote
        raise InvalidResult(f"the return value of {order.task!r}: {error}") from None
    check_payload(len(encoded), order.max_payload, f"the return value of {order.task!r}")
    return encoded


def _read(stream: BinaryIO) -> bytes:
    """The next frame; none when the worker has closed the socket."""
    head = stream.read(LENGTH.size)
    return stream.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""


def _write(stream: BinaryIO, frame: bytes) -> None:
    stream.write(LENGTH.pack(len(frame)))
    stream.write(frame)
    stream.flush()


def _not_now(*_: object) -> None:
    """A signal that is the worker's business."""


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), name="streamq-orphan", daemon=True).start()
    if os.getppid() != parent:  # it died before that
        os._exit(1)


def _watch(parent: int) -> NoReturn:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
