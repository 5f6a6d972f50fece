"""The examples of the README and of docs/ run, and the links in them lead somewhere.

Each document's Python runs in one process of its own, in the order of the page. The word after
```python says what a block is: `settings` (a piece of a settings module), `configurations` (a
whole one), nothing (code that uses the portal's settings).
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_EXAMPLES = {"README.md", "services.md", "settings.md"}


def blocks(document):
    """(kind, code) of each Python block; the code keeps its line numbers for tracebacks."""
    text = document.read_text(encoding="utf-8")
    for match in re.finditer(r"^```python ?(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: match.start(2)].count("\n")
        yield match[1], "\n" * before + match[2]


def run(directory, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)],
        cwd=directory,
        env={**os.environ, "PORTAL_VAR": str(directory / "portal")} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links(document):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


def test_documents_with_examples():
    assert {d.name for d in DOCUMENTS if list(blocks(d))} == WITH_EXAMPLES


@pytest.mark.parametrize("name", ["README.md", "docs/services.md"])
def test_examples(name, tmp_path):
    run(tmp_path, "code", ROOT / name, DJANGO_SETTINGS_MODULE="portal.settings")


@pytest.mark.parametrize("name", ["README.md", "docs/settings.md"])
def test_settings(name, tmp_path):
    run(tmp_path, "settings", ROOT / name)


def test_configurations(tmp_path):
    (code,) = (c for kind, c in blocks(ROOT / "docs/settings.md") if kind == "configurations")
    (tmp_path / "example_settings.py").write_text(code, encoding="utf-8")
    run(
        tmp_path,
        "configurations",
        DJANGO_SETTINGS_MODULE="example_settings",
        DJANGO_CONFIGURATION="Base",
        PYTHONPATH=str(tmp_path),
    )


# ---- what runs in the new process


def code(document):
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    names = {}
    for kind, text in blocks(document):
        if not kind:
            exec(compile(text, str(document), "exec"), names)
    if "finalize_session" in names:
        use_services(names)


def use_services(names):
    """The README's functions do what its text says."""
    import io

    from portal import services

    from storage import ContentMismatch, ObjectExists, get_storage_adapter

    data = os.urandom(2_500_000)
    session = services.start_session("a.bin", len(data), chunk_size=1_000_000)
    pieces = {n: data[(n - 1) * 1_000_000 : n * 1_000_000] for n in (1, 2, 3)}
    for number in (3, 1, 2, 1):
        names["upload_chunk"](session, number, io.BytesIO(pieces[number]))
    for wrong, error in ((b"x" * 1_000_000, ObjectExists), (b"short", ContentMismatch)):
        try:
            names["upload_chunk"](session, 1, io.BytesIO(wrong))
        except error:
            continue
        raise AssertionError(f"no {error.__name__}")
    file = names["finalize_session"](session)
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    assert b"".join(names["read_file"](file)) == data
    assert get_storage_adapter().list_temp_parts(session.pk) == []


def settings(document):
    import django
    from django.conf import settings
    from django.core.checks import run_checks
    from django.test import override_settings

    base = Path.cwd()
    settings.configure(BASE_DIR=base, INSTALLED_APPS=["storage"])
    django.setup()
    from storage import get_storage_adapter

    count = 0
    for kind, text in blocks(document):
        if kind == "settings":
            names = {"BASE_DIR": base}
            exec(compile(text, str(document), "exec"), names)
            with override_settings(**{k: v for k, v in names.items() if k.isupper()}):
                problems = run_checks()
                assert not problems, problems
                for alias in names.get("STORAGE_ADAPTERS", ["default"]):
                    adapter = get_storage_adapter(alias)
                    adapter.check_health()
                    bucket, key = adapter.put_final("a", b"b")
                    with adapter.get_final_stream(bucket, key) as stream:
                        assert stream.read() == b"b"
            count += 1
    assert count


def configurations():
    import configurations

    configurations.setup()
    from storage import get_storage_adapter

    get_storage_adapter().check_health()
    assert (Path.cwd() / "objects").is_dir()


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    {"code": code, "settings": settings, "configurations": configurations}[kind](*map(Path, arguments))
