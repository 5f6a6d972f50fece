"""System checks: each says which setting is wrong and what to do."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from storage.checks import check_settings

MEMORY = {"BACKEND": "storage.MemoryStorageAdapter"}
APART = {"temp_dir": "/nowhere/a", "final_dir": "/nowhere/b"}
FLAT = {f"STORAGE_{name.upper()}": path for name, path in APART.items()}


def entry(backend="storage.LocalStorageAdapter", **options):
    return {"STORAGE_ADAPTERS": {"default": {"BACKEND": backend, "OPTIONS": options}}}


def s3(**options):
    return entry("storage.S3StorageAdapter", bucket_name="b", **options)


# Settings, the check that speaks, and what it must name.
FOUND = {
    "both styles": (FLAT | entry(**APART), "E001", ["STORAGE_ADAPTERS", "STORAGE_TEMP_DIR"]),
    "no shape": ({"STORAGE_ADAPTERS": ["x"]}, "E001", ["STORAGE_ADAPTERS"]),
    "budget": (FLAT | {"STORAGE_MEMORY_BUDGET": "64 MiB"}, "E001", ["STORAGE_MEMORY_BUDGET", "16 MiB", "'64 MiB'"]),
    "small budget": (FLAT | {"STORAGE_MEMORY_BUDGET": 2**24 - 1}, "E001", ["STORAGE_MEMORY_BUDGET", "16 MiB"]),
    "no place": ({}, "E001", ["STORAGE_TEMP_DIR", "BASE_DIR"]),
    "backend": ({"STORAGE_BACKEND": "s4"}, "E001", ["STORAGE_BACKEND", "'s3'"]),
    "prefix": ({"STORAGE_FINAL_PREFIX": "x", "BASE_DIR": Path("/nowhere")}, "E001", ["STORAGE_FINAL_PREFIX", "'s3'"]),
    "stranger": (
        {"STORAGE_BACKEND": "s3", "AWS_STORAGE_BUCKET_NAME": "b", "AWS_S3_ACCESS_KEY_ID": "x"},
        "E001",
        ["AWS_S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"],
    ),
    "bucket": ({"STORAGE_BACKEND": "s3"}, "E003", ["AWS_STORAGE_BUCKET_NAME"]),
    "s3 option": (s3(location="x"), "E003", ["'location'", "temp_prefix"]),
    "s3 value": (s3(part_size=1), "E003", ["part_size"]),
    "import": ({"STORAGE_BACKEND": "no.such.Adapter"}, "E002", ["no.such.Adapter"]),
    "no adapter": (entry("pathlib.Path"), "E002", ["pathlib.Path", "STORAGE_ADAPTERS"]),
    "option": (entry(**APART, bukket="b"), "E003", ["STORAGE_ADAPTERS", "bukket", "'bucket'"]),
    "overlap": (
        {"STORAGE_TEMP_DIR": "/nowhere", "STORAGE_FINAL_DIR": "/nowhere/b"},
        "E003",
        ["STORAGE_TEMP_DIR", "STORAGE_FINAL_DIR"],
    ),
    "mode": (entry(**APART, directory_mode="0750"), "E003", ["directory_mode"]),
    "one bucket": (
        {
            "STORAGE_ADAPTERS": {
                "a": s3()["STORAGE_ADAPTERS"]["default"],
                "b": s3(temp_prefix="x")["STORAGE_ADAPTERS"]["default"],
            }
        },
        "E004",
        ["STORAGE_ADAPTERS", "'a' and 'b'", "bucket 'b'"],
    ),
    "one bucket by default": (
        {
            "STORAGE_ADAPTERS": {
                "a": entry(**APART)["STORAGE_ADAPTERS"]["default"],
                "b": entry(temp_dir="/nowhere/c", final_dir="/nowhere/d")["STORAGE_ADAPTERS"]["default"],
            }
        },
        "E004",
        ["'a' and 'b'", "bucket 'local'"],
    ),
    "default place": ({"BASE_DIR": Path("/nowhere")}, "W001", ["STORAGE_TEMP_DIR"]),
    "one default place": (
        {"BASE_DIR": Path("/nowhere"), "STORAGE_TEMP_DIR": "/nowhere/a"},
        "W001",
        ["STORAGE_FINAL_DIR"],
    ),
    "memory": ({"STORAGE_BACKEND": "memory"}, "W002", ["memory", "STORAGE_BACKEND"]),
    "http": (s3(endpoint_url="http://minio:9000"), "W003", ["endpoint_url", "https://"]),
    "http to an address": (s3(endpoint_url="http://10.0.0.1:9000"), "W003", ["endpoint_url", "https://"]),
    "flat http": (
        {"STORAGE_BACKEND": "s3", "AWS_STORAGE_BUCKET_NAME": "b", "AWS_S3_ENDPOINT_URL": "http://s3.example.com"},
        "W003",
        ["AWS_S3_ENDPOINT_URL"],
    ),
    "verify": (s3(verify=False), "W004", ["verify", "AWS_S3_VERIFY", "ca_bundle"]),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found(name):
    values, number, expected = FOUND[name]
    with override_settings(DEBUG=False, **values):
        (message,) = check_settings()
    assert message.id == f"storage.{number}"
    text = f"{message.msg} {message.hint}"
    assert message.hint and not [word for word in expected if word not in text], text
    assert "/nowhere" not in text


UNREAD = {
    "prefix": (FLAT | {"STORAGE_BACKEND": "local", "STORAGE_TEMP_PREFIX": "x"}, ["STORAGE_TEMP_PREFIX", "'local'"]),
    "directory": (
        {"STORAGE_BACKEND": "s3", "AWS_STORAGE_BUCKET_NAME": "b", "STORAGE_FINAL_DIR": "/nowhere/b"},
        ["STORAGE_FINAL_DIR", "'s3'"],
    ),
    "misspelt": (FLAT | {"STORAGE_FINAL_DIRS": "x"}, ["STORAGE_FINAL_DIRS", "STORAGE_FINAL_DIR?"]),
    "misspelt budget": (FLAT | {"STORAGE_MEMORY_BUDGETS": 2**26}, ["STORAGE_MEMORY_BUDGETS", "STORAGE_MEMORY_BUDGET?"]),
    "misspelt dictionary": (FLAT | {"STORAGE_ADAPTER": {}}, ["STORAGE_ADAPTER", "STORAGE_ADAPTERS?"]),
}


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("name", UNREAD)
def test_what_nothing_reads(name, debug):
    values, expected = UNREAD[name]
    with override_settings(DEBUG=debug, **values):
        (message,) = check_settings()
    text = f"{message.msg} {message.hint}"
    assert message.id == "storage.W005" and not [word for word in expected if word not in text], text
    assert "/nowhere" not in text


@pytest.mark.parametrize("name", [name for name in FOUND if FOUND[name][1].startswith("W")])
def test_no_warnings_while_debugging(name):
    with override_settings(DEBUG=True, **FOUND[name][0]):
        assert check_settings() == []


@pytest.mark.parametrize(
    "values",
    [
        FLAT,
        FLAT | {"STORAGE_MEMORY_BUDGET": 2**24},
        entry(**APART) | {"STORAGE_MEMORY_BUDGET": 2**30},
        FLAT | {"STORAGE_CLASS_FOR_UPLOADS": "a project's own name"},
        entry(**APART),
        entry("test_conf.Directories", **APART, colour="red"),
        s3(),
        s3(endpoint_url="https://s3.example.com", verify="/ca.pem"),
        *(s3(endpoint_url=f"http://{host}:9000") for host in ("localhost", "s3.localhost", "127.0.0.2", "[::1]")),
    ],
)
def test_good_settings(values):
    with override_settings(DEBUG=False, **values):
        assert check_settings() == []
    assert not Path("/nowhere").exists()


def test_every_alias_is_checked():
    adapters = {"default": MEMORY, "a": {"BACKEND": "no.A"}, "b": {"BACKEND": "no.B"}}
    with override_settings(DEBUG=True, STORAGE_ADAPTERS=adapters):
        assert [message.id for message in check_settings()] == ["storage.E002"] * 2


def test_they_are_registered():
    import django

    django.setup()
    with override_settings(STORAGE_BACKEND="s4"):
        assert "storage.E001" in {message.id for message in run_checks()}


def test_they_touch_neither_the_network_nor_the_extension(tmp_path):
    (tmp_path / "example_settings.py").write_text(
        "SECRET_KEY = 'x'\nINSTALLED_APPS = ['storage']\nSTORAGE_BACKEND = 's3'\nAWS_STORAGE_BUCKET_NAME = 'b'\n"
        "AWS_S3_ENDPOINT_URL = 'https://s3.example.com'\nAWS_S3_VERIFY = '/nowhere/ca.pem'\n"
    )
    code = (
        "import socket, sys; sys.path.insert(0, '.')\n"
        "def refuse(*_): raise AssertionError('the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(['', 'check', '--fail-level', 'WARNING', '--settings', 'example_settings'])\n"
        "from storage import native\n"
        "assert not native.loaded()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60, capture_output=True)
