"""The steps from a Go package to a CPython extension, in the order in which `build` takes them."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pybuild import checks, toolchain
from pybuild.toolchain import ROOT, BuildError

PACKAGE = ROOT / "gostorage"
NAME = PACKAGE.name
MODULE = f"_{NAME}"
PREFIX = f"{NAME}_"
# The leading underscore hides it from `./...` of the go command.
GENERATED = ROOT / "pybuild" / "_generated"
COMPILE = "-O2 -fPIC -Wno-error -Wno-implicit-function-declaration -Wno-int-conversion"

Environment = Mapping[str, str]


def build(target: Path, abi: str, *, loadable: bool) -> None:
    """Build the extension for an ABI; `loadable` if this interpreter can load it.

    Raises BuildError.
    """
    toolchain.require_global_lock()
    environment = toolchain.build_environment()
    headers = toolchain.find_headers()
    expected = checks.facade_functions(PACKAGE)
    tools = build_tools(environment)
    directory = generate_sources(tools, fresh_directory(abi), environment)
    replace_cgo_lines(directory / f"{NAME}.go", headers)
    fix_imports(tools, directory, environment)
    export_header(directory, headers, environment)
    generate_methods(directory, environment)
    checks.require_functions(expected, checks.bound_functions(directory / f"{NAME}.c", PREFIX))
    built = link(directory, environment)
    checks.require_self_contained(checks.read_elf(built), {f"PyInit_{MODULE}"})
    if loadable:
        checks.require_functions(expected, checks.imported_functions(built, MODULE, PREFIX))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copy(built, target)


def run(command: list[str | Path], directory: Path, environment: Environment) -> None:
    """Run a step and show what it says only if it fails. Raises BuildError."""
    done = subprocess.run(command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.stderr.write(done.stdout.decode(errors="replace"))
        shown = " ".join(Path(part).name for part in command[:2])
        raise BuildError(f"`{shown}` failed with status {done.returncode}; its output is above")


def fresh_directory(abi: str) -> Path:
    """An empty directory for the generated code of one ABI: it differs between Pythons."""
    directory = GENERATED / abi
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def build_tools(environment: Environment) -> Path:
    """Build the tools that go.mod names, for the machine that builds."""
    tools = GENERATED / "_tools"
    tools.mkdir(parents=True, exist_ok=True)
    native = {k: v for k, v in environment.items() if k not in ("GOOS", "GOARCH")}
    run(["go", "build", "-o", f"{tools}/", "tool"], ROOT, native | {"CGO_ENABLED": "0"})
    return tools


def generate_sources(tools: Path, directory: Path, environment: Environment) -> Path:
    """Let gopy write the Go side of the binding and the program that writes the C side."""
    options = ["-no-make", f"-name={NAME}", f"-vm={sys.executable}", f"-output={directory}"]
    run([tools / "gopy", "gen", *options, f"./{NAME}"], ROOT, environment)
    return directory


def replace_cgo_lines(source: Path, headers: Path) -> None:
    """Compile without -Ofast and link without libpython."""
    text = source.read_text()
    for name, flags in {"CFLAGS": f'"-I{headers}" {COMPILE}', "LDFLAGS": ""}.items():
        lines = re.findall(rf"^#cgo {name}:.*$", text, re.MULTILINE)
        if len(lines) != 1:
            raise BuildError(f"gopy wrote {len(lines)} lines `#cgo {name}`, not one")
        text = text.replace(lines[0], f"#cgo {name}: {flags}")
    source.write_text(text)


def fix_imports(tools: Path, directory: Path, environment: Environment) -> None:
    """Remove the unused imports that gopy writes."""
    run([tools / "goimports", "-w", f"{NAME}.go"], directory, environment)


def export_header(directory: Path, headers: Path, environment: Environment) -> None:
    """Write the C header of the exported Go functions."""
    options = ["-exportheader", f"{NAME}_go.h", "-objdir", "_obj", "--", f"-I{headers}"]
    run(["go", "tool", "cgo", *options, f"{NAME}.go"], directory, environment)


def generate_methods(directory: Path, environment: Environment) -> None:
    """Write the C side of the binding, with the method table."""
    run([sys.executable, "build.py"], directory, environment)


def link(directory: Path, environment: Environment) -> Path:
    """Compile both sides into one library that exports nothing but its init function."""
    script = directory / "exports.map"
    script.write_text(f"{{ global: PyInit_{MODULE}; local: *; }};\n")
    built = directory / "_built" / f"{MODULE}.so"
    flags = f"-s -w \"-extldflags='-Wl,--version-script={script}'\""
    options = ["-buildmode=c-shared", f"-ldflags={flags}", "-o", str(built)]
    run(["go", "build", *options, "."], directory, environment)
    return built
