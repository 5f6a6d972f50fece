"""System checks: each says which setting is wrong and what to do."""

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


# Settings, the check that speaks, and what it must name.
FOUND = {
    "both styles": (FLAT | entry(**APART), "E001", ["STORAGE_ADAPTERS", "STORAGE_TEMP_DIR"]),
    "no shape": ({"STORAGE_ADAPTERS": ["x"]}, "E001", ["STORAGE_ADAPTERS"]),
    "no place": ({}, "E001", ["STORAGE_TEMP_DIR", "BASE_DIR"]),
    "s3": ({"STORAGE_BACKEND": "s3"}, "E001", ["STORAGE_BACKEND"]),
    "import": ({"STORAGE_BACKEND": "no.such.Adapter"}, "E002", ["no.such.Adapter"]),
    "no adapter": (entry("pathlib.Path"), "E002", ["pathlib.Path", "STORAGE_ADAPTERS"]),
    "option": (entry(**APART, bukket="b"), "E003", ["STORAGE_ADAPTERS", "bukket", "'bucket'"]),
    "overlap": (
        {"STORAGE_TEMP_DIR": "/nowhere", "STORAGE_FINAL_DIR": "/nowhere/b"},
        "E003",
        ["STORAGE_TEMP_DIR", "STORAGE_FINAL_DIR"],
    ),
    "mode": (entry(**APART, directory_mode="0750"), "E003", ["directory_mode"]),
    "default place": ({"BASE_DIR": Path("/nowhere")}, "W001", ["STORAGE_TEMP_DIR"]),
    "memory": ({"STORAGE_BACKEND": "memory"}, "W002", ["memory", "STORAGE_BACKEND"]),
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


@pytest.mark.parametrize("name", [name for name in FOUND if FOUND[name][1].startswith("W")])
def test_no_warnings_while_debugging(name):
    with override_settings(DEBUG=True, **FOUND[name][0]):
        assert check_settings() == []


@pytest.mark.parametrize("values", [FLAT, entry(**APART), entry("test_conf.Custom", colour="red")])
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
    with override_settings(STORAGE_BACKEND="s3"):
        assert "storage.E001" in {message.id for message in run_checks()}
