"""Writes the tables of docs/settings.md from the code: `make settings-tables`. A test tells when they are stale."""

import re
import sys
from pathlib import Path

from storage import LocalStorageAdapter, MemoryStorageAdapter, S3StorageAdapter
from storage.options import OPTIONS, PROCESS, default_of, parameters_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
ADAPTERS = {"local": LocalStorageAdapter, "s3": S3StorageAdapter, "memory": MemoryStorageAdapter}


def cells(*texts):
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def code(text):
    """Names, and values as Python writes them, as code."""
    if re.fullmatch(r"'[^']*'|True|False|\d+|0o\d+", text):
        text = text.replace("'", '"')
        return f"`{text}`"
    return ", ".join(f"`{name}`" for name in text.split(", ")) if re.fullmatch(r"[A-Z0-9_, ]+", text) else text


def rows(kind):
    """The table of an adapter; of the process for ""."""
    if not kind:
        yield from (cells("setting", "default", "unit", "meaning"), "|---|---|---|---|")
        for option in PROCESS:
            yield cells(f"`{option.flat}`", code(option.default), option.unit, option.meaning)
        return
    yield from (cells("option", "flat name", "environment", "default", "unit", "meaning"), "|---|---|---|---|---|---|")
    parameters = parameters_of(ADAPTERS[kind])
    for option in OPTIONS[kind]:
        default = default_of(option, parameters[option.name])
        environment = code(option.environment)
        yield cells(f"`{option.name}`", f"`{option.flat}`", environment, code(default), option.unit, option.meaning)


def written(page):
    """The page with the tables as they are now."""
    for kind in ("", *OPTIONS):
        table = "\n".join(rows(kind))
        marks = f"<!-- table {kind or 'process'} -->", f"<!-- end {kind or 'process'} -->"
        pattern = re.compile(f"(?<={re.escape(marks[0])}\n).*?(?={re.escape(marks[1])})", re.DOTALL)
        page, count = pattern.subn(lambda _, table=table: f"\n{table}\n\n", page)
        if count != 1:
            sys.exit(f"{PAGE.name} has {count} places for {marks[0]}")
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
