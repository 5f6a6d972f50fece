"""Where an S3 store is, and a plain client for it."""

import contextlib
from dataclasses import dataclass, field

import boto3
from botocore.config import Config


@dataclass(frozen=True)
class Endpoint:
    url: str | None
    access_key: str | None
    secret_key: str | None = field(repr=False)
    bucket: str
    region: str
    ca_bundle: str | None = None

    @contextlib.contextmanager
    def client(self, **config):
        """A boto3 client that tries each request once; `config` is that of botocore."""
        config = {
            "signature_version": "s3v4",
            "retries": {"total_max_attempts": 1},
            "connect_timeout": 5,
            "read_timeout": 20,
            "s3": {"addressing_style": "path" if self.url else "auto"},
        } | config
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            verify=self.ca_bundle,
            config=Config(**config),
        )
        with contextlib.closing(client):
            yield client
