"""How one server is connected to: the only place that knows the connection options of redis-py."""

from __future__ import annotations

import socket
from typing import Any, Final

from redis import ConnectionPool, Redis
from redis import connection as blocking
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import connection as streams
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.retry import Retry

from streamq.broker.address import Address
from streamq.broker.line import CONNECT_TIMEOUT

ANSWER_TIMEOUT: Final = 5.0  # seconds, for the clients that have no timeout of their own
HEALTH_CHECK: Final = 10  # seconds of silence after which a subscription pings the server

Options = dict[str, Any]  # keyword arguments of redis-py's connections, which are not typed
# With an unacknowledged write TCP goes on trying for 15 minutes, and keepalive does not help.
_KEEPALIVE = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPALIVE": 30,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 20_000,
}


class _Secured(streams.SSLConnection):
    """Closed at once: redis-py leaves it to the loop to wait for the server's farewell, and the loop may end before."""

    async def disconnect(self, nowait: bool = False, *why: Any, **more: Any) -> None:
        writer = self._writer
        await super().disconnect(True, *why, **more)
        if writer is not None:
            writer.transport.abort()


_ASYNC_WIRES = {
    "redis": streams.Connection,
    "rediss": _Secured,
    "unix": streams.UnixDomainSocketConnection,
}
_SYNC_WIRES: dict[str, Any] = {  # the pool is declared to take TCP connections only
    "redis": blocking.Connection,
    "rediss": blocking.SSLConnection,
    "unix": blocking.UnixDomainSocketConnection,
}


def wire(target: Address) -> streams.AbstractConnection:
    """A connection that is not made yet."""
    options = _options(target, retry=AsyncRetry(NoBackoff(), 0), socket_timeout=None)
    made: streams.AbstractConnection = _ASYNC_WIRES[target.scheme](**options)
    return made


def blocking_client(target: Address, timeout: float = ANSWER_TIMEOUT) -> Redis:
    """A client for one thread: raw replies, `timeout` seconds to connect and for a command, nothing sent twice."""
    waits = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    options = _options(target, retry=Retry(NoBackoff(), 0), **waits)
    client = Redis.from_pool(ConnectionPool(connection_class=_SYNC_WIRES[target.scheme], **options))
    client.response_callbacks.clear()
    return client


def subscription(target: Address) -> PubSub:
    """Subscriptions on a connection of their own, with undecoded messages."""
    options = _options(
        target,
        retry=AsyncRetry(NoBackoff(), 0),
        socket_timeout=ANSWER_TIMEOUT,  # for the handshake; reads of messages are exempt
        health_check_interval=HEALTH_CHECK,
    )
    return PubSub(AsyncConnectionPool(connection_class=_ASYNC_WIRES[target.scheme], max_connections=1, **options))


def _options(target: Address, **more: Any) -> Options:
    # RESP2: replies of one shape on every server, no push messages, no maintenance handshake.
    options: Options = {
        "db": target.db,
        "username": target.username,
        "password": target.password,
        "protocol": 2,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "driver_info": DriverInfo(name="streamq", lib_version=None),
        **more,
    }
    if target.scheme == "unix":
        return options | {"path": target.path}
    known = {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}
    options |= {
        "host": target.host,
        "port": target.port,
        "socket_keepalive": True,
        "socket_keepalive_options": known,
    }
    return options | tls_options(target)


def tls_options(target: Address) -> Options:
    """What verifies the server, and says who we are; nothing without TLS."""
    if not target.tls:
        return {}
    return {
        "ssl_cert_reqs": "required" if target.verify else "none",
        "ssl_check_hostname": target.verify,
        "ssl_ca_certs": target.ca_certs,
        "ssl_certfile": target.certfile,
        "ssl_keyfile": target.keyfile,
    }
