"""Real servers as they stand in production: alone on TCP, watched by Sentinels, in a Cluster; with passwords and TLS.

Everything blocks for milliseconds to seconds: from async code enter with `async with`, and call the rest through
`asyncio.to_thread`. One running set may be shared by many tests; after a test that broke something, `settle()` it.
"""

from tests.topologies.access import Access, Certificates, certificates, speaks_tls
from tests.topologies.clusters import ClusterSet, Migration
from tests.topologies.node import Node, until
from tests.topologies.sentinels import SentinelSet

__all__ = [
    "Access",
    "Certificates",
    "ClusterSet",
    "Migration",
    "Node",
    "SentinelSet",
    "certificates",
    "speaks_tls",
    "until",
]
