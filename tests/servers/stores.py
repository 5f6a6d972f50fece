"""The S3 servers: each is an Endpoint with a bucket while its context manager is open."""

import contextlib
import os
import secrets
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import trustme
from botocore.exceptions import BotoCoreError, ClientError

from servers.endpoint import Endpoint
from servers.process import NotReady, first_line, free_port, running


@contextlib.contextmanager
def versitygw(directory, kept=False):
    """versitygw on files below `directory`, which are removed at the end unless they are `kept`. It uses http without
    keep-alive: over https it closes before its answer when it refuses a put, and keep-alive breaks uploads of boto3."""
    endpoint = _endpoint("http")
    with _folders(directory, "versitygw", "data", "versions", kept=kept) as (root, data, versions):
        address = endpoint.url.removeprefix("http://")
        with running(
            "versitygw",
            *("--port", address, "--quiet", "posix", "--versioning-dir", versions, data),
            log=root / "log",
            environment={"ROOT_ACCESS_KEY": endpoint.access_key, "ROOT_SECRET_KEY": endpoint.secret_key},
            ready=lambda: _create_bucket(endpoint),
        ):
            yield endpoint


@contextlib.contextmanager
def minio(directory):
    """MinIO on files below `directory`, which are removed at the end; `ca_bundle` is its certificate authority."""
    with _folders(directory, "minio", "data", "certificates") as (root, data, certificates):
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(str(certificates / "private.key"))
        certificate.cert_chain_pems[0].write_to_path(str(certificates / "public.crt"))
        authority.cert_pem.write_to_path(str(root / "ca.pem"))
        endpoint = _endpoint("https", ca_bundle=str(root / "ca.pem"))
        address = endpoint.url.removeprefix("https://")
        with running(
            "minio",
            *("server", "--quiet", "--address", address, "--certs-dir", certificates, data),
            log=root / "log",
            environment={
                "MINIO_ROOT_USER": endpoint.access_key,
                "MINIO_ROOT_PASSWORD": endpoint.secret_key,
                "MINIO_BROWSER": "off",
            },
            ready=lambda: _create_bucket(endpoint),
        ):
            yield endpoint


@contextlib.contextmanager
def moto(directory):
    """moto's server, which keeps everything in memory. It believes every signature, digest and checksum."""
    endpoint = _endpoint("http")
    with (
        _folders(directory, "moto") as (root,),
        running(
            Path(sys.executable).with_name("moto_server"),
            *("--host", "127.0.0.1", "--port", endpoint.url.rpartition(":")[2]),
            log=root / "log",
            ready=lambda: _create_bucket(endpoint),
        ),
    ):
        yield endpoint


@contextlib.contextmanager
def discard(directory):
    """A server that keeps nothing and costs little, for benchmarks: see tests/bench/discard."""
    log = Path(directory, f"discard-{free_port()}.log")
    with running("discard", log=log, ready=lambda: first_line(log)) as address:
        yield replace(_endpoint("http"), url=f"http://{address}")


def own_store():
    """The store that the environment names, or None."""

    def setting(name, default=None):
        return os.environ.get(f"STORAGE_TEST_S3_{name}") or default

    if bucket := setting("BUCKET"):
        return Endpoint(
            url=setting("ENDPOINT"),
            access_key=setting("ACCESS_KEY"),
            secret_key=setting("SECRET_KEY"),
            bucket=bucket,
            region=setting("REGION", "us-east-1"),
            ca_bundle=setting("CA_BUNDLE"),
        )
    return None


def _endpoint(scheme, ca_bundle=None):
    url = f"{scheme}://127.0.0.1:{free_port()}"
    return Endpoint(url, secrets.token_hex(8), secrets.token_hex(16), "tests", "us-east-1", ca_bundle)


@contextlib.contextmanager
def _folders(directory, name, *folders, kept=False):
    with contextlib.ExitStack() as stack:
        root = directory
        if not kept:
            made = tempfile.TemporaryDirectory(dir=directory, prefix=f"{name}-", ignore_cleanup_errors=True)
            root = stack.enter_context(made)
        paths = [Path(root, folder) for folder in folders]
        for path in paths:
            path.mkdir(exist_ok=kept)
        yield Path(root), *paths


def _create_bucket(endpoint):
    try:
        with endpoint.client() as client:
            client.create_bucket(Bucket=endpoint.bucket)
    except (BotoCoreError, ClientError) as error:
        if "BucketAlready" in str(error):  # in files that were kept
            return
        raise NotReady(str(error)) from error
