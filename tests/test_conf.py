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
    StorageError,
    get_storage_adapter,
)

LOCAL = "storage.LocalStorageAdapter"
MEMORY = {"BACKEND": "storage.MemoryStorageAdapter"}


class Custom(MemoryStorageAdapter):
    """A project's own adapter."""

    def __init__(self, *, colour="red"):
        super().__init__()
        self.colour = colour


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


DEFAULT = "STORAGE_ADAPTERS['default']"
# Settings, and what the message must name.
WRONG = {
    "s3": ({"STORAGE_BACKEND": "s3"}, ["STORAGE_BACKEND", "'local'", "'memory'"]),
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
    assert "secret" not in str(caught.value)


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
