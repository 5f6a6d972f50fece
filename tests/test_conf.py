"""From settings to adapters."""

import contextlib
import copy
import gc
import math
import pickle
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest
from conftest import django_configurations
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.views.debug import ExceptionReporter

from storage import (
    LocalStorageAdapter,
    MemoryStorageAdapter,
    S3StorageAdapter,
    StorageError,
    conf,
    get_storage_adapter,
    native,
)
from storage.checks import check_settings

LOCAL = "storage.LocalStorageAdapter"
MEMORY = {"BACKEND": "storage.MemoryStorageAdapter"}


class Custom(MemoryStorageAdapter):
    """A project's own adapter."""

    def __init__(self, *, colour="red"):
        super().__init__()
        self.colour = colour


class Directories(LocalStorageAdapter):
    """Has an option of its own besides those of its base."""

    def __init__(self, *, temp_dir, final_dir, colour="red"):
        super().__init__(temp_dir=temp_dir, final_dir=final_dir)
        self.colour = colour


class Elsewhere(LocalStorageAdapter):
    """Knows by itself where its parts are."""

    def __init__(self, *, final_dir):
        super().__init__(temp_dir=f"{final_dir}-parts", final_dir=final_dir)


class Bucket(S3StorageAdapter):
    """Takes whatever its base takes."""

    def __init__(self, **options):
        super().__init__(**options)


def s3(**options):
    return {"STORAGE_ADAPTERS": {"default": {"BACKEND": "storage.S3StorageAdapter", "OPTIONS": options}}}


AWS = {
    "AWS_STORAGE_BUCKET_NAME": "uploads",
    "AWS_S3_ENDPOINT_URL": "https://s3.example.com/",
    "AWS_S3_REGION_NAME": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "AKID",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
    "AWS_S3_ADDRESSING_STYLE": "path",
    "STORAGE_TEMP_PREFIX": "parts",
    "STORAGE_FINAL_PREFIX": "objects/",
}


def connected(adapter):
    """What an S3 adapter would use, without the environment."""
    temp, final = adapter._configurations()
    return temp | {"temp": temp["prefix"], "final": final["prefix"]}


def local(tmp_path, **options):
    areas = {"temp_dir": tmp_path / "a", "final_dir": tmp_path / "b"}
    return {"default": {"BACKEND": LOCAL, "OPTIONS": areas | options}}


def areas(adapter, tmp_path):
    """Where the adapter really writes, below tmp_path."""
    adapter.put_temp_part("s", 1, b"x")
    adapter.put_final("f", b"x")
    adapter.close()
    files = {path.name: path.parent for path in tmp_path.rglob("*") if path.is_file()}
    return files["00001"].parent, files["f"]


@pytest.mark.parametrize("kind", [Path, str])
def test_flat_names(tmp_path, kind):
    temp, final = tmp_path / "a", tmp_path / "b"
    with override_settings(STORAGE_TEMP_DIR=kind(temp), STORAGE_FINAL_DIR=kind(final)):
        assert areas(get_storage_adapter(), tmp_path) == (temp, final)


@pytest.mark.parametrize("flat", [{}, {"STORAGE_BACKEND": "", "STORAGE_TEMP_DIR": ""}])
def test_default_is_below_base_dir(tmp_path, flat):
    with override_settings(BASE_DIR=str(tmp_path), **flat):
        root = tmp_path / "var" / "storage"
        assert areas(get_storage_adapter(), tmp_path) == (root / "temp", root / "final")


def test_dictionary(tmp_path):
    with override_settings(STORAGE_ADAPTERS=local(tmp_path, bucket="b") | {"scratch": MEMORY}):
        assert get_storage_adapter().bucket == "b"
        assert isinstance(get_storage_adapter("scratch"), MemoryStorageAdapter)
        assert get_storage_adapter() is not get_storage_adapter("scratch")


def test_the_adapter_of_a_bucket(tmp_path):
    scratch = MEMORY | {"OPTIONS": {"bucket": "scratch"}}
    known = local(tmp_path, bucket="b") | {"scratch": scratch, "broken": {"BACKEND": "no.such.Adapter"}}
    with override_settings(STORAGE_ADAPTERS=known):
        for _ in range(2):
            assert get_storage_adapter(bucket="b") is get_storage_adapter()
            assert get_storage_adapter(bucket="scratch") is get_storage_adapter("scratch")
        assert get_storage_adapter(bucket="scratch").put_final("a", b"x").bucket == "scratch"
        with pytest.raises(ImproperlyConfigured, match=r"'uploads'.*'b', 'scratch'"):
            get_storage_adapter(bucket="uploads")
        with pytest.raises(ImproperlyConfigured, match=r"'scratsh'.*'scratch'"):
            get_storage_adapter(bucket="scratsh")
        for bad in (5, b"b", ["b"]):
            with pytest.raises(TypeError):
                get_storage_adapter(bucket=bad)
        with pytest.raises(TypeError):
            get_storage_adapter("scratch", bucket="scratch")
    moved = local(tmp_path / "x", bucket="scratch")["default"]
    with override_settings(STORAGE_ADAPTERS=known | {"scratch": moved}):
        assert isinstance(get_storage_adapter(bucket="scratch"), LocalStorageAdapter)
    twice = override_settings(STORAGE_ADAPTERS={"default": MEMORY, "other": MEMORY})
    with twice, pytest.raises(ImproperlyConfigured, match="'default' and 'other'"):
        get_storage_adapter(bucket="memory")
    own = {"BACKEND": f"{__name__}.Directories", "OPTIONS": {"temp_dir": "/nowhere/a", "final_dir": "/nowhere/b"}}
    with override_settings(STORAGE_ADAPTERS={"default": MEMORY, "other": own}):
        assert get_storage_adapter(bucket="local") is get_storage_adapter("other")


class Twice(MemoryStorageAdapter):
    """An adapter that is made of another one."""

    def __init__(self):
        super().__init__(bucket="twice")
        self.other = get_storage_adapter("other")


def test_an_adapter_that_looks_another_one_up():
    with override_settings(STORAGE_ADAPTERS={"default": {"BACKEND": f"{__name__}.Twice"}, "other": MEMORY}):
        assert get_storage_adapter().other is get_storage_adapter("other")


def test_own_adapter():
    own = {"BACKEND": f"{__name__}.Custom", "OPTIONS": {"colour": "blue"}}
    with override_settings(STORAGE_ADAPTERS={"default": own}):
        assert get_storage_adapter().colour == "blue"
    with override_settings(STORAGE_BACKEND=f"{__name__}.Custom"):
        assert get_storage_adapter().colour == "red"


def test_aws_names_may_stand_beside_the_dictionary():
    names = {"AWS_ACCESS_KEY_ID": "k", "AWS_STORAGE_BUCKET_NAME": "b"}
    with override_settings(STORAGE_ADAPTERS={"default": MEMORY}, **names):
        assert isinstance(get_storage_adapter(), MemoryStorageAdapter)


def test_the_memory_budget_is_that_of_the_last_adapter_to_open():
    def budget():
        get_storage_adapter().put_final("a", b"x")
        return native.stats()["budget"]

    with override_settings(STORAGE_ADAPTERS={"default": MEMORY}):
        assert budget() == 64 * 2**20
        with override_settings(STORAGE_MEMORY_BUDGET=100 * 2**20):
            assert budget() == 100 * 2**20
        with override_settings(STORAGE_MEMORY_BUDGET=""):
            assert budget() == 64 * 2**20
        for wrong in (2**24 - 1, "67108864", 1e8, True):
            with (
                override_settings(STORAGE_MEMORY_BUDGET=wrong),
                pytest.raises(ImproperlyConfigured, match="STORAGE_MEMORY_BUDGET"),
            ):
                get_storage_adapter()


def test_a_memory_budget_of_an_adapter_made_by_hand():
    with override_settings(STORAGE_MEMORY_BUDGET=32 * 2**20), contextlib.closing(MemoryStorageAdapter()) as adapter:
        adapter.put_final("a", b"x")
        assert native.stats()["budget"] == 32 * 2**20


@pytest.mark.parametrize("backend", ["s3", "storage.S3StorageAdapter", f"{__name__}.Bucket"])
def test_flat_names_of_s3(backend):
    with override_settings(STORAGE_BACKEND=backend, **AWS):
        found = connected(get_storage_adapter())
    expected = {
        "bucket_name": "uploads",
        "endpoint_url": "https://s3.example.com",
        "region_name": "eu-central-1",
        "access_key": "AKID",
        "secret_key": "secret",
        "security_token": "token",
        "addressing_style": "path",
        "temp": "parts/",
        "final": "objects/",
        "verify": True,
    }
    assert {name: found[name] for name in expected} == expected


def test_empty_strings_are_unset(monkeypatch):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    empty = dict.fromkeys([*AWS, "AWS_S3_VERIFY", "STORAGE_TEMP_DIR", "AWS_S3_ACCESS_KEY_ID"], "")
    with override_settings(STORAGE_BACKEND="s3", **empty | {"AWS_STORAGE_BUCKET_NAME": "b"}):
        found = connected(get_storage_adapter())
    with override_settings(**s3(bucket_name="b", temp_prefix="", access_key="", verify="", addressing_style="")):
        assert connected(get_storage_adapter()) == found
    assert (found["temp"], found["final"], found["access_key"], found["verify"]) == ("temp/", "final/", "", True)
    assert found["addressing_style"] == "auto" and found["ca_bundle"] == ""


@pytest.mark.parametrize(
    ("verify", "expected"),
    [
        (True, (True, "/env.pem")),
        (False, (False, "/env.pem")),
        (None, (True, "/env.pem")),
        ("/ca.pem", (True, "/ca.pem")),
        (Path("/ca.pem"), (True, "/ca.pem")),
    ],
)
def test_verify(monkeypatch, verify, expected):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/env.pem")
    with override_settings(STORAGE_BACKEND="s3", AWS_STORAGE_BUCKET_NAME="b", AWS_S3_VERIFY=verify):
        found = connected(get_storage_adapter())
    assert (found["verify"], found["ca_bundle"]) == expected


def test_subclasses_get_the_flat_names_of_their_base(tmp_path):
    flat = {"STORAGE_TEMP_DIR": tmp_path / "a", "STORAGE_FINAL_DIR": tmp_path / "b"}
    with override_settings(STORAGE_BACKEND=f"{__name__}.Directories", **flat):
        adapter = get_storage_adapter()
        assert isinstance(adapter, Directories)
        assert areas(adapter, tmp_path) == (tmp_path / "a", tmp_path / "b")
    with override_settings(STORAGE_BACKEND=f"{__name__}.Elsewhere", BASE_DIR=tmp_path, **flat):
        assert get_storage_adapter().directories == (str(tmp_path / "b-parts"), str(tmp_path / "b"))
    with override_settings(STORAGE_BACKEND=f"{__name__}.Directories", BASE_DIR=tmp_path):
        assert get_storage_adapter().directories[0] == str(tmp_path / "var" / "storage" / "temp")


DEFAULT = "STORAGE_ADAPTERS['default']"
# Settings, and what the message must name.
WRONG = {
    "no bucket": ({"STORAGE_BACKEND": "s3"}, ["set AWS_STORAGE_BUCKET_NAME"]),
    "no bucket of a subclass": ({"STORAGE_BACKEND": f"{__name__}.Bucket"}, ["bucket_name"]),
    "half a key": ({"STORAGE_BACKEND": "s3", **AWS, "AWS_ACCESS_KEY_ID": ""}, ["AWS_ACCESS_KEY_ID"]),
    "endpoint": ({"STORAGE_BACKEND": "s3", **AWS, "AWS_S3_ENDPOINT_URL": "s3.example.com"}, ["https://"]),
    "credentials in the endpoint": (s3(bucket_name="b", endpoint_url="https://u:secret@h"), ["no credentials"]),
    "style": (
        {"STORAGE_BACKEND": "s3", **AWS, "AWS_S3_ADDRESSING_STYLE": "paths"},
        ["AWS_S3_ADDRESSING_STYLE", "'path'"],
    ),
    "text for a boolean": ({"STORAGE_BACKEND": "s3", **AWS, "AWS_S3_VERIFY": "False"}, ["AWS_S3_VERIFY", "'False'"]),
    "a number for a boolean": ({"STORAGE_BACKEND": "s3", **AWS, "AWS_S3_VERIFY": 0}, ["AWS_S3_VERIFY"]),
    "overlapping prefixes": (
        s3(bucket_name="b", temp_prefix="a", final_prefix="a/"),
        ["['temp_prefix']", "['final_prefix']"],
    ),
    "another key": (
        {"STORAGE_BACKEND": "s3", "AWS_STORAGE_BUCKET_NAME": "b", "AWS_S3_ACCESS_KEY_ID": "secret"},
        ["AWS_S3_ACCESS_KEY_ID", "set AWS_ACCESS_KEY_ID"],
    ),
    "another secret": (
        {"STORAGE_BACKEND": "s3", "AWS_STORAGE_BUCKET_NAME": "b", "AWS_S3_SECRET_ACCESS_KEY": "secret"},
        ["AWS_S3_SECRET_ACCESS_KEY", "set AWS_SECRET_ACCESS_KEY"],
    ),
    "a profile": (
        {"STORAGE_BACKEND": "s3", "AWS_STORAGE_BUCKET_NAME": "b", "AWS_S3_SESSION_PROFILE": "secret"},
        ["AWS_S3_SESSION_PROFILE", "AWS_PROFILE"],
    ),
    "prefixes on this machine": ({"STORAGE_TEMP_PREFIX": "a", "BASE_DIR": "/srv"}, ["STORAGE_TEMP_PREFIX", "'s3'"]),
    "location": (s3(bucket_name="b", location="a"), ["'location'", "temp_prefix"]),
    "custom_domain": (s3(bucket_name="b", custom_domain="a"), ["'custom_domain'", "public_endpoint_url"]),
    "default_acl": (s3(bucket_name="b", default_acl="a"), ["'default_acl'", "policy"]),
    "file_overwrite": (s3(bucket_name="b", file_overwrite=False), ["'file_overwrite'", "overwrite="]),
    "querystring_auth": (s3(bucket_name="b", querystring_auth=False), ["'querystring_auth'", "url_final"]),
    "misspelt": (s3(bucket_nam="b"), ["'bucket_nam'", "'bucket_name'"]),
    "unnamed bucket": (s3(region_name="eu"), [DEFAULT, "'bucket_name'"]),
    "another location": (
        {"STORAGE_ADAPTERS": {"default": {"BACKEND": LOCAL, "OPTIONS": {"location": "/srv/secret"}}}},
        ["'location'", "temp_dir"],
    ),
    "short name": ({"STORAGE_BACKEND": "lokal"}, ["STORAGE_BACKEND", "'lokal'", "'local'"]),
    "missing module": ({"STORAGE_BACKEND": "nowhere.Adapter"}, ["nowhere.Adapter"]),
    "no adapter": ({"STORAGE_BACKEND": "pathlib.Path"}, ["pathlib.Path", "StorageAdapter"]),
    "no place": ({}, ["STORAGE_TEMP_DIR", "BASE_DIR"]),
    "a base that is no path": ({"BASE_DIR": 5}, ["BASE_DIR"]),
    "a directory that is no path": ({"BASE_DIR": "/srv", "STORAGE_TEMP_DIR": 5}, ["STORAGE_TEMP_DIR"]),
    "equal areas": (
        {"STORAGE_TEMP_DIR": "/srv/secret", "STORAGE_FINAL_DIR": "/srv/secret/"},
        ["STORAGE_TEMP_DIR", "STORAGE_FINAL_DIR"],
    ),
    "both styles": (
        {"STORAGE_ADAPTERS": {"default": MEMORY}, "STORAGE_TEMP_DIR": "/srv/secret"},
        ["STORAGE_ADAPTERS", "STORAGE_TEMP_DIR"],
    ),
    "no dictionary": ({"STORAGE_ADAPTERS": [MEMORY]}, ["STORAGE_ADAPTERS"]),
    "no entry": ({"STORAGE_ADAPTERS": {"default": LOCAL}}, [DEFAULT, "BACKEND"]),
    "no backend": ({"STORAGE_ADAPTERS": {"default": {}}}, [DEFAULT, "BACKEND"]),
    "unknown key": (
        {"STORAGE_ADAPTERS": {"default": MEMORY | {"OPTION": {}}}},
        [DEFAULT, "'OPTION'", "'OPTIONS'"],
    ),
    "unknown option": (
        {"STORAGE_ADAPTERS": local(Path("/srv/secret"), durabel=True)},
        [DEFAULT, "'durabel'", "'durable'"],
    ),
    "missing option": (
        {"STORAGE_ADAPTERS": {"default": {"BACKEND": LOCAL, "OPTIONS": {"temp_dir": "/srv/secret"}}}},
        [DEFAULT, "'final_dir'"],
    ),
    "mode": ({"STORAGE_ADAPTERS": local(Path("/srv/secret"), file_mode="0640")}, ["file_mode"]),
    "text for durable": ({"STORAGE_ADAPTERS": local(Path("/srv/secret"), durable="False")}, ["durable"]),
    "conditional writes": (s3(bucket_name="b", conditional_writes="never"), ["conditional_writes", "'look'"]),
    "text for equal parts": (s3(bucket_name="b", equal_parts="False"), ["equal_parts", "values.BooleanValue"]),
    "text for a number": ({"STORAGE_BACKEND": "s3", **AWS, "STORAGE_PART_SIZE": "9000000"}, ["values.IntegerValue"]),
    "text for a time": ({"STORAGE_BACKEND": "s3", **AWS, "STORAGE_READ_TIMEOUT": "5"}, ["values.FloatValue"]),
    "unknown alias": ({"STORAGE_ADAPTERS": {"defualt": MEMORY}}, ["'default'", "'defualt'"]),
    "alias that is no text": ({"STORAGE_ADAPTERS": {1: MEMORY}}, ["no alias 'default'", "there are 1"]),
}


# Flat names with what cannot be their value, and what the message must say besides the two names of the option.
IMPOSSIBLE = {
    "AWS_ACCESS_KEY_ID": ["secret\n", " secret", "secret\r\n", "sec\0ret", "secr\u00e9t", 5, b"secret"],
    "AWS_SECRET_ACCESS_KEY": ["secret\n", " secret", "secret\t", "\u00a0secret", "sec\nret", 5],
    "AWS_SESSION_TOKEN": ["secret\n", "secret ", "sec\x7fret", "secr\u00e9t", 5],
    "AWS_S3_REGION_NAME": [
        "eu-central-1\n",
        " eu-central-1",
        "eu central",
        "EU",
        "eu/1",
        "eu_1",
        "\u00e9",
        "a" * 64,
        5,
    ],
    "AWS_S3_ENDPOINT_URL": [
        *(
            f"http://h{bad}"
            for bad in ("\n", " ", ":99999", ":abc", ":0", ":-1", ":65536", "?a=b", "#a", "/\n", "\u00e9")
        ),
        *(
            f"http://{bad}"
            for bad in ("", ":9000", "[::1", "a b", "a\nb", "a,b", "u:secret@h", "secret@h", "[1", "h\\x")
        ),
        " http://h",
        "//h",
        "ftp://h",
        "h:9000",
        5,
    ],
    "AWS_STORAGE_BUCKET_NAME": [
        "b\n",
        " b",
        "b ",
        "a b",
        "a/b",
        "/",
        "b?x",
        "b#x",
        "\u00e9",
        "a\0b",
        ".",
        "..",
        "a" * 256,
        5,
    ],
    "STORAGE_TEMP_PREFIX": ["temp\n", " temp", "temp ", "te\nmp", "/temp", "a//b", "../a", "a\\b", "/", 5],
    "STORAGE_FINAL_PREFIX": ["final\n", "a/./b", "x" * 124],
    "STORAGE_CONDITIONAL_WRITES": ["LOOK", "look\n", True],
    "STORAGE_PUBLIC_ENDPOINT_URL": ["s3.example.com", "ftp://x", "https://user:pw@x", "https://x/?a=b", 5],
    "STORAGE_MAX_CONNECTIONS": [0, -1, 257, 1.5, "16", True],
}
OPTION = {name: option for names in conf.FLAT.values() for name, option in names.items()}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_is_refused_with_the_names_of_the_setting(name):
    """By an adapter made by hand, by its alias, and by `manage.py check`."""
    for bad in IMPOSSIBLE[name]:
        with override_settings(STORAGE_BACKEND="s3", **AWS | {name: bad}):
            with pytest.raises(ImproperlyConfigured) as caught:
                get_storage_adapter()
            (said,) = check_settings()
        with pytest.raises(ImproperlyConfigured) as by_hand:
            S3StorageAdapter(**{"bucket_name": "b", "access_key": "k", "secret_key": "k", OPTION[name]: bad})
        dictionary = s3(**{"bucket_name": "b", "access_key": "k", "secret_key": "k", OPTION[name]: bad})
        with override_settings(**dictionary), pytest.raises(ImproperlyConfigured) as in_dictionary:
            get_storage_adapter()
        written = {name: caught, f"{DEFAULT}['OPTIONS'][{OPTION[name]!r}]": in_dictionary, OPTION[name]: by_hand}
        for words, error in written.items():
            assert str(error.value).startswith(words), (bad, str(error.value))
            assert "secret" not in str(error.value).replace("secret_key", ""), (bad, str(error.value))
        assert f"{caught.value}." == said.msg and said.id == "storage.E003"


BY_HAND = {
    "proxy": [
        "http://h:99999",
        "http://h:0",
        "http://h:abc",
        "h:3128",
        "ftp://h",
        "http://",
        "http://h\n",
        " http://h",
        5,
    ],
    "ca_bundle": [5, 0, True, b"secret", "a\0"],
    "server_side_encryption": ["AES256\n", "a\0", "\u00e9", 5],
    "kms_key_id": ["key\n", "\u00e9"],
    "storage_class": ["STANDARD\r\nX: y", " a"],
    "connect_timeout": [math.nan, math.inf, 0, -1, "5", True],
    "read_timeout": [math.nan, math.inf, 0, -1, "5", True],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_options_without_a_flat_name(name):
    for bad in BY_HAND[name]:
        with pytest.raises(ImproperlyConfigured, match=name):
            S3StorageAdapter(**{"bucket_name": "b", name: bad})


@pytest.mark.parametrize("bad", ["", "b\n", " b", "b ", "a\\b", "..", 5, None])
def test_the_bucket_of_a_disk(tmp_path, bad):
    with pytest.raises(ImproperlyConfigured, match="bucket"):
        LocalStorageAdapter(temp_dir=tmp_path / "a", final_dir=tmp_path / "b", bucket=bad)


@pytest.mark.parametrize("name", ["temp_dir", "final_dir"])
@pytest.mark.parametrize("bad", [None, 5, True, b"a", "", "a\0", object()])
def test_the_directories_of_a_disk(tmp_path, name, bad):
    with pytest.raises(ImproperlyConfigured, match=name):
        LocalStorageAdapter(**{"temp_dir": tmp_path / "a", "final_dir": tmp_path / "b", name: bad})


def test_a_working_directory_that_is_gone(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    with pytest.raises(ImproperlyConfigured, match=r"temp_dir .* working directory"):
        LocalStorageAdapter(temp_dir="a", final_dir="b")
    LocalStorageAdapter(temp_dir=tmp_path / "a", final_dir=tmp_path / "b")


def test_certificates_in_a_home_that_nobody_has(monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "~no such user/ca.pem")
    with pytest.raises(ImproperlyConfigured, match="ca_bundle"):
        S3StorageAdapter(bucket_name="b", access_key="AK", secret_key="k").stores()


def test_what_stores_really_have():
    for option, values in {
        "bucket_name": ["b", "uploads", "my.bucket-1", "Old_Bucket", "tenant:bucket", "a" * 255],
        "region_name": ["eu-central-1", "auto", "gra", "us-gov-west-1", None],
        "endpoint_url": [
            "https://s3.example.com/",
            "http://localhost:9000",
            "http://[::1]:9000",
            "http://10.0.0.1:65535/base/path",
            "http://my_minio:9000",
            "HTTPS://S3.example.com",
            None,
        ],
        "proxy": ["http://user:pass@proxy:3128", "socks5://10.0.0.1:1080", "https://proxy", None],
        "conditional_writes": ["required", "look"],
        "storage_class": ["STANDARD_IA", None],
    }.items():
        for value in values:
            made = S3StorageAdapter(**{"bucket_name": "b", option: value})
            assert made._configurations()[1][option] == (value or "").removesuffix("/")
    for number in (1, 16, 256):
        assert connected(S3StorageAdapter(bucket_name="b", max_connections=number))["max_connections"] == number
    assert connected(S3StorageAdapter(bucket_name="b"))["max_connections"] == 16
    with override_settings(STORAGE_BACKEND="s3", STORAGE_MAX_CONNECTIONS=3, **AWS):
        assert connected(get_storage_adapter())["max_connections"] == 3
    assert connected(S3StorageAdapter(bucket_name="b"))["conditional_writes"] == "required"
    with override_settings(STORAGE_BACKEND="s3", STORAGE_CONDITIONAL_WRITES="look", **AWS):
        assert connected(get_storage_adapter())["conditional_writes"] == "look"


# ---- copies, pickles, and what error reports show


def hand_made(tmp_path):
    return [
        LocalStorageAdapter(temp_dir=tmp_path / "t", final_dir=tmp_path / "f"),
        MemoryStorageAdapter(),
        S3StorageAdapter(bucket_name="b", access_key="AKID", secret_key="hidden"),
    ]


def test_a_copy_is_the_same_adapter(tmp_path):
    for adapter in hand_made(tmp_path):
        for make in (copy.copy, copy.deepcopy, lambda adapter: copy.deepcopy([adapter])[0]):
            assert make(adapter) is adapter
    adapter = hand_made(tmp_path)[0]
    final = adapter.put_final("a", b"x")
    copy.copy(adapter)
    copy.deepcopy({"a": adapter})
    gc.collect()
    assert adapter.stat_final(final) == final
    adapter.close()


def test_a_pickle_is_the_alias(tmp_path):
    for adapter in hand_made(tmp_path):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="STORAGE_ADAPTERS"):
                pickle.dumps(adapter, protocol)
    scratch = {"BACKEND": f"{__name__}.Custom"}
    secret = s3(bucket_name="b", access_key="AKID", secret_key="hidden")["STORAGE_ADAPTERS"]
    with override_settings(STORAGE_ADAPTERS=secret | {"scratch": scratch}):
        for alias in ("default", "scratch"):
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                pickled = pickle.dumps(get_storage_adapter(alias), protocol)
                assert pickle.loads(pickled) is get_storage_adapter(alias)
                assert b"hidden" not in pickled and b"AKID" not in pickled


def test_an_adapter_in_another_process(tmp_path):
    """It works on its own store there, whatever else is open."""
    with override_settings(STORAGE_ADAPTERS=local(tmp_path) | {"second": local(tmp_path / "second")["default"]}):
        second = get_storage_adapter("second")
        second.put_final("here", b"x")
        (tmp_path / "pickle").write_bytes(pickle.dumps(second))
        second.close()
        get_storage_adapter().close()
    code = (
        "import pathlib, pickle, sys\n"
        "from django.conf import settings\n"
        "root = pathlib.Path('.')\n"
        "def areas(root): return {'BACKEND': 'storage.LocalStorageAdapter',"
        " 'OPTIONS': {'temp_dir': root / 'a', 'final_dir': root / 'b'}}\n"
        "settings.configure(STORAGE_ADAPTERS={'default': areas(root), 'second': areas(root / 'second')})\n"
        "from storage import get_storage_adapter\n"
        "get_storage_adapter().put_final('first', b'x')\n"
        "pickle.loads(pathlib.Path('pickle').read_bytes()).put_final('there', b'x')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    assert sorted(path.name for path in (tmp_path / "second" / "b").iterdir() if path.is_file()) == ["here", "there"]
    assert sorted(path.name for path in (tmp_path / "b").iterdir() if path.is_file()) == ["first"]


HIDDEN = "".join(map(chr, (90, 83, 69, 67, 82, 69, 84, 90)))  # a literal would stand in the source that reports show


def shown(error):
    """What Django's reports, and those that print the variables of frames, show of an error, from our frames on."""
    ours = error.__traceback__
    while not ours.tb_frame.f_code.co_filename.startswith(str(Path(conf.__file__).parent)):
        ours = ours.tb_next
    django = ExceptionReporter(None, type(error), error, ours).get_traceback_frames()
    captured = traceback.TracebackException(type(error), error, ours, capture_locals=True)
    assert django and captured.stack
    return f"{[frame['vars'] for frame in django]} {[frame.locals for frame in captured.stack]} {error} {error!r}"


# Each is an option that cannot be, or a failure at the first use.
REPORTED = {
    "an option": {"region_name": "EU"},
    "its end": {"secret_key": HIDDEN + "\n"},
    "the token": {"security_token": HIDDEN + "\n"},
    "half": {"access_key": ""},
    "an unknown option": {"regoin_name": "eu"},
    "the endpoint": {"endpoint_url": f"http://u:{HIDDEN}@h"},
    "the port of an endpoint": {"endpoint_url": f"http://u:{HIDDEN}@h:99999"},
    "the proxy": {"proxy": f"http://u:{HIDDEN}@h:99999"},
    "the first use": {"ca_bundle": "/nonexistent.pem"},
    "a server that is not there": {"max_attempts": 1},
}


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("name", REPORTED)
def test_no_report_shows_a_secret(name, debug, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", HIDDEN)
    given = {
        "bucket_name": "b",
        "access_key": "AKID",
        "secret_key": HIDDEN,
        "endpoint_url": "http://127.0.0.1:1",
        **REPORTED[name],
    }
    flat = {
        "STORAGE_BACKEND": "s3",
        **{flat: given.pop(option) for flat, option in conf.FLAT["s3"].items() if option in given},
    }
    by_alias = [
        s3(
            **{
                conf.FLAT["s3"].get(key, key): value
                for key, value in {**given, **flat}.items()
                if key != "STORAGE_BACKEND"
            }
        )
    ]
    if not given:
        by_alias.append(flat)
    for values in by_alias:
        with override_settings(DEBUG=debug, ROOT_URLCONF=__name__, **values):
            with pytest.raises((ImproperlyConfigured, StorageError)) as caught:
                get_storage_adapter().check_health()
            assert HIDDEN not in shown(caught.value)


def test_values_that_mask_themselves():
    adapter = S3StorageAdapter(bucket_name="b", access_key="AKIDAKID", secret_key=HIDDEN, security_token=HIDDEN)
    for text in (repr(adapter), str(adapter), repr(vars(adapter)), f"{adapter._configurations()!r}"):
        assert HIDDEN not in text and "AKIDAKID" not in text
    assert connected(adapter)["secret_key"] == HIDDEN


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_named(name):
    values, expected = WRONG[name]
    with override_settings(**values), pytest.raises(ImproperlyConfigured) as caught:
        get_storage_adapter()
    missing = [word for word in expected if word not in str(caught.value)]
    assert not missing, str(caught.value)
    assert "secret" not in str(caught.value).replace("secret_key", "")


def test_both_spellings_of_a_key_may_be_set():
    """django-storages reads the one, this package the other."""
    both = AWS | {"AWS_S3_ACCESS_KEY_ID": "x", "AWS_S3_SECRET_ACCESS_KEY": "y", "AWS_S3_SESSION_PROFILE": "z"}
    with override_settings(STORAGE_BACKEND="s3", **both):
        assert connected(get_storage_adapter())["access_key"] == "AKID"


def test_prefixes_may_wait_for_s3(tmp_path):
    """One settings module for both backends."""
    flat = {"STORAGE_TEMP_DIR": tmp_path / "a", "STORAGE_FINAL_DIR": tmp_path / "b"}
    for backend, kind in (("local", LocalStorageAdapter), ("s3", S3StorageAdapter), ("memory", MemoryStorageAdapter)):
        with override_settings(STORAGE_BACKEND=backend, **AWS, **flat):
            assert isinstance(get_storage_adapter(), kind)


def test_one_instance_in_all_threads():
    with override_settings(STORAGE_BACKEND="memory"):
        found = []
        threads = [threading.Thread(target=lambda: found.append(get_storage_adapter())) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, found))) == 1 and len(found) == 16


def test_settings_are_followed(tmp_path):
    with override_settings(STORAGE_BACKEND="memory"):
        first = get_storage_adapter()
        with override_settings(STORAGE_BACKEND="", BASE_DIR=tmp_path):
            assert isinstance(get_storage_adapter(), LocalStorageAdapter)
        with override_settings(USE_I18N=False):
            pass
        second = get_storage_adapter()
        assert second is not first and isinstance(second, MemoryStorageAdapter)
        with override_settings(USE_I18N=False):
            assert get_storage_adapter() is second


def test_a_closed_adapter_is_replaced():
    with override_settings(STORAGE_BACKEND="memory"):
        closed = get_storage_adapter()
        closed.close()
        with pytest.raises(StorageError) as caught:
            closed.put_final("a", b"")
        assert caught.value.code == "closed"
        assert get_storage_adapter() is not closed
        get_storage_adapter().put_final("a", b"")


def test_constructors_take_keywords_only_and_show_no_path(tmp_path):
    with pytest.raises(TypeError):
        LocalStorageAdapter(tmp_path / "a", tmp_path / "b")
    adapter = LocalStorageAdapter(temp_dir=tmp_path / "a", final_dir=tmp_path / "b")
    assert str(tmp_path) not in repr(adapter) and "local" in repr(adapter)


def test_areas_that_overlap_later(tmp_path):
    """A symbolic link that appears after the adapter was made."""
    adapter = LocalStorageAdapter(temp_dir=tmp_path / "a", final_dir=tmp_path / "b")
    (tmp_path / "b").mkdir()
    (tmp_path / "a").symlink_to("b")
    for call in (adapter.check_health, lambda: adapter.put_final("x", b"")):
        with pytest.raises(ImproperlyConfigured) as caught:
            call()
        assert str(tmp_path) not in str(caught.value)


@django_configurations
def test_django_configurations_of_s3(tmp_path):
    (tmp_path / "example_conf.py").write_text(
        "from configurations import Configuration, values\n"
        "class Base(Configuration):\n"
        "    SECRET_KEY = 'x'\n"
        "    STORAGE_BACKEND = values.Value('', environ_name='STORAGE_BACKEND', environ_prefix=None)\n"
        "    AWS_STORAGE_BUCKET_NAME = values.Value('', environ_name='BUCKET', environ_prefix=None)\n"
        "    AWS_S3_ENDPOINT_URL = values.Value('', environ_name='ENDPOINT', environ_prefix=None)\n"
        "    AWS_ACCESS_KEY_ID = values.Value('', environ_name='KEY', environ_prefix=None)\n"
        "    AWS_SECRET_ACCESS_KEY = values.Value('', environ_name='SECRET', environ_prefix=None)\n"
    )
    code = (
        "import os, sys; sys.path.insert(0, '.')\n"
        "os.environ |= {'DJANGO_SETTINGS_MODULE': 'example_conf', 'DJANGO_CONFIGURATION': 'Base',"
        " 'STORAGE_BACKEND': 's3', 'BUCKET': 'b'}\n"
        "import configurations; configurations.setup()\n"
        "from storage import get_storage_adapter\n"
        "adapter = get_storage_adapter()\n"
        "assert (adapter.backend, adapter.bucket) == ('s3', 'b')\n"
        "assert not any(adapter._options[n] for n in ('endpoint_url', 'access_key', 'secret_key'))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


@django_configurations
def test_django_configurations(tmp_path):
    (tmp_path / "example_conf.py").write_text(
        "from configurations import Configuration, values\n"
        "class Base(Configuration):\n"
        "    SECRET_KEY = 'x'\n"
        "    INSTALLED_APPS = ['storage']\n"
        "    STORAGE_BACKEND = values.Value('', environ_prefix=None)\n"
        "    STORAGE_TEMP_DIR = values.PathValue('a', environ_prefix=None, check_exists=False)\n"
        "    STORAGE_FINAL_DIR = values.Value('b', environ_prefix=None)\n"
    )
    code = (
        "import os, sys; sys.path.insert(0, '.')\n"
        "os.environ |= {'DJANGO_SETTINGS_MODULE': 'example_conf', 'DJANGO_CONFIGURATION': 'Base',"
        " 'STORAGE_FINAL_DIR': 'c'}\n"
        "import configurations; configurations.setup()\n"
        "from storage import get_storage_adapter\n"
        "get_storage_adapter().put_final('x', b'y')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "c" / "x").read_bytes() == b"y"


@pytest.mark.parametrize("backend", ["local", "memory", "s3"])
def test_the_digest_is_not_carried_if_one_says_so(backend, tmp_path):
    places = {"BASE_DIR": tmp_path, "AWS_STORAGE_BUCKET_NAME": "b" if backend == "s3" else ""}
    with override_settings(STORAGE_BACKEND=backend, **places):
        assert get_storage_adapter().carry_digest
        with override_settings(STORAGE_CARRY_DIGEST=False):
            assert not get_storage_adapter().carry_digest
            assert conf.unread() == []
        with override_settings(STORAGE_CARRY_DIGEST="False"), pytest.raises(ImproperlyConfigured, match="CARRY_DIGEST"):
            get_storage_adapter()
