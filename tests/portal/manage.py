#!/usr/bin/env python
"""Django's command line for the portal."""

import os
import sys
from pathlib import Path


def main() -> None:
    here = Path(__file__).resolve().parent
    # The package is imported as `portal`, not as its bare modules.
    sys.path[:] = [str(here.parent), *(p for p in sys.path if Path(p).resolve() != here)]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
