"""System checks: each says which setting is wrong and what to do."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.core.checks import Tags, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from storage import get_storage_adapter
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
    "budget as text": (FLAT | {"STORAGE_MEMORY_BUDGET": "67108864"}, "E001", ["the text '67108864'", "IntegerValue"]),
    "small budget": (FLAT | {"STORAGE_MEMORY_BUDGET": 2**24 - 1}, "E001", ["STORAGE_MEMORY_BUDGET", "16 MiB"]),
    "large budget": (FLAT | {"STORAGE_MEMORY_BUDGET": 2**40 + 1}, "E001", ["STORAGE_MEMORY_BUDGET", "1 TiB"]),
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
                "default": s3()["STORAGE_ADAPTERS"]["default"],
                "b": s3(temp_prefix="x")["STORAGE_ADAPTERS"]["default"],
            }
        },
        "E004",
        ["'default' and 'b'", "bucket 'b'", "STORAGE_ADAPTERS['b']['OPTIONS']['bucket_name']"],
    ),
    "one bucket by default": (
        {
            "STORAGE_ADAPTERS": {
                "default": entry(**APART)["STORAGE_ADAPTERS"]["default"],
                "b": entry(temp_dir="/nowhere/c", final_dir="/nowhere/d")["STORAGE_ADAPTERS"]["default"],
            }
        },
        "E004",
        ["'default' and 'b'", "bucket 'local'", "STORAGE_ADAPTERS['b']['OPTIONS']['bucket']"],
    ),
    "default place": ({"BASE_DIR": Path("/nowhere")}, "W001", ["STORAGE_TEMP_DIR"]),
    "own memory": ({"STORAGE_ADAPTERS": {"default": MEMORY}}, "W002", ["STORAGE_ADAPTERS['default']['BACKEND']"]),
    "memory": ({"STORAGE_BACKEND": "memory"}, "W002", ["memory", "STORAGE_BACKEND"]),
    "http": (s3(endpoint_url="http://minio:9000"), "W003", ["endpoint_url", "https://"]),
    "http to an address": (s3(endpoint_url="http://10.0.0.1:9000"), "W003", ["endpoint_url", "https://"]),
    "flat http": (
        {"STORAGE_BACKEND": "s3", "AWS_STORAGE_BUCKET_NAME": "b", "AWS_S3_ENDPOINT_URL": "http://s3.example.com"},
        "W003",
        ["AWS_S3_ENDPOINT_URL"],
    ),
    "verify": (s3(verify=False), "W004", ["STORAGE_ADAPTERS['default']['OPTIONS']['verify']"]),
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


TWO = {alias: {"BACKEND": "local", "OPTIONS": {"bucket": alias, **APART}} for alias in ("default", "archive")}
ARCHIVE = "STORAGE_ADAPTERS['archive']['OPTIONS']"
# What is probably wrong while debugging too: the settings, the checks that speak, and what they must name.
INTENDED = {
    "no temp dir": ({"BASE_DIR": "/nowhere", "STORAGE_FINAL_DIR": "/nowhere/b"}, "W009", ["STORAGE_TEMP_DIR is not"]),
    "no final dir": ({"BASE_DIR": "/nowhere", "STORAGE_TEMP_DIR": "/nowhere/a"}, "W009", ["STORAGE_FINAL_DIR is not"]),
    "relative": (FLAT | {"STORAGE_TEMP_DIR": "a/b"}, "W008", ["STORAGE_TEMP_DIR is", "'a/b'", "BASE_DIR"]),
    "relative path": (FLAT | {"STORAGE_TEMP_DIR": Path("~/b")}, "W008", ["STORAGE_TEMP_DIR is", "~"]),
    "relative option": (
        {"STORAGE_ADAPTERS": {"default": MEMORY, "archive": TWO["archive"] | {"OPTIONS": APART | {"temp_dir": "a"}}}},
        "W008",
        [f"{ARCHIVE}['temp_dir']", "'a'"],
    ),
    "relative certificates": (s3(ca_bundle="ca.pem"), "W008", ["['ca_bundle']"]),
    "relative certificate": (
        {"STORAGE_BACKEND": "s3", "AWS_STORAGE_BUCKET_NAME": "b", "AWS_S3_VERIFY": "conf/ca.pem"},
        "W008",
        ["AWS_S3_VERIFY"],
    ),
    "None": (FLAT | {"STORAGE_BUCKET": None}, "W007", ["STORAGE_BUCKET is None", "os.environ.get"]),
    "no backend": (FLAT | {"STORAGE_BACKEND": None}, "W007", ["STORAGE_BACKEND is None"]),
    "no adapters": (FLAT | {"STORAGE_ADAPTERS": None}, "W007", ["STORAGE_ADAPTERS is None"]),
    "no default": ({"STORAGE_ADAPTERS": {"archive": TWO["archive"]}}, "W010", ["STORAGE_ADAPTERS", "'default'"]),
    "a directory in that of another": (
        {
            "STORAGE_ADAPTERS": TWO
            | {
                "archive": {
                    "BACKEND": "local",
                    "OPTIONS": {"bucket": "a", "temp_dir": "/nowhere/c", "final_dir": "/nowhere/b/c"},
                }
            }
        },
        "W012",
        [f"{ARCHIVE}['final_dir'] is a directory in STORAGE_ADAPTERS['default']['OPTIONS']['final_dir']"],
    ),
}


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("name", INTENDED)
def test_what_is_probably_not_intended(name, debug):
    values, number, expected = INTENDED[name]
    adapters = values.get("STORAGE_ADAPTERS")
    silenced = {"storage.W002"} if adapters and MEMORY in adapters.values() else set()
    with override_settings(DEBUG=debug, **values):
        (message,) = (found for found in check_settings() if found.id not in silenced)
    text = f"{message.msg} {message.hint}"
    assert message.id == f"storage.{number}" and not [word for word in expected if word not in text], text
    assert "/nowhere" not in text


def test_everything_is_told_at_once():
    adapters = {
        "default": {"BACKEND": "S3", "OPTIONS": {}},
        "archive": {
            "BACKEND": "s3",
            "OPTIONS": {
                "buckt_name": "b",
                "part_size": 1,
                "temp_prefix": None,
                "AWS_S3_REGION_NAME": "eu",
                "proxy": "h",
            },
        },
        "disk": {"BACKEND": "storage.localstorageadapter", "OPTIONS": {}},
        "other": {"BACKEND": "local", "OPTIONS": {"temp_dir": None, "file_mode": "0640", "final_dir": "/nowhere/b"}},
        "half": {"backend": "local"},
    }
    with override_settings(DEBUG=True, STORAGE_ADAPTERS=adapters, STORAGE_TEMP_DIR="x", STORAGE_MEMORY_BUDGET=1):
        found = [f"{message.id.partition('.')[2]} {message.msg}" for message in check_settings()]
    expected = [
        "E001 STORAGE_MEMORY_BUDGET",
        "E001 STORAGE_ADAPTERS and STORAGE_TEMP_DIR are both set",
        "E001 STORAGE_ADAPTERS['default']['BACKEND'] is 'S3': no such adapter; did you mean 's3'?",
        "E001 STORAGE_ADAPTERS['half'] has an unknown key 'backend'; did you mean 'BACKEND'?",
        "E001 STORAGE_ADAPTERS['half'] needs a BACKEND",
        f"E003 {ARCHIVE} has an unknown option 'buckt_name'; did you mean 'bucket_name'?",
        f"E003 {ARCHIVE}['temp_prefix'] is None",
        f"E003 {ARCHIVE} has an unknown option 'AWS_S3_REGION_NAME': it is called 'region_name' here",
        f"E003 {ARCHIVE} lacks 'bucket_name'",
        f"E003 {ARCHIVE}['part_size'] is a number from",
        f"E003 {ARCHIVE}['proxy'] is a URL",
        "E002 STORAGE_ADAPTERS['disk']['BACKEND'] is 'storage.localstorageadapter', which cannot be imported",
        "E003 STORAGE_ADAPTERS['other']['OPTIONS']['temp_dir'] is None",
        "E003 STORAGE_ADAPTERS['other']['OPTIONS']['file_mode'] is a file mode",
    ]
    assert [text for text, words in zip(found, expected, strict=True) if not text.startswith(words)] == []
    assert "did you mean 'storage.LocalStorageAdapter'?" in found[11]


def test_the_same_words_come_from_the_factory():
    for values in (
        s3(part_size=1, proxy="h", regoin_name="x"),
        {"STORAGE_BACKEND": "s3", "AWS_ACCESS_KEY_ID": "k", "STORAGE_PART_SIZE": "1"},
        {
            "STORAGE_BACKEND": "local",
            "STORAGE_TEMP_DIR": "/nowhere",
            "STORAGE_FINAL_DIR": "/nowhere/x",
            "STORAGE_DURABLE": 1,
        },
        {"STORAGE_BACKEND": "Local"},
        {"STORAGE_BACKEND": "storage.files.AdapterStorage"},
    ):
        with override_settings(DEBUG=True, **values):
            said = [message.msg.removesuffix(".") for message in check_settings()]
            with pytest.raises(ImproperlyConfigured) as caught:
                get_storage_adapter()
        assert said and str(caught.value) == "; ".join(said)


BUCKET = {"STORAGE_BACKEND": "s3", "AWS_STORAGE_BUCKET_NAME": "b"}
# Names of django-storages and of habit, and what must be said of them.
STRANGERS = {
    "AWS_LOCATION": ["STORAGE_TEMP_PREFIX", "STORAGE_FINAL_PREFIX"],
    "AWS_DEFAULT_ACL": ["policy"],
    "AWS_S3_OBJECT_PARAMETERS": ["STORAGE_SERVER_SIDE_ENCRYPTION", "STORAGE_STORAGE_CLASS"],
    "AWS_S3_USE_SSL": ["AWS_S3_ENDPOINT_URL", "https://"],
    "AWS_S3_REGION": ["AWS_S3_REGION_NAME"],
    "AWS_S3_ENDPOINT": ["AWS_S3_ENDPOINT_URL"],
    "AWS_QUERYSTRING_AUTH": ["url_final"],
    "AWS_S3_FILE_OVERWRITE": ["overwrite="],
    "AWS_S3_CUSTOM_DOMAIN": ["STORAGE_PUBLIC_ENDPOINT_URL"],
    "AWS_S3_VERFIY": ["AWS_S3_VERIFY?"],
}


@pytest.mark.parametrize("name", STRANGERS)
def test_names_of_django_storages(name):
    with override_settings(DEBUG=False, **BUCKET, **{name: False}):
        (message,) = check_settings()
    text = f"{message.msg} {message.hint}"
    assert message.id == "storage.W005" and message.msg.startswith(f"Nothing reads {name}")
    assert not [word for word in STRANGERS[name] if word not in text], text


def test_names_that_others_read_are_no_news():
    """Those of django-storages beside us, and where nobody expects us to read them."""
    names = dict.fromkeys(STRANGERS, "x")
    theirs = {"default": {"BACKEND": "storages.backends.s3.S3Storage"}}
    for values in (
        BUCKET | names | {"STORAGES": theirs},
        entry(**APART) | names,
        FLAT | names,
        BUCKET | dict.fromkeys(names),
        BUCKET
        | {
            "AWS_SES_REGION_NAME": "x",
            "AWS_S3_ACCESS_KEY_ID": "x",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
        },
    ):
        with override_settings(DEBUG=False, **values):
            assert check_settings() == []


def test_a_bucket_without_a_backend():
    with override_settings(DEBUG=True, BASE_DIR=Path("/nowhere"), AWS_STORAGE_BUCKET_NAME="b"):
        (message,) = check_settings()
        assert message.id == "storage.W005" and "AWS_STORAGE_BUCKET_NAME" in message.msg
        assert "STORAGE_BACKEND = 's3'" in message.hint


SHADOWED = """
import os, sys
sys.path.insert(0, ".")
os.environ["DJANGO_SETTINGS_MODULE"] = "example_settings"
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


def test_what_one_sees_where_another_package_comes_first(tmp_path):
    """As docs/settings.md tells: no code of ours runs there."""
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "__init__.py").write_text("")
    (tmp_path / "example_settings.py").write_text("SECRET_KEY = 'x'\nINSTALLED_APPS = ['storage']\n")

    def manage(code, *arguments):
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, cwd=tmp_path, timeout=60, capture_output=True, text=True)

    assert manage(SHADOWED, "check").returncode == 0
    assert "Unknown command: 'storage_doctor'" in manage(SHADOWED, "storage_doctor").stderr
    used = manage("import sys; sys.path.insert(0, '.')\nfrom storage import get_storage_adapter").stderr
    assert "cannot import name 'get_storage_adapter' from 'storage'" in used and str(tmp_path / "storage") in used
    (tmp_path / "example_settings.py").write_text("INSTALLED_APPS = ['storage.apps.StorageConfig']\n")
    assert "No module named 'storage.apps'" in manage(SHADOWED, "check").stderr


@pytest.mark.parametrize("file", ["storage/__init__.py", "storage.py"])
def test_another_package_named_storage(tmp_path, file):
    (tmp_path / "storage").mkdir()
    with override_settings(DEBUG=True, BASE_DIR=tmp_path, **FLAT):
        assert check_settings() == []  # a directory is no package
        (tmp_path / file).write_text("")
        (message,) = check_settings()
    assert message.id == "storage.W011" and str(tmp_path) in message.msg and "Rename" in message.hint


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
        assert "storage.E001" in {message.id for message in run_checks(tags=[Tags.files])}


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
