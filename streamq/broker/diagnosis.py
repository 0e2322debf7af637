"""What a failure of the connection means: whether to try again, what to tell a human."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final, NamedTuple

from redis import exceptions as refused

from streamq.broker.address import EXAMPLES, Address

TRANSIENT: tuple[type[BaseException], ...] = (
    refused.ConnectionError,  # BusyLoadingError is one
    refused.TimeoutError,
    refused.ReadOnlyError,
    refused.MasterDownError,
    refused.TryAgainError,
    refused.ClusterDownError,
    refused.AskError,  # MovedError is one: where keys are was learned from it
    OSError,  # TimeoutError of asyncio is one
)
_NO_WRITES: Final = ("NOREPLICAS", "MISCONF")
_TRANSIENT_CODES = {"LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN", "CLUSTERDOWN", "UNBLOCKED", "BUSY", *_NO_WRITES}
_PERMANENT = (refused.AuthenticationError, refused.AuthorizationError)


class NobodyAnswers(refused.ConnectionError):
    """Of those who know where the servers are: the Sentinels, or some servers of a cluster."""


class Unwatched(refused.ConnectionError):
    """The Sentinels answer, and know no master of this name."""


class SentinelsRefuse(refused.AuthenticationError):
    """Not the servers, which have passwords of their own."""


def is_transient(exc: BaseException) -> bool:
    """Whether the same command may succeed a little later. A wrong password or certificate will not."""
    if _denied(exc) or _certificate(exc):
        return False
    if isinstance(exc, refused.ResponseError) and str(exc).split(" ", 1)[0] in _TRANSIENT_CODES:
        return True
    return isinstance(exc, TRANSIENT)


def is_full(exc: BaseException) -> bool:
    """Whether the server refused because its memory is full: nothing was written, workers will make room."""
    return isinstance(exc, refused.ResponseError) and (
        isinstance(exc, refused.OutOfMemoryError) or "OOM" in str(exc)[:60]
    )


def is_foreign(exc: BaseException) -> bool:
    """Whether somebody put a key of another type in the place of one of ours: it stays so until it is deleted."""
    return isinstance(exc, refused.ResponseError) and str(exc).startswith("WRONGTYPE")


def _certificate(exc: BaseException) -> bool:
    return _comes_from(exc, ssl.SSLCertVerificationError)


def _denied(exc: BaseException) -> bool:
    return _comes_from(exc, *_PERMANENT)


def _comes_from(exc: BaseException, *kinds: type[BaseException]) -> bool:
    # On a Unix socket redis-py raises a ConnectionError from the AuthenticationError.
    return any(isinstance(cause, kinds) for cause in (exc, exc.__cause__, exc.__context__))


def describe(exc: BaseException, address: Address | str) -> str:
    """One line for a human: what happened, where, the likely cause, what to do.

    >>> describe(ConnectionRefusedError(), "redis://:secret@localhost")
    'cannot reach redis://:***@localhost: the connection was refused. Is Redis running there? ...'
    """
    address = Address.parse(address) if isinstance(address, str) else address
    found = diagnose(exc, address)
    return f"cannot {found.verb} {address}: {found.happened}. {found.hint} [{_said(exc, address)}]"


def _said(exc: BaseException, address: Address) -> str:
    text = " ".join(str(exc).split()) or type(exc).__name__
    for secret in filter(None, (address.password, address.sentinel_password)):
        text = text.replace(secret, "***")
    return text


class Diagnosis(NamedTuple):
    """What a failure most likely is: `cannot <verb> <address>: <happened>. <hint>`, and what to type."""

    verb: str
    happened: str
    hint: str
    fix: str


# Inside a script Valkey says the one, Redis 7.0 the other, and neither with NOPERM.
_FORBIDDEN: Final = ("has no permissions", "can't run this command")
_START: Final = "redis-server    starts one; streamq demo runs without a server of your own"
_ONE: Final = "redis://user:password@host:6379/0"  # shown as it is written for several, where there are several
_TLS: Final = "rediss://host:6379/0"
_UNSEEN: Final = "which no process list shows"
_LOGIN: Final = Diagnosis(
    "log in to",
    "user name or password is missing or wrong",
    "Give them as scheme://user:password@host",
    f"export STREAMQ_URL={_ONE}    {_UNSEEN}",
)
_SLOW_START: Final = "redis-cli PING    from this machine, to see whether it answers at all"


def diagnose(exc: BaseException, address: Address) -> Diagnosis:
    """The first row that fits."""
    text = _said(exc, address).lower()
    for fits, diagnosis in _TABLE:
        if fits(exc, text, address):
            if address.hosts:
                fix = diagnosis.fix.replace(_ONE, EXAMPLES[address.scheme]).replace(_TLS, EXAMPLES[address.scheme])
                return diagnosis._replace(fix=fix)
            return diagnosis
    return Diagnosis("use", "the server refused", "It may be no Redis, or forbid the command", _SLOW_START)


_AS_SAID: Final = "and do they speak TLS if the URL says rediss, and only then"
_SENTINELS: Final = Diagnosis(
    "find the master of",
    "no Sentinel answered",
    f"Do they run there, is it their port (26379) and not the master's, {_AS_SAID}?",
    "redis-cli -h HOST -p 26379 PING",
)
_UNWATCHED: Final = Diagnosis(
    "find the master of",
    "the Sentinels know no master of this name",
    "Is the name after the hosts that of sentinel.conf (sentinel monitor NAME ...)?",
    "redis-cli -h HOST -p 26379 SENTINEL MASTERS    names them",
)
_SENTINELS_LOGIN: Final = Diagnosis(
    "log in to the Sentinels of",
    "their user name or password is missing or wrong",
    "They have their own, apart from those of the servers: ?sentinel_username=...&sentinel_password=...",
    f"export STREAMQ_URL='{_ONE}?sentinel_password=...'    {_UNSEEN}",
)
_CHECK: Final = "redis-cli --cluster check HOST:6379    and what it finds: redis-cli --cluster fix HOST:6379"
_ROLE: Final = "redis-cli INFO replication"
_Fits = Callable[[BaseException, str, Address], bool]
_TABLE: Final[tuple[tuple[_Fits, Diagnosis], ...]] = (
    (lambda exc, _, __: isinstance(exc, SentinelsRefuse), _SENTINELS_LOGIN),
    (lambda exc, _, __: isinstance(exc, Unwatched), _UNWATCHED),
    (
        lambda exc, _, __: isinstance(exc, refused.MovedError),
        Diagnosis("use", "its keys are on another server now", "A slot has moved: it is found by itself", _CHECK),
    ),
    (
        lambda exc, _, __: isinstance(exc, refused.AskError | refused.TryAgainError),
        Diagnosis(
            "use",
            "a slot of the cluster is being moved",
            "It goes on when all keys have arrived. A move that was broken off has to be mended",
            _CHECK,
        ),
    ),
    (
        lambda exc, _, __: isinstance(exc, refused.ClusterDownError),
        Diagnosis(
            "use", "the cluster is down", "A master failed and no replica took over, or slots have no server", _CHECK
        ),
    ),
    (
        lambda exc, _, __: isinstance(exc, refused.ReadOnlyError | refused.MasterDownError),
        Diagnosis(
            "write to",
            "it is a replica",
            "Name the master, or the Sentinels that know who it is. A failover takes a few seconds",
            f"{_ROLE}    names the master",
        ),
    ),
    (
        lambda _, text, __: text.startswith("noreplicas"),
        Diagnosis(
            "write to",
            "too few replicas follow it, and so it takes no writes",
            "Are its replicas up? min-replicas-to-write is how many it wants",
            f"{_ROLE}    shows them",
        ),
    ),
    (
        lambda _, text, __: text.startswith("misconf"),
        Diagnosis(
            "write to",
            "it cannot save to its disk, and so it takes no writes",
            "Is the disk full, or its folder gone?",
            "redis-cli CONFIG GET dir    and df -h of it",
        ),
    ),
    (
        lambda _, text, __: text.startswith("late "),
        Diagnosis(
            "tell from",
            "more than a thousand requests were sent while this one waited",
            "Whether it was carried out is not known: look for the job, or enqueue again with the same job_id",
            "streamq jobs show ID",
        ),
    ),
    (
        lambda exc, text, _: is_foreign(exc),
        Diagnosis(
            "use",
            "a key of another type is in the place of one of a queue's",
            "Somebody else writes keys that begin with sq:. Nothing of this queue goes on until it is deleted",
            "redis-cli --scan --pattern 'sq:*' | xargs -n1 redis-cli TYPE",
        ),
    ),
    (lambda exc, text, _: _denied(exc) or "noauth" in text, _LOGIN),
    (
        lambda exc, text, _: isinstance(exc, refused.NoPermissionError) or any(each in text for each in _FORBIDDEN),
        Diagnosis(
            "use", "the user lacks a permission", "Check the user's ACL (ACL GETUSER)", "redis-cli ACL GETUSER NAME"
        ),
    ),
    (
        lambda exc, text, _: _certificate(exc) or "certificate verify failed" in text,
        Diagnosis(
            "trust",
            "its TLS certificate does not verify",
            "Add ?ssl_ca_certs=FILE or correct the host name",
            f"--url '{_TLS}?ssl_ca_certs=/etc/ssl/my-ca.pem'",
        ),
    ),
    (
        lambda exc, text, at: isinstance(exc, ssl.SSLError) or "ssl" in text or (at.tls and "closed" in text),
        Diagnosis(
            "reach",
            "the TLS handshake failed",
            "Does the server speak TLS on this port? If not, write redis://",
            "--url redis://host:6379/0    without the second s",
        ),
    ),
    (
        lambda _, text, __: "name or service" in text or "nodename" in text or "resolution" in text,
        Diagnosis("find", "the host name does not resolve", "Is it spelt right?", "--url    with the right host"),
    ),
    (lambda exc, _, at: isinstance(exc, NobodyAnswers) and at.scheme.endswith("+sentinel"), _SENTINELS),
    (
        lambda exc, _, __: isinstance(exc, NobodyAnswers),
        Diagnosis(
            "reach",
            "no server of the cluster answered",
            f"Do they run there, {_AS_SAID}? One that answers is enough, for it knows the others",
            "redis-cli -h HOST -p PORT CLUSTER NODES",
        ),
    ),
    (
        lambda exc, text, _: isinstance(exc, ConnectionRefusedError) or "refused" in text or "error 111" in text,
        Diagnosis(
            "reach",
            "the connection was refused",
            "Is Redis running there? Start it (redis-server), or use embedded://",
            _START,
        ),
    ),
    (
        lambda exc, text, _: isinstance(exc, FileNotFoundError) or "no such file" in text,
        Diagnosis("reach", "there is no such socket", "Is Redis running, and is unixsocket set to this path?", _START),
    ),
    (
        lambda exc, text, _: isinstance(exc, PermissionError) or "permission denied" in text,
        Diagnosis(
            "reach",
            "no permission",
            "Check the owner and mode of the socket (unixsocketperm)",
            "ls -l    of the socket",
        ),
    ),
    (
        lambda exc, text, at: at.tls and (isinstance(exc, refused.TimeoutError | TimeoutError) or "timeout" in text),
        Diagnosis(
            "reach",
            "it did not answer in time",
            "Does it speak TLS on this port? Is it stopped or overloaded, or a firewall in between?",
            _SLOW_START,
        ),
    ),
    (
        lambda exc, text, _: isinstance(exc, refused.TimeoutError | TimeoutError) or "timeout" in text,
        Diagnosis(
            "reach", "it did not answer in time", "Is it stopped or overloaded, or a firewall in between?", _SLOW_START
        ),
    ),
    (
        lambda exc, _, __: isinstance(exc, refused.BusyLoadingError),
        Diagnosis("use", "it is still loading its data", "Try again in a moment", "the same again, in a moment"),
    ),
    (
        lambda _, text, __: "max number of clients" in text,
        Diagnosis(
            "use",
            "it has no free connection left",
            "Raise maxclients or run fewer processes",
            "redis-cli CONFIG SET maxclients 20000",
        ),
    ),
    (
        lambda exc, _, __: isinstance(exc, refused.ConnectionError | OSError),
        Diagnosis(
            "reach",
            "the connection broke",
            "Is Redis running there? It may have been restarted; does it speak TLS?",
            _SLOW_START,
        ),
    ),
)
