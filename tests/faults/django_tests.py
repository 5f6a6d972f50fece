"""Runs suites of Django's own tests in which each storage of files is an `AdapterStorage`.

    django_tests.py FOLDER BACKEND OPTIONS LABEL...

FOLDER has Django's tests, BACKEND and OPTIONS (JSON) make the adapter. The last line tells the verdict on each test.
"""

import json
import os
import sys
import unittest
from collections import Counter

import django
from django.conf import settings

FOLDER, BACKEND, OPTIONS, *LABELS = sys.argv[1:]
APPS = sorted({label.partition(".")[0] for label in LABELS})
os.environ["RUNNING_DJANGOS_TEST_SUITE"] = "true"
sys.path.insert(0, FOLDER)
settings.configure(
    # As tests/runtests.py of Django has them, and tests/test_sqlite.py.
    DATABASES={name: {"ENGINE": "django.db.backends.sqlite3"} for name in ("default", "other")},
    SECRET_KEY="tests",
    USE_TZ=False,
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sites",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
        *APPS,
    ],
    MIGRATION_MODULES={"auth": None, "contenttypes": None, "sessions": None},
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    ROOT_URLCONF="urls",
    STATIC_URL="static/",
    SITE_ID=1,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    STORAGE_ADAPTERS={"default": {"BACKEND": BACKEND, "OPTIONS": json.loads(OPTIONS)}},
)

import django.contrib.staticfiles.finders  # noqa: E402  the files to collect are on the disk
from django.core.files import storage  # noqa: E402

from storage import get_storage_adapter  # noqa: E402
from storage.files import AdapterStorage  # noqa: E402


class OnAdapter(AdapterStorage):
    """Takes the arguments of Django's storages, and their folders as locations."""

    def __init__(self, location=None, base_url=None, allow_overwrite=False, **_):
        location = settings.MEDIA_ROOT if location is None else location
        base_url = settings.MEDIA_URL if base_url is None else base_url
        super().__init__(location=str(location or ""), base_url=base_url, skip_unchanged=allow_overwrite)


OnDisk = storage.FileSystemStorage
storage.FileSystemStorage = storage.InMemoryStorage = OnAdapter

from django.contrib.staticfiles.management.commands import collectstatic  # noqa: E402
from django.test.runner import DiscoverRunner  # noqa: E402


def emptied(adapter):
    for final in adapter.list_final():
        adapter.delete_final(final)


class Verdicts(unittest.TextTestResult):
    """Keeps what became of each test; what one test has stored the next one does not find."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.verdicts = {}

    def startTest(self, test):
        emptied(get_storage_adapter())
        self.verdicts[test.id()] = "passed"
        super().startTest(test)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.verdicts[test.id()] = "failed"

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.verdicts[test.id()] = "skipped"

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.verdicts[test.id()] = "failed"

    addError = addUnexpectedSuccess = addFailure


class Runner(DiscoverRunner):
    def get_resultclass(self):
        return Verdicts

    def suite_result(self, suite, result, **_):
        return result.verdicts


def adapted():
    """Replaces what asks the disk where any storage would do."""
    collectstatic.FileSystemStorage = OnDisk  # whether a storage is one decides what the command asks and says
    if "file_storage" in APPS:
        from file_storage.tests import FileFieldStorageTests

        FileFieldStorageTests._storage_max_filename_length = lambda *_: 255
    if "staticfiles_tests" in APPS:
        from staticfiles_tests.cases import CollectionTestCase

        on_disk = CollectionTestCase._get_file

        def content(test, name):
            static = storage.storages["staticfiles"]
            if not isinstance(static, OnAdapter):
                return on_disk(test, name)
            with static.open(name, "r") as file:
                return file.read()

        CollectionTestCase._get_file = content


if __name__ == "__main__":
    django.setup()
    adapted()
    verdicts = Runner(verbosity=2, interactive=False).run_tests(LABELS)
    print(Counter(verdicts.values()), file=sys.stderr)
    print(f"\n{json.dumps(verdicts)}")  # a test that asks something leaves a line that is not ended
