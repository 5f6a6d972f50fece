"""Examines the store of an alias by using it: see ``storage.doctor``."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from textwrap import fill
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from storage.doctor import Finding, Report, describe, examine

INDENT = " " * 6


class Command(BaseCommand):
    help = (
        "Shows the settings of a storage adapter, uses its store, and tells what works there, what does not, and what"
        " to do about it. Exit status: 0 if everything that the adapter's promises depend on works, else 1."
    )
    requires_system_checks = ()  # the report shows wrong settings

    def add_base_argument(self, parser: CommandParser, *args: Any, **kwargs: Any) -> None:
        """Django's own --settings takes a module. Without one it shows the settings, and does not use the store."""
        if "--settings" in args:
            kwargs |= {
                "nargs": "?",
                "const": "",
                "help": "Without a value: only show every option with its value, flat setting, default and meaning."
                f" {kwargs['help']}",
            }
        super().add_base_argument(parser, *args, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("alias", nargs="?", default="default", help="alias in STORAGE_ADAPTERS (default: default)")
        parser.add_argument("--json", action="store_true", help="write the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["settings"] == "":
            self._describe(options["alias"], options["json"])
            return
        report = examine(options["alias"])
        if options["json"]:
            self.stdout.write(json.dumps(report.as_dict(), indent=2))
        else:
            for line in self._lines(report):
                self.stdout.write(line)
        failed = sum(finding.level == "failed" for finding in report.findings)
        if failed:
            raise CommandError(f"{failed} of {len(report.findings)} findings: something does not work", returncode=1)

    def _describe(self, alias: str, as_json: bool) -> None:
        try:
            described = describe(alias)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        if as_json:
            self.stdout.write(json.dumps([asdict(option) for option in described], indent=2))
            return
        for option, line in zip(described, _table((o.name, o.value, o.source) for o in described), strict=True):
            self.stdout.write(line)
            facts = (
                option.flat if option.flat != option.name else "",
                f"environment: {option.environment}" if option.environment else "",
                f"default: {option.default}" if option.default else "",
                f"unit: {option.unit}" if option.unit else "",
            )
            for text in ("; ".join(filter(None, facts)), option.meaning):
                if text:
                    self.stdout.write(fill(text, 100, initial_indent=INDENT, subsequent_indent=INDENT))

    def _lines(self, report: Report) -> Iterator[str]:
        yield self.style.MIGRATE_HEADING(f"{report.alias}: {report.backend or 'no adapter'}")
        yield from _table((option.name, option.value, option.source) for option in report.options)
        if report.options:
            yield ""
        merged = list(_merged(report.findings))
        rows = [(f.level, f.name, area, f"{f.seconds * 1000:,.0f} ms".rjust(9)) for area, f in merged]
        colours = {"ok": self.style.SUCCESS, "warning": self.style.WARNING, "failed": self.style.ERROR}
        for (_, finding), line in zip(merged, _table(rows), strict=True):
            colour = colours.get(finding.level, self.style.NOTICE)
            yield f"{line.replace(finding.level, colour(finding.level), 1)}  {finding.detail}"
            if finding.advice:
                yield f"{'':{len(line)}}  -> {finding.advice}"


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Lines of columns, each as wide as its widest cell."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _merged(findings: list[Finding]) -> Iterator[tuple[str, Finding]]:
    """The findings by name, each with its area, or "both" if the finding is alike in both areas."""
    for name in dict.fromkeys(finding.name for finding in findings):
        alike = [finding for finding in findings if finding.name == name]
        if len(alike) == 2 and len({(finding.level, finding.advice) for finding in alike}) == 1:
            yield "both", alike[-1]
        else:
            yield from ((finding.area, finding) for finding in alike)
