"""The S3 servers that the tests talk to, and the proxies that make them fail.

Each is a real server in a process of its own, on a free port of the loopback interface. It ends with its context
manager, or at the latest with the tests. `make tools` builds them into build/tools/bin; without them the tests fail.
Only moto comes with the test tools of tests/constraints.txt.

    versitygw   http, the main server
    minio       https, with a certificate authority of its own
    moto        http, for the contract only
    Toxiproxy   slow, cut and stalled connections in front of a server
    FaultProxy  faults of S3 and of HTTP in front of a server, and a log of what passed
    discard     http, keeps nothing: for benchmarks
    farline     a line that is far away, in front of a server: for benchmarks

Your own store is tested beside them, as `own_store`, if the environment names it:

    STORAGE_TEST_S3_BUCKET      the bucket, which must exist; the tests use only keys below a prefix of their own
    STORAGE_TEST_S3_ENDPOINT    the URL; unset or empty means AWS
    STORAGE_TEST_S3_ACCESS_KEY, STORAGE_TEST_S3_SECRET_KEY
                                unset or empty means those that the SDK finds by itself
    STORAGE_TEST_S3_REGION      unset or empty means us-east-1
    STORAGE_TEST_S3_CA_BUNDLE   a file with the certificates to trust

`pytest -k own_store` then runs the tests against this store only.
"""

from servers.endpoint import Endpoint
from servers.proxies import Entry, FaultProxy, Toxiproxy, farline
from servers.stores import discard, minio, moto, own_store, versitygw

STORES = ("versitygw", "minio", *(["own_store"] if own_store() else []))

__all__ = [
    "STORES",
    "Endpoint",
    "Entry",
    "FaultProxy",
    "Toxiproxy",
    "discard",
    "farline",
    "minio",
    "moto",
    "own_store",
    "versitygw",
]
