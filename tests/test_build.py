"""The checks that the build makes, and what a wheel may hold."""

import importlib.util
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
from conftest import FREE_THREADED, free_threaded

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pybuild import checks, steps, toolchain  # noqa: E402
from pybuild.toolchain import BuildError  # noqa: E402
from storage import native  # noqa: E402

FACADE = {"Open", "Close", "Start", "Write", "Pull", "Finish", "Wait", "Progress", "Cancel"}
FACADE |= {"CancelAll", "Stop", "Read", "Fetch", "CheckKey", "CRC32C", "Impatient", "Stats", "Lend", "Returned"}
FACADE |= {"SetBudget"}


def extension() -> Path:
    """The extension that the tests run against, found without loading it."""
    spec = importlib.util.find_spec("storage._gostorage")
    assert spec and spec.origin
    return Path(spec.origin)


def write_elf(path: Path, **strings: str) -> Path:
    """A library of nothing but a dynamic section and one exported symbol."""
    tags = {"needed": checks.NEEDED, "rpath": checks.RPATH, "runpath": checks.RUNPATH}
    table, dynamic, symbols = b"\0", b"", b""
    for kind, text in strings.items():
        if kind == "symbol":
            symbols = struct.pack("<IBBHQQ", len(table), 18, 0, 1, 0, 0)
        else:
            dynamic += struct.pack("<qQ", tags[kind], len(table))
        table += text.encode() + b"\0"
    bodies = [(0, b""), (3, table), (checks.DYNAMIC, dynamic), (checks.DYNAMIC_SYMBOLS, symbols)]
    data, headers = bytes(64), b""
    for kind, body in bodies:
        headers += struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, len(data), len(body), 1, 0, 1, 0)
        data += body
    start = struct.pack("<6s34xQ10xHH2x", b"\x7fELF\x02\x01", len(data), 64, len(bodies))
    path.write_bytes(start + data[64:] + headers)
    return path


def test_the_facade_is_what_the_source_says():
    assert checks.facade_functions(ROOT / "gostorage") == FACADE


def test_methods_tests_and_unexported_functions_are_not_the_facade(tmp_path):
    (tmp_path / "a.go").write_text(
        "package a\n\nfunc Open(x string) (int64, error) {\n}\n\nfunc open() {\n}\n\n"
        "func (t T) Close() {\n}\n// func Old() {}\n\nfunc Any[T any](t T) {\n}\n"
    )
    (tmp_path / "a_test.go").write_text("package a\n\nfunc TestOpen(t *testing.T) {\n}\n")
    assert checks.facade_functions(tmp_path) == {"Open", "Any"}


def test_bound_functions_are_read_from_the_method_table(tmp_path):
    source = tmp_path / "a.c"
    source.write_text(
        "static PyMethodDef methods[] = {\n"
        '{(char *) "GoPyInit", (PyCFunction) f, METH_KEYWORDS, NULL },\n'
        '{(char *) "gostorage_Open", (PyCFunction) g, METH_KEYWORDS|METH_VARARGS, "Open()" },\n'
    )
    assert checks.bound_functions(source, steps.PREFIX) == {"Open"}


@pytest.mark.parametrize("found", [FACADE - {"Open"}, FACADE | {"Debug"}, frozenset()])
def test_a_dropped_or_added_function_fails_the_build(found):
    with pytest.raises(BuildError, match="is not the facade"):
        checks.require_functions(FACADE, found)


def test_an_empty_facade_fails_the_build():
    with pytest.raises(BuildError, match="no functions"):
        checks.require_functions(frozenset(), frozenset())


@pytest.mark.parametrize(
    ("strings", "message"),
    [
        ({"needed": "libpython3.12.so.1.0", "symbol": "PyInit_a"}, "needs libpython3.12.so.1.0"),
        ({"needed": "libc.so.6", "rpath": "/opt/a", "symbol": "PyInit_a"}, "looks for .* /opt/a"),
        ({"runpath": "/opt/b", "symbol": "PyInit_a"}, "looks for .* /opt/b"),
        ({"needed": "libc.so.6", "symbol": "GoPyInit"}, "exports"),
        ({"needed": "libc.so.6"}, "exports"),
    ],
)
def test_a_library_that_is_not_self_contained_fails_the_build(tmp_path, strings, message):
    elf = checks.read_elf(write_elf(tmp_path / "a.so", **strings))
    with pytest.raises(BuildError, match=message):
        checks.require_self_contained(elf, {"PyInit_a"})


def test_a_self_contained_library_passes(tmp_path):
    path = write_elf(tmp_path / "a.so", needed="libc.so.6", symbol="PyInit_a")
    checks.require_self_contained(checks.read_elf(path), {"PyInit_a"})


def test_what_is_not_elf_fails_the_build(tmp_path):
    (tmp_path / "a.so").write_bytes(b"MZ")
    with pytest.raises(BuildError, match="not a 64-bit"):
        checks.read_elf(tmp_path / "a.so")


def test_a_library_that_does_not_load_fails_the_build(tmp_path):
    (tmp_path / "a.so").write_bytes(b"MZ")
    with pytest.raises(BuildError, match="does not load"):
        checks.imported_functions(tmp_path / "a.so", steps.MODULE, steps.PREFIX)


def test_the_installed_extension_is_self_contained_and_whole():
    checks.require_self_contained(checks.read_elf(extension()), {f"PyInit_{steps.MODULE}"})
    found = checks.imported_functions(extension(), steps.MODULE, steps.PREFIX)
    checks.require_functions(FACADE, found)


def test_the_wheel_holds_the_licenses_of_what_is_linked():
    linked = {module.decode() for module in re.findall(rb"\ndep\t(\S+)\t", extension().read_bytes())}
    assert "github.com/aws/smithy-go" in linked
    (notice,) = (file for file in metadata.files("django-gostorage") or [] if file.name == "third-party.txt")
    text = notice.read_text()
    assert not [module for module in linked if "/".join(module.split("/")[:3]) not in text]


def test_the_wheel_holds_python_stubs_and_one_extension():
    installed = metadata.files("django-gostorage") or []
    if any(file.suffix == ".pth" or "__editable__" in file.name for file in installed):
        pytest.skip("an editable install")
    package = [file for file in installed if file.parts[0] == "storage"]
    sources = [file for file in package if file.suffix == ".py"]
    rest = {str(file) for file in package if file.suffix not in (".py", ".pyc")}
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert rest == {"storage/py.typed", "storage/_gostorage.pyi", f"storage/_gostorage{suffix}"}
    tree = ROOT / "python"
    assert {str(file) for file in sources} == {str(path.relative_to(tree)) for path in tree.rglob("*.py")}
    for file in package:
        if file.suffix in (".py", ".pyi", ".typed"):
            assert file.read_text(encoding="utf-8") == (tree / file).read_text(encoding="utf-8"), file
    others = {file.parts[0] for file in installed if file.suffix != ".pyc"} - {"storage"}
    assert all(name.endswith(".dist-info") for name in others)


PYTHON_TYPES = {"int64": "int", "uintptr": "int", "string": "str", "bool": "bool"}


def test_the_stub_has_what_go_exports():
    source = (ROOT / "gostorage" / "gostorage.go").read_text(encoding="utf-8")
    exported = []
    for name, parameters, result in re.findall(
        r"^func ([A-Z]\w*)\(([^)]*)\) \(\w+ (\w+), err error\) {$", source, re.MULTILINE
    ):
        pairs, waiting = [], []
        for parameter in filter(None, re.split(r",\s*", parameters.strip())):
            waiting.append(parameter.split()[0])
            if " " in parameter:  # the type of all before it that have none
                pairs += [f"{each}: {PYTHON_TYPES[parameter.split()[1]]}" for each in waiting]
                waiting = []
        exported.append(f"def gostorage_{name}({', '.join(pairs)}) -> {PYTHON_TYPES[result]}: ...")
    stub = (ROOT / "python" / "storage" / "_gostorage.pyi").read_text(encoding="utf-8").splitlines()
    assert sorted(stub) == sorted(exported)
    assert len(exported) == len(re.findall(r"^func [A-Z]", source, re.MULTILINE))


def test_the_extension_has_what_the_stub_says():
    stub = re.findall(r"^def (\w+)", (ROOT / "python" / "storage" / "_gostorage.pyi").read_text(), re.MULTILINE)
    native.stats()
    found = [name for name in vars(sys.modules["storage._gostorage"]) if name.startswith("gostorage_")]
    assert sorted(found) == sorted(stub)


def test_only_django_is_needed_at_run_time():
    assert metadata.requires("django-gostorage") == ["Django>=5.2"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("go1.26.8", (1, 26, 8)), ("1.26.0", (1, 26, 0)), ("go1.27rc1", (1, 27, 1)), ("", ())],
)
def test_versions_are_numbers(text, numbers):
    assert toolchain.version(text) == numbers


def test_a_machine_without_tools_asks_for_them(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    assert toolchain.missing() == [toolchain.GO_FROM_PYPI, toolchain.COMPILER_FROM_PYPI]
    with pytest.raises(BuildError, match=r"no Go 1\.26"):
        toolchain.build_environment()


def test_a_free_threaded_python_fails_the_build(monkeypatch, tmp_path):
    monkeypatch.setattr(toolchain.sysconfig, "get_config_var", {"Py_GIL_DISABLED": 1}.get)
    with pytest.raises(BuildError, match="free-threaded Python is not supported"):
        steps.build(tmp_path / "a.so", "cpython-314t-x86_64-linux-gnu", loadable=True)


@pytest.mark.slow
@pytest.mark.python
@free_threaded
def test_a_real_free_threaded_python_builds_no_wheel(tmp_path):
    unwanted = shutil.ignore_patterns("build", ".*", "_generated", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, tmp_path / "source", ignore=unwanted)
    command = [sys.executable, "-m", "pip", "--python", FREE_THREADED, "wheel", "--no-deps", "-w", tmp_path / "wheels"]
    done = subprocess.run([*command, tmp_path / "source"], capture_output=True, text=True, timeout=100)
    assert done.returncode and "a free-threaded Python is not supported" in done.stdout + done.stderr, done.stderr
    assert not list(tmp_path.glob("wheels/*"))


def test_an_old_go_does_not_do(monkeypatch, tmp_path):
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go1.21.0\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda name: str(tmp_path))
    assert toolchain.go_version(str(go)) == (1, 21, 0)
    assert toolchain.find_go() is None
