"""The docstrings of what users call tell every parameter, each in double backquotes.

Public is what `storage` exports, what a module of it lists in `__all__`, and the functions below. An asynchronous twin
may name its twin instead. An override without a docstring of its own has that of its base class.
"""

import importlib
import inspect
import pkgutil
import re
import sys

import pytest

import storage

BESIDE = {"storage.sweep": ["sweep"], "storage.doctor": ["examine", "describe"]}


def modules():
    yield storage
    for found in pkgutil.walk_packages(storage.__path__, "storage."):
        inside = found.name.split(".")[1:]
        if not any(name.startswith("_") or name in ("management", "admin", "migrations") for name in inside):
            yield importlib.import_module(found.name)


def callables():
    """The public functions, constructors and methods by their dotted names."""
    for module in modules():
        for name in [*getattr(module, "__all__", []), *BESIDE.get(module.__name__, [])]:
            found = getattr(module, name)
            if inspect.isclass(found):
                yield from methods(f"{module.__name__}.{name}", found)
            elif inspect.isfunction(found):
                yield f"{module.__name__}.{name}", found, None


def methods(name, found):
    """The constructor, and what a class defines itself. An override without a docstring has that of its base."""
    if not issubclass(found, BaseException) and not name.endswith("ObjectReader"):  # adapters make these
        yield name, found, None
    for method in vars(found):
        function = getattr(found, method)
        ours = getattr(function, "__module__", None) == found.__module__
        inherited = any(hasattr(base, method) for base in found.__bases__) and not getattr(function, "__doc__", None)
        if ours and not method.startswith("_") and callable(function) and not inherited:
            yield f"{name}.{method}", function, found


def untold(function, owner):
    """The parameters that a docstring leaves out. A class tells those of its constructor."""
    text = inspect.getdoc(function) or ""
    if inspect.isclass(function) and "__init__" in vars(function):
        text += inspect.getdoc(function.__init__) or ""
    twin = function.__name__.removeprefix("a")
    beside = owner or sys.modules[function.__module__]
    if function.__name__.startswith("a") and hasattr(beside, twin) and f"``{twin}``" in text:
        return []
    told = {word for span in re.findall(r"``([^`]+)``", text) for word in re.findall(r"\w+", span)}
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in ("self", "cls", *told)
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]


PUBLIC = {name: rest for name, *rest in callables()}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_is_told(name):
    function, owner = PUBLIC[name]
    missing = untold(function, owner)
    names = ", ".join(f"``{parameter}``" for parameter in missing)
    assert not missing, f"the docstring of {name} must say what {names} is (a twin: name the other one in ``…``)"
    assert inspect.getdoc(function), f"{name} needs a docstring"


def test_what_is_public_is_found():
    assert {
        "storage.StorageAdapter.put_final",
        "storage.LocalStorageAdapter",
        "storage.get_storage_adapter",
        "storage.http.object_response",
        "storage.files.AdapterStorage.save",
        "storage.sweep.sweep",
    } <= PUBLIC.keys()


def test_a_missing_parameter_is_noticed():
    def told(key, size):
        """Gets ``key`` of ``size`` bytes."""

    def half(key, size):
        """Gets ``key``, and size."""

    assert untold(told, None) == [] and untold(half, None) == ["size"]


def test_a_twin_may_name_the_other():
    class Adapter:
        def get(self, key):
            """Gets ``key``."""

        async def aget(self, key):
            """As ``get``."""

        async def astat(self, key):
            """As ``stat``, which is not here."""

    assert untold(Adapter.aget, Adapter) == [] and untold(Adapter.astat, Adapter) == ["key"]
