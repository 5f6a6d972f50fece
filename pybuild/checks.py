"""What must be true of the extension before it is shipped."""

import re
import struct
import subprocess
import sys
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from pybuild.toolchain import BuildError

LIBRARIES = frozenset({"libc.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"})
"""All parts of glibc."""
DYNAMIC, DYNAMIC_SYMBOLS = 6, 11  # section types
NEEDED, RPATH, RUNPATH = 1, 15, 29  # dynamic tags


@dataclass(frozen=True)
class Elf:
    """The dynamic side of a shared library."""

    needed: frozenset[str]
    run_path: frozenset[str]
    exported: frozenset[str]


def facade_functions(package: Path) -> frozenset[str]:
    """The exported functions of a Go package, as gofmt writes them."""
    sources = (p for p in package.glob("*.go") if not p.name.endswith("_test.go"))
    declared = r"^func ([A-Z]\w*)[(\[]"
    return frozenset(name for p in sources for name in re.findall(declared, p.read_text(), re.MULTILINE))


def bound_functions(c_source: Path, prefix: str) -> frozenset[str]:
    """The functions of the facade in a generated method table."""
    entry = rf'^\s*\{{\(char \*\) "{prefix}(\w+)",'
    return frozenset(re.findall(entry, c_source.read_text(), re.MULTILINE))


def imported_functions(extension: Path, module: str, prefix: str) -> frozenset[str]:
    """The functions of the facade in a built extension, loaded by an interpreter of its own."""
    program = (
        "import sys, importlib.machinery as m, importlib.util as u\n"
        "loader = m.ExtensionFileLoader(*sys.argv[1:3])\n"
        "module = u.module_from_spec(u.spec_from_loader(loader.name, loader))\n"
        "loader.exec_module(module)\n"
        "print(*dir(module))\n"
    )
    command = [sys.executable, "-c", program, module, str(extension)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise BuildError(f"the extension does not load: {reason}")
    names = done.stdout.split()
    return frozenset(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def require_functions(expected: Set[str], found: Set[str]) -> None:
    """Raise BuildError unless just the expected functions are bound: gopy drops some silently."""
    if not expected:
        raise BuildError("the facade has no functions")
    if expected != found:
        lost, extra = sorted(expected - found), sorted(found - expected)
        raise BuildError(f"the binding is not the facade: lost {lost}, not expected {extra}")


def require_self_contained(elf: Elf, exported: Set[str]) -> None:
    """Raise BuildError if a library needs more than libc, has a run path, or exports other names."""
    if others := sorted(elf.needed - LIBRARIES):
        raise BuildError(f"the extension needs {', '.join(others)}")
    if elf.run_path:
        raise BuildError(f"the extension looks for libraries in {', '.join(elf.run_path)}")
    if elf.exported != exported:
        raise BuildError(f"the extension exports {sorted(elf.exported)}, not {sorted(exported)}")


def read_elf(path: Path) -> Elf:
    """Read a 64-bit little-endian ELF file that has section headers. Raises BuildError."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise BuildError(f"{path.name} is not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]

    def entries(kind: int, form: str) -> Iterator[tuple[tuple[int, ...], int]]:
        """Each entry of the sections of a kind, with the offset of the section's strings."""
        for header in headers:
            if header[1] == kind:
                body = data[header[4] : header[4] + header[5]]
                for entry in struct.iter_unpack(form, body):
                    yield entry, headers[header[6]][4]

    def text(start: int) -> str:
        return data[start : data.index(b"\0", start)].decode()

    dynamic = [(tag, value, strings) for (tag, value), strings in entries(DYNAMIC, "<qQ")]
    # name, info, other, section, value, size
    symbols = list(entries(DYNAMIC_SYMBOLS, "<IBBHQQ"))
    return Elf(
        needed=frozenset(text(strings + at) for tag, at, strings in dynamic if tag == NEEDED),
        run_path=frozenset(text(strings + at) for tag, at, strings in dynamic if tag in (RPATH, RUNPATH)),
        exported=frozenset(text(strings + symbol[0]) for symbol, strings in symbols if symbol[3]),
    )
