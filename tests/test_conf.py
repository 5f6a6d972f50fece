"""From settings to adapters."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from storage import (
    LocalStorageAdapter,
    MemoryStorageAdapter,
    S3StorageAdapter,
    StorageError,
    conf,
    get_storage_adapter,
)

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
    "style": ({"STORAGE_BACKEND": "s3", **AWS, "AWS_S3_ADDRESSING_STYLE": "paths"}, ["addressing_style", "'path'"]),
    "text for a boolean": ({"STORAGE_BACKEND": "s3", **AWS, "AWS_S3_VERIFY": "False"}, ["AWS_S3_VERIFY", "'False'"]),
    "a number for a boolean": ({"STORAGE_BACKEND": "s3", **AWS, "AWS_S3_VERIFY": 0}, ["AWS_S3_VERIFY"]),
    "overlapping prefixes": (s3(bucket_name="b", temp_prefix="a", final_prefix="a/"), ["STORAGE_TEMP_PREFIX"]),
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
    "custom_domain": (s3(bucket_name="b", custom_domain="a"), ["'custom_domain'", "get_final_stream"]),
    "default_acl": (s3(bucket_name="b", default_acl="a"), ["'default_acl'", "policy"]),
    "file_overwrite": (s3(bucket_name="b", file_overwrite=False), ["'file_overwrite'", "overwrite="]),
    "querystring_auth": (s3(bucket_name="b", querystring_auth=False), ["'querystring_auth'", "get_final_stream"]),
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
    "unknown alias": ({"STORAGE_ADAPTERS": {"defualt": MEMORY}}, ["'default'", "'defualt'"]),
}


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
