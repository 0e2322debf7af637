"""How servers are reached: ports of their own, passwords, certificates, and the URLs that say so."""

from __future__ import annotations

import random
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlencode

from tests.conftest import PROGRAMS

HOST = "127.0.0.1"
# Below the ports of outgoing connections (ip_local_port_range): while a server is down, nobody may be given its port,
# and a client that tries again and again must not come to be connected with itself.
PORTS = range(12_000, 32_000)
EXTENSIONS = """
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
subjectAltName = {names}
authorityKeyIdentifier = keyid
"""


class Port:
    """A free TCP port of this machine, nobody else's until `release` or the end of the process.

    It is claimed through the UDP port of the same number: other processes that choose see it, the server does not
    mind, and it stays claimed while the server is down.
    """

    def __init__(self) -> None:
        for number in random.SystemRandom().sample(PORTS, 200):
            self._claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self._claim.bind((HOST, number))
                with socket.socket() as probe:
                    probe.bind((HOST, number))
            except OSError:
                self._claim.close()
            else:
                self.number = number
                return
        raise RuntimeError(f"no free port among 200 of {PORTS}")

    def release(self) -> None:
        self._claim.close()


@dataclass(frozen=True)
class Certificates:
    """Files of a CA, and of a certificate that it signed."""

    ca: Path
    certificate: Path
    key: Path


def certificates(folder: Path, names: str = f"DNS:localhost,IP:{HOST}") -> Certificates:
    """Make a CA, and a server's certificate for these names, in the folder; strict verification accepts them."""
    (folder / "openssl.cnf").write_text(EXTENSIONS.format(names=names))
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    authority = ["-CA", "ca.pem", "-CAkey", "ca.key"]
    for name, signed_by in (("ca", []), ("server", authority)):
        request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -config openssl.cnf"
        files = ["-extensions", name, "-subj", f"/CN=streamq {name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*request.split(), *files, *signed_by], cwd=folder, check=True, capture_output=True)
    return made


@cache
def speaks_tls(kind: str) -> bool:
    """Whether this kind of server was built with TLS: one that was misses a certificate, the others the feature."""
    command = [str(PROGRAMS[kind]), "--port", "0", "--tls-port", "1", "--save", ""]
    said = subprocess.run(command, capture_output=True, timeout=10, text=True).stdout
    return "No tls-cert-file configured" in said


@dataclass(frozen=True)
class Access:
    """A password for the data, another for the Sentinels, and TLS instead of plain connections."""

    password: str = ""
    sentinel_password: str = ""
    tls: Certificates | None = None

    def config(self, port: int, *, password: str) -> dict[str, str]:
        """What a server must be told to be reached like this and in no other way."""
        config = {"bind": HOST, "port": str(port)}
        if password:
            config |= {"requirepass": password}
        if self.tls:
            files = {"ca-cert-file": self.tls.ca, "cert-file": self.tls.certificate, "key-file": self.tls.key}
            config |= {"port": "0", "tls-port": str(port), "tls-auth-clients": "no", "tls-replication": "yes"}
            config |= {f"tls-{name}": str(path) for name, path in files.items()}
        return config

    def url(
        self,
        ports: Iterable[int],
        *,
        kind: str = "",
        path: str = "",
        user: str = "",
        password: str = "",
        options: Mapping[str, str] | None = None,
    ) -> str:
        """`kind` is +sentinel, +cluster or nothing."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
        given = dict(options or {}) | ({"ssl_ca_certs": str(self.tls.ca)} if self.tls else {})
        hosts = ",".join(f"{HOST}:{port}" for port in ports)
        query = f"?{urlencode(given, safe='/')}" if given else ""
        return f"{'rediss' if self.tls else 'redis'}{kind}://{login}{hosts}{path}{query}"
