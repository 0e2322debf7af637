"""Where a broker is: a URL, parsed once, and never shown with its password."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, TypedDict
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from streamq.errors import ConfigurationError

Scheme = Literal[
    "redis", "rediss", "unix", "embedded", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"
]
EXAMPLES: dict[Scheme, str] = {
    "redis": "redis://user:password@localhost:6379/0",
    "rediss": "rediss://user:password@redis.example.com:6379/0",
    "unix": "unix:///run/redis/redis.sock?db=0",
    "embedded": "embedded:///var/lib/my-app",
    "redis+sentinel": "redis+sentinel://user:password@host1:26379,host2:26379,host3:26379/mymaster/0",
    "rediss+sentinel": "rediss+sentinel://user:password@host1:26379,host2:26379,host3:26379/mymaster/0",
    "redis+cluster": "redis+cluster://user:password@host1:6379,host2:6379",
    "rediss+cluster": "rediss+cluster://user:password@host1:6379,host2:6379",
}
TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "insecure"}
SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}
OPTIONS: dict[Scheme, set[str]] = {
    "redis": {"db"},
    "rediss": {"db"} | TLS_OPTIONS,
    "unix": {"db"},
    "embedded": set(),
    "redis+sentinel": {"db"} | SENTINEL_OPTIONS,
    "rediss+sentinel": {"db"} | SENTINEL_OPTIONS | TLS_OPTIONS,
    "redis+cluster": set(),
    "rediss+cluster": TLS_OPTIONS,
}
PORTS = {"redis+sentinel": 26379, "rediss+sentinel": 26379}
_SECRET = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token|auth)[^=&#]*=)[^&#]*", re.IGNORECASE)
_USERINFO = re.compile(r"^([A-Za-z0-9+.-]*://)(.*)@", re.DOTALL)


def redact(url: str) -> str:
    """The URL with its secrets replaced by `***`. Never raises, however broken the URL is.

    >>> redact("redis://user:secret@host:6379/0")
    'redis://user:***@host:6379/0'
    """
    return _USERINFO.sub(_hide_userinfo, _SECRET.sub(r"\1***", str(url)))


def _hide_userinfo(match: re.Match[str]) -> str:
    # Up to the last @, since an unquoted password may hold @, / or ?: hide too much rather than too little.
    # A name without a colon may be a password that was written in the wrong place.
    scheme, userinfo = match.groups()
    user, colon, _ = userinfo.partition(":")
    shown = user if colon and re.fullmatch(r"[\w.%+-]*", user) else ""
    return f"{scheme}{shown}{colon}***@"


@dataclass(frozen=True, repr=False)
class Address:
    """A parsed broker URL; `str()` and `repr()` are redacted.

    >>> Address.parse("redis://:secret@localhost/2")
    Address('redis://:***@localhost/2')
    """

    url: str
    scheme: Scheme
    host: str = "localhost"
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: str | None = None
    path: str = ""  # the socket of unix://, the folder of embedded:// (empty: a temporary server)
    verify: bool = True  # rediss: check the certificate and the host name
    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    hosts: tuple[tuple[str, int], ...] = ()  # whom to ask where the servers are: Sentinels, or some of a cluster
    service: str = ""  # the name of the master that the Sentinels watch
    sentinel_username: str | None = None
    sentinel_password: str | None = None

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.scheme.startswith("rediss")

    def at(self, host: str, port: int) -> Address:
        """One server that was found by way of this address: the same user, certificates and database."""
        shown = f"[{host}]" if ":" in host else host
        scheme: Scheme = "rediss" if self.tls else "redis"
        url = f"{scheme}://{shown}:{port}/{self.db}"
        return replace(self, url=url, scheme=scheme, host=host, port=port, hosts=(), service="")

    @property
    def private(self) -> bool:
        """Whether nobody but this process gets there: a temporary embedded server."""
        return self.scheme == "embedded" and not self.path

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse redis://, rediss://, unix:// and embedded:// URLs, and those of Sentinels and clusters.

        Raises `ConfigurationError`, which shows the redacted URL and an example.
        """
        if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"url={url!r} is not a text: write it as 'redis://localhost:6379/0'.")
        try:
            parts = urlsplit(url)
            scheme = _scheme(parts.scheme)
            options = _options(scheme, parts)
            match scheme:
                case "embedded":
                    return cls(url, scheme, path=_folder(parts))
                case "unix":
                    return cls._unix(url, parts, options)
                case "redis" | "rediss":
                    return cls._tcp(url, scheme, parts, options)
                case _:
                    return cls._several(url, scheme, parts, options)
        except _Unusable as problem:
            raise _refusal(url, str(problem), problem.scheme) from None
        except ValueError as problem:  # urlsplit on a broken [::1 address; its text can quote the password
            reason = "the port is no number from 0 to 65535" if "ort" in str(problem) else "it is no URL"
            raise _refusal(url, reason, "redis") from None

    @classmethod
    def _unix(cls, url: str, parts: SplitResult, options: dict[str, str]) -> Address:
        if not parts.path.strip("/"):
            raise _Unusable("it names no socket", "unix")
        if parts.hostname:
            raise _Unusable("the path of the socket must be absolute (three slashes)", "unix")
        return cls(
            url,
            "unix",
            db=_database(options.get("db", ""), "unix"),
            path=unquote(parts.path),
            **_login(parts),
        )

    @classmethod
    def _several(cls, url: str, scheme: Scheme, parts: SplitResult, options: dict[str, str]) -> Address:
        # urlsplit knows one host: the userinfo goes by the last @, which no host contains.
        hosts = tuple(_host(text, scheme) for text in parts.netloc.rpartition("@")[2].split(","))
        path = parts.path.removeprefix("/")
        service, _, db = path.partition("/") if scheme.endswith("sentinel") else ("", "", path)
        if scheme.endswith("sentinel") and not service:
            raise _Unusable("it does not name the master that the Sentinels watch", scheme)
        if scheme.endswith("cluster") and db not in ("", "0"):
            raise _Unusable("a cluster has one database, 0", scheme)
        return cls(
            url,
            scheme,
            *hosts[0],
            db=_database(options.get("db", db), scheme),
            hosts=hosts,
            service=unquote(service),
            sentinel_username=options.get("sentinel_username"),
            sentinel_password=options.get("sentinel_password"),
            **_login(parts),
            **_tls(options, scheme),
        )

    @classmethod
    def _tcp(cls, url: str, scheme: Scheme, parts: SplitResult, options: dict[str, str]) -> Address:
        if "," in parts.netloc.rpartition("@")[2]:
            raise _Unusable(f"several hosts are written {scheme}+sentinel://... or {scheme}+cluster://...", scheme)
        return cls(
            url,
            scheme,
            host=unquote(parts.hostname or "localhost"),
            port=6379 if parts.port is None else parts.port,
            db=_database(options.get("db", parts.path.strip("/")), scheme),
            **_login(parts),
            **_tls(options, scheme),
        )

    def __str__(self) -> str:
        return redact(self.url)

    def __repr__(self) -> str:
        return f"Address({redact(self.url)!r})"


class _Unusable(Exception):
    def __init__(self, problem: str, scheme: Scheme) -> None:
        super().__init__(problem)
        self.scheme: Scheme = scheme


def _refusal(url: str, problem: str, scheme: Scheme) -> ConfigurationError:
    return ConfigurationError(f"cannot use the broker URL {redact(url)!r}: {problem}. Example: {EXAMPLES[scheme]}")


def _scheme(scheme: str) -> Scheme:
    for known in EXAMPLES:
        if scheme == known:
            return known
    raise _Unusable(f"its scheme must be one of {', '.join(f'{name}://' for name in EXAMPLES)}", "redis")


def _host(text: str, scheme: Scheme) -> tuple[str, int]:
    one = urlsplit(f"//{text}")
    if not one.hostname:
        raise _Unusable("an empty host: they are written host:port, with commas between", scheme)
    return unquote(one.hostname), PORTS.get(scheme, 6379) if one.port is None else one.port


class _Login(TypedDict):
    username: str | None
    password: str | None


class _Tls(TypedDict):
    verify: bool
    ca_certs: str | None
    certfile: str | None
    keyfile: str | None


def _login(parts: SplitResult) -> _Login:
    return {"username": _unquoted(parts.username), "password": _unquoted(parts.password)}


def _tls(options: dict[str, str], scheme: Scheme) -> _Tls:
    return {
        "verify": _verify(options, scheme),
        "ca_certs": options.get("ssl_ca_certs"),
        "certfile": options.get("ssl_certfile"),
        "keyfile": options.get("ssl_keyfile"),
    }


def _options(scheme: Scheme, parts: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(options) - OPTIONS[scheme]):
        known = ", ".join(sorted(OPTIONS[scheme])) or "none"
        raise _Unusable(f"unknown option {', '.join(unknown)} (known for {scheme}://: {known})", scheme)
    return options


def _folder(parts: SplitResult) -> str:
    if parts.netloc:
        raise _Unusable("the folder must be absolute (three slashes)", "embedded")
    folder = unquote(parts.path)
    if folder and not folder.strip("/"):
        raise _Unusable("the folder / cannot hold the data; embedded:// is a temporary server", "embedded")
    return folder


def _database(text: str, scheme: Scheme) -> int:
    if text and not re.fullmatch(r"[0-9]{1,9}", text):
        raise _Unusable("the database must be a number, 0 or more", scheme)
    return int(text or 0)


def _verify(options: dict[str, str], scheme: Scheme) -> bool:
    wanted = options.get("ssl_cert_reqs", "required")
    insecure = options.get("insecure", "false")
    if wanted not in {"required", "none"} or insecure not in {"true", "false"}:
        raise _Unusable("ssl_cert_reqs is required or none, insecure is true or false", scheme)
    if wanted == "none" and insecure != "true":
        problem = "without checking the certificate anyone in between can read and change jobs"
        raise _Unusable(f"{problem}; give ssl_ca_certs=FILE, or add insecure=true", scheme)
    return wanted == "required"


def _unquoted(text: str | None) -> str | None:
    return unquote(text) if text else None
