"""The options of the adapters, their flat settings, and what stands for the names of other storage libraries.

docs/settings.md and ``manage.py storage_doctor --settings`` show this table. Defaults and required options are those of
the adapters' constructors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured


class Option(NamedTuple):
    """An option of an adapter, or a setting of the process.

    ``flat`` is its flat setting. ``environment`` names the variables that are read if it is unset. ``default`` says
    what unset means, where the constructor's default (None) does not tell.
    """

    name: str
    flat: str
    meaning: str
    unit: str = ""
    environment: str = ""
    default: str = ""


CARRY_DIGEST = Option(
    "carry_digest", "STORAGE_CARRY_DIGEST", "carry the SHA-256 of the whole from part to part, for assemble"
)
BUCKET = Option("bucket", "STORAGE_BUCKET", "name of this store in FinalObject.bucket; no two aliases have the same")

BELOW = "required; with flat names, var/storage/{} below BASE_DIR"

LOCAL = (
    Option(
        "temp_dir",
        "STORAGE_TEMP_DIR",
        "directory for the parts; it is created if it is missing",
        "path",
        default=BELOW.format("temp"),
    ),
    Option(
        "final_dir",
        "STORAGE_FINAL_DIR",
        "directory for the final objects, not in temp_dir and not above it",
        "path",
        default=BELOW.format("final"),
    ),
    BUCKET,
    Option(
        "durable",
        "STORAGE_DURABLE",
        "sync file and directory before a call returns; without it a power loss may remove acknowledged objects, but"
        " never leaves half an object",
    ),
    Option("file_mode", "STORAGE_FILE_MODE", "permission bits of new files, whatever the umask is", "mode"),
    Option(
        "directory_mode",
        "STORAGE_DIRECTORY_MODE",
        "permission bits of new directories, whatever the umask is",
        "mode",
    ),
    CARRY_DIGEST,
)

MEMORY = (BUCKET, CARRY_DIGEST)

S3 = (
    Option("bucket_name", "AWS_STORAGE_BUCKET_NAME", "the bucket, which must exist"),
    Option(
        "access_key",
        "AWS_ACCESS_KEY_ID",
        "credentials, together with secret_key",
        environment="AWS_ACCESS_KEY_ID",
        default="the default chain of the AWS SDKs",
    ),
    Option(
        "secret_key",
        "AWS_SECRET_ACCESS_KEY",
        "credentials, together with access_key",
        environment="AWS_SECRET_ACCESS_KEY",
        default="the default chain of the AWS SDKs",
    ),
    Option(
        "security_token",
        "AWS_SESSION_TOKEN",
        "session token of temporary credentials",
        environment="AWS_SESSION_TOKEN",
    ),
    Option(
        "region_name",
        "AWS_S3_REGION_NAME",
        "region of the bucket",
        environment="AWS_REGION, AWS_DEFAULT_REGION",
        default="that of the profile, else us-east-1; with access_key and endpoint_url set, us-east-1 in any case",
    ),
    Option(
        "endpoint_url",
        "AWS_S3_ENDPOINT_URL",
        "URL of the store, with https:// or http://, without credentials and query",
        environment="AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL",
        default="that of the profile, else AWS",
    ),
    Option(
        "addressing_style",
        "AWS_S3_ADDRESSING_STYLE",
        "place of the bucket's name: path (https://host/bucket/key) or virtual (https://bucket.host/key); auto means"
        " path with an endpoint_url or if the bucket's name has dots, else virtual",
        default="'auto'",
    ),
    Option("temp_prefix", "STORAGE_TEMP_PREFIX", "folder of the bucket for the parts, at most 123 bytes"),
    Option(
        "final_prefix",
        "STORAGE_FINAL_PREFIX",
        "folder of the bucket for the final objects, neither in temp_prefix nor above it",
    ),
    Option(
        "ca_bundle",
        "STORAGE_CA_BUNDLE",
        "PEM file with the certificates of the authorities to trust",
        "path",
        environment="AWS_CA_BUNDLE",
        default="those of the system",
    ),
    Option(
        "verify",
        "AWS_S3_VERIFY",
        "False trusts any certificate; a path means the same as ca_bundle",
        default="True",
    ),
    Option(
        "part_size",
        "STORAGE_PART_SIZE",
        "size of the parts in which an object is uploaded, 5 MiB to 5 GiB, rounded up to a multiple of 256 KiB; each"
        " running upload needs this much memory",
        "bytes",
        default="5 MiB, 8 MiB on a near store, more for large objects, and one request for an object known to have at"
        " most 8 MiB",
    ),
    Option(
        "concurrency",
        "STORAGE_CONCURRENCY",
        "parts of one upload that are sent at once at most, 1 to 64",
        "parts",
        default="16",
    ),
    Option(
        "equal_parts",
        "STORAGE_EQUAL_PARTS",
        "True for stores that want all parts but the last to have one size, such as Cloudflare R2; an object of unknown"
        " size is then at most 10,000 times part_size",
    ),
    Option(
        "connect_timeout",
        "STORAGE_CONNECT_TIMEOUT",
        "time to connect, and the same again for the TLS handshake",
        "seconds",
    ),
    Option(
        "read_timeout",
        "STORAGE_READ_TIMEOUT",
        "time after which a connection without any moving byte is given up; a transfer that moves is never ended",
        "seconds",
    ),
    Option(
        "max_attempts",
        "STORAGE_MAX_ATTEMPTS",
        "how often a request is sent at most, 1 to 20; retries always end after 60 seconds",
        "requests",
    ),
    Option(
        "max_connections",
        "STORAGE_MAX_CONNECTIONS",
        "connections for requests side by side, 1 to 256; each call and each open stream may use one more",
        "connections",
    ),
    Option(
        "checksum",
        "STORAGE_CHECKSUM",
        "how the server verifies parts: crc64nvme, crc32, sha256, off; auto means crc64nvme, or the SHA-256 in the"
        " signature of each part if the server refuses that. With a named algorithm small puts carry it too",
    ),
    Option(
        "server_side_encryption",
        "STORAGE_SERVER_SIDE_ENCRYPTION",
        "AES256 or aws:kms, sent with each object",
        default="that of the bucket",
    ),
    Option("kms_key_id", "STORAGE_KMS_KEY_ID", "ID of the key for aws:kms"),
    Option(
        "storage_class",
        "STORAGE_STORAGE_CLASS",
        "storage class of final objects, such as STANDARD_IA; parts always have the bucket's default",
        default="that of the bucket",
    ),
    Option(
        "proxy",
        "STORAGE_PROXY",
        "URL of a proxy, http, https or socks5; it may hold a user and a password",
        environment="HTTPS_PROXY, HTTP_PROXY, NO_PROXY",
    ),
    CARRY_DIGEST,
    Option(
        "conditional_writes",
        "STORAGE_CONDITIONAL_WRITES",
        "required: the store keeps overwrite=False, and must honour If-None-Match. look is for stores that ignore it:"
        " the adapter first looks whether the object is there. That is not atomic: of two writers at once both may win",
    ),
    Option(
        "public_endpoint_url",
        "STORAGE_PUBLIC_ENDPOINT_URL",
        "endpoint in the URLs of url_final, if clients reach the store by another host; in the same addressing_style",
        default="that of the requests",
    ),
)

OPTIONS: dict[str, tuple[Option, ...]] = {"local": LOCAL, "s3": S3, "memory": MEMORY}
"""For each kind of adapter, in the order of its constructor."""

FLAT = {kind: {option.flat: option.name for option in options} for kind, options in OPTIONS.items()}
"""Flat settings and their options, for each kind of adapter and its subclasses."""

FLAT_NAME = {option.name: option.flat for options in OPTIONS.values() for option in options}

PROCESS = (
    Option(
        "",
        "STORAGE_BACKEND",
        "local, s3, memory, or the dotted path of an adapter class",
        default="'local'",
    ),
    Option("", "STORAGE_ADAPTERS", "the dictionary, in place of flat names", default="flat names"),
    Option(
        "",
        "STORAGE_MEMORY_BUDGET",
        "memory that all transfers of a process share for work ahead, 16 MiB to 1 TiB",
        "bytes",
        default="64 MiB",
    ),
    Option("", "STORAGE_ACCEL_PREFIX", "where the server in front has the final objects, for object_response"),
    Option(
        "",
        "STORAGE_ACCEL_HEADER",
        "header that tells the server in front what to send: X-Accel-Redirect or X-Sendfile",
        default="'X-Accel-Redirect'",
    ),
)
"""Settings that are no option of an adapter. Only STORAGE_BACKEND does not stand beside the dictionary."""


HINTS = {
    "local": {
        "location": "set temp_dir and final_dir",
        "base_url": "it is an option of storage.files.AdapterStorage; for url_final include storage.urls",
        "file_permissions_mode": "it is called file_mode",
        "directory_permissions_mode": "it is called directory_mode",
        "allow_overwrite": "pass overwrite= to put_final and assemble",
    },
    "s3": {
        "location": "set temp_prefix and final_prefix (STORAGE_TEMP_PREFIX, STORAGE_FINAL_PREFIX)",
        "custom_domain": "set public_endpoint_url, the whole URL, for url_final",
        "querystring_auth": "leave it out: url_final signs each URL",
        "querystring_expire": "pass expires= to url_final",
        "url_protocol": "begin endpoint_url and public_endpoint_url with https:// or http://",
        "use_ssl": "begin endpoint_url with https:// or http://",
        "default_acl": "leave it out: who may read is said by the policy of the bucket",
        "file_overwrite": "pass overwrite= to put_final and assemble",
        "session_profile": "leave the keys out, and set AWS_PROFILE in the environment",
        "object_parameters": "set server_side_encryption, kms_key_id, storage_class; content_type= and metadata= are"
        " arguments of put_final",
        "proxies": "set proxy, one URL",
        "transfer_config": "set part_size and concurrency",
        "client_config": "set connect_timeout, read_timeout, max_attempts, max_connections, proxy",
        "max_pool_connections": "it is called max_connections",
        "signature_version": "leave it out: requests are signed by Signature Version 4",
        "max_memory_size": "leave it out: streams have a fixed memory",
        "gzip": "leave it out: objects are stored as they come",
        "gzip_content_types": "leave it out: objects are stored as they come",
        "file_name_charset": "leave it out: names are UTF-8",
        "use_threads": "leave it out: parts are sent side by side, at most concurrency of them",
        "cloudfront_key": "leave it out: url_final signs for the store itself",
        "cloudfront_key_id": "leave it out: url_final signs for the store itself",
        "cloudfront_signer": "leave it out: url_final signs for the store itself",
    },
    "memory": {},
}
"""For options of other storage libraries: what to do instead."""

REFUSED = {
    "AWS_S3_ACCESS_KEY_ID": ("AWS_ACCESS_KEY_ID", "set AWS_ACCESS_KEY_ID"),
    "AWS_S3_SECRET_ACCESS_KEY": ("AWS_SECRET_ACCESS_KEY", "set AWS_SECRET_ACCESS_KEY"),
    "AWS_S3_SESSION_PROFILE": ("AWS_ACCESS_KEY_ID", "set AWS_PROFILE in the environment"),
}
"""Settings of django-storages without which we would silently be somebody else, if the setting beside is not set."""

STRANGERS = {
    "AWS_LOCATION": "set STORAGE_TEMP_PREFIX and STORAGE_FINAL_PREFIX",
    "AWS_DEFAULT_ACL": "who may read is said by the policy of the bucket",
    "AWS_S3_OBJECT_PARAMETERS": "set STORAGE_SERVER_SIDE_ENCRYPTION, STORAGE_KMS_KEY_ID or STORAGE_STORAGE_CLASS;"
    " content_type= and metadata= are arguments of put_final",
    "AWS_S3_USE_SSL": "begin AWS_S3_ENDPOINT_URL with https:// or http://",
    "AWS_S3_URL_PROTOCOL": "begin AWS_S3_ENDPOINT_URL and STORAGE_PUBLIC_ENDPOINT_URL with https:// or http://",
    "AWS_S3_CUSTOM_DOMAIN": "set STORAGE_PUBLIC_ENDPOINT_URL, the whole URL, for url_final",
    "AWS_QUERYSTRING_AUTH": "url_final signs each URL",
    "AWS_QUERYSTRING_EXPIRE": "pass expires= to url_final, or set querystring_expire of storage.files.AdapterStorage",
    "AWS_CLOUDFRONT_KEY": "url_final signs for the store itself",
    "AWS_CLOUDFRONT_KEY_ID": "url_final signs for the store itself",
    "AWS_S3_FILE_OVERWRITE": "pass overwrite= to put_final and assemble; storage.files.AdapterStorage never replaces",
    "AWS_S3_SIGNATURE_VERSION": "requests are signed by Signature Version 4",
    "AWS_S3_FILE_NAME_CHARSET": "names are UTF-8",
    "AWS_S3_FILE_BUFFER_SIZE": "set STORAGE_PART_SIZE",
    "AWS_S3_MAX_MEMORY_SIZE": "streams have a fixed memory: set STORAGE_MEMORY_BUDGET",
    "AWS_S3_PROXIES": "set STORAGE_PROXY, one URL",
    "AWS_S3_USE_THREADS": "set STORAGE_CONCURRENCY",
    "AWS_S3_TRANSFER_CONFIG": "set STORAGE_PART_SIZE and STORAGE_CONCURRENCY",
    "AWS_S3_CLIENT_CONFIG": "set STORAGE_CONNECT_TIMEOUT, STORAGE_READ_TIMEOUT, STORAGE_MAX_ATTEMPTS,"
    " STORAGE_MAX_CONNECTIONS or STORAGE_PROXY",
    "AWS_IS_GZIPPED": "objects are stored as they come",
    "AWS_SECURITY_TOKEN": "set AWS_SESSION_TOKEN",
    # No setting of django-storages, but written by many.
    "AWS_S3_REGION": "set AWS_S3_REGION_NAME",
    "AWS_REGION": "set AWS_S3_REGION_NAME",
    "AWS_REGION_NAME": "set AWS_S3_REGION_NAME",
    "AWS_DEFAULT_REGION": "set AWS_S3_REGION_NAME",
    "AWS_S3_ENDPOINT": "set AWS_S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL": "set AWS_S3_ENDPOINT_URL",
    "AWS_S3_HOST": "set AWS_S3_ENDPOINT_URL",
    "AWS_S3_SESSION_TOKEN": "set AWS_SESSION_TOKEN",
    "AWS_BUCKET_NAME": "set AWS_STORAGE_BUCKET_NAME",
    "AWS_S3_BUCKET_NAME": "set AWS_STORAGE_BUCKET_NAME",
    "AWS_CA_BUNDLE": "set STORAGE_CA_BUNDLE, or AWS_CA_BUNDLE in the environment",
}
"""Flat settings of django-storages that no adapter reads: what to do instead."""


Problem = tuple[tuple[str, ...], str]
"""The names of one or more options, and what is wrong with them, as the rest of a sentence."""


class WrongOptions(ImproperlyConfigured):
    """All that is wrong with the options of an adapter."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{' and '.join(names)} {text}" for names, text in self.problems))


class Checked:
    """Options that have passed the rule of their name; what is wrong with the others is kept until ``done``."""

    def __init__(self, rules: Mapping[str, Callable[[Any], Any]], values: Mapping[str, object]) -> None:
        self._values: dict[str, Any] = {}
        self._problems: list[Problem] = []
        for name, value in values.items():
            try:
                self._values[name] = rules[name](value)
            except (TypeError, ValueError) as error:
                self._problems.append(((name,), str(error)))

    def together(self, names: tuple[str, ...], fit: Callable[..., bool], problem: str) -> None:
        """``fit`` gets the values of these options, if each by itself is right."""
        if all(name in self._values for name in names) and not fit(*(self._values[name] for name in names)):
            self._problems.append((names, problem))

    def done(self) -> dict[str, Any]:
        """The options by name. Raises ``WrongOptions``."""
        if self._problems:
            raise WrongOptions(self._problems)
        return self._values


def parameters_of(found: type) -> dict[str, inspect.Parameter]:
    """The options that the constructor of an adapter names."""
    return {
        name: parameter
        for name, parameter in inspect.signature(found).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }


def default_of(option: Option, parameter: inspect.Parameter | None) -> str:
    """What unset means, in words: "required" if it must be set, "" if nothing is sent or used then."""
    if option.default or parameter is None:
        return option.default
    if parameter.default is parameter.empty:
        return "required"
    if option.unit == "mode":
        return f"0o{parameter.default:o}"
    return "" if parameter.default is None else repr(parameter.default)


def is_flag(value: object) -> bool:
    """The rule of an option that is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"is True or False, {instead_of(value, 'values.BooleanValue')}")
    return value


def instead_of(value: object, reader: str) -> str:
    """The end of a message about a value of the wrong type: a text comes from the environment most of the time."""
    if isinstance(value, str):
        return f"not the text {value!r}: read the environment variable with {reader} or similar"
    return f"not {value!r}"
