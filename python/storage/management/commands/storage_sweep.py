"""Removes abandoned parts and unfinished writes of an alias: see ``storage.sweep``."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.template.defaultfilters import filesizeformat

from storage.exceptions import StorageError
from storage.sweep import parse_age, sweep


class Command(BaseCommand):
    help = (
        "Removes the parts of abandoned upload sessions, and what interrupted writes have left."
        " Final objects are never removed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("alias", nargs="?", default="default", help="alias in STORAGE_ADAPTERS (default: default)")
        parser.add_argument(
            "--older-than",
            required=True,
            type=_age,
            metavar="AGE",
            help="time since the last byte of a session or write arrived: a number with s, m, h, d or w, such as 24h",
        )
        parser.add_argument(
            "--keep-from", metavar="PATH", help="dotted path of a function keep(session_id): true spares the session"
        )
        parser.add_argument("--dry-run", action="store_true", help="tell what would be removed, and remove nothing")
        parser.add_argument(
            "--max-seconds",
            type=_seconds,
            metavar="SECONDS",
            help="stop soon after this many seconds; the next call with this option goes on from there",
        )
        parser.add_argument("--json", action="store_true", help="write the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = sweep(
                options["alias"],
                older_than=options["older_than"],
                keep=options["keep_from"],
                dry_run=options["dry_run"],
                max_seconds=options["max_seconds"],
            )
        except (StorageError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            about = {"version": 1, "alias": options["alias"], "dry_run": options["dry_run"]}
            self.stdout.write(json.dumps(about | report, indent=2))
            return
        verb = "would remove" if options["dry_run"] else "removed"
        self.stdout.write(
            f"{options['alias']}: {verb} {report['parts']} parts of {report['sessions']} sessions and"
            f" {report['uploads']} unfinished writes, {filesizeformat(report['size'])}".replace("\xa0", " ")
        )
        for unseen in report.get("unseen", ()):
            self.stdout.write(self.style.WARNING(f"could not look at {unseen}"))
        if not report["finished"]:
            self.stdout.write(self.style.WARNING("time ran out: call it again to go on"))


def _age(text: str) -> timedelta:
    try:
        return parse_age(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not seconds >= 0:
        raise ArgumentTypeError(f"it is a number of seconds, not negative: {text!r}")
    return seconds
