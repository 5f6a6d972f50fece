"""What every test shares: the adapters under test, and the proof that nothing is left behind."""

import contextlib
import gc
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from django.conf import settings

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from faults.adapters import OPTIONS  # noqa: E402
from servers import STORES, Endpoint  # noqa: E402
from servers.fixtures import browser, faults, minio, moto, own_store, store, toxiproxy, versitygw  # noqa: E402, F401

CONTRACT = json.loads((HERE / "contract.json").read_text(encoding="utf-8"))
BYTES = random.Random(1).randbytes(26 * 1024 * 1024)
STAGING = ".gostorage-staging"
FULL = bool(os.environ.get("STORAGE_TEST_FULL"))
"""Whether what takes long is tried too: `make test-full`."""
django_configurations = pytest.mark.skipif(
    sys.version_info >= (3, 15),
    reason="django-configurations 2.5.1 loads settings by load_module, which Python 3.15 does not call",
)
FREE_THREADED = shutil.which("python{}.{}t".format(*sys.version_info))
free_threaded = pytest.mark.skipif(not FREE_THREADED, reason="there is no free-threaded Python of this version on PATH")
SERVERS = {"versitygw", "minio", "moto", "toxiproxy", "faults", "store", "own_store", "world", "proxy", "browser"}


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    config.addinivalue_line(
        "markers", "alone: has little time, and is run after the others, with one like it beside it"
    )
    config.addinivalue_line("markers", "python: is run on each Python though it is slow, for it differs by that")
    config.addinivalue_line("markers", "newest: is run on the newest Python only, for others like it are run on each")
    if not settings.configured and "DJANGO_SETTINGS_MODULE" not in os.environ:
        settings.configure(
            INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "storage", "storage.tus"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            SECRET_KEY="tests",
            USE_TZ=True,
        )


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session):
    if reporter := session.config.pluginmanager.get_plugin("terminalreporter"):
        session.config.pluginmanager.register(FirstFailure(reporter))


@pytest.fixture(scope="module")
def database(django_db_blocker):
    """The tables of all apps, in memory. Afterwards there is no connection: responses that tests close would use it."""
    from django.core.management import call_command
    from django.db import connection

    with django_db_blocker.unblock():
        call_command("migrate", verbosity=0)
        yield
        connection.connection.close()  # connection.close() leaves what is in memory open
        connection.connection = None


class FirstFailure:
    """Shows the first failure at once: pytest tells of none before the end."""

    def __init__(self, reporter):
        self.reporter, self.shown = reporter, False

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        if report.failed and not self.shown:
            self.shown = True
            self.reporter.write_line(f"\n\n{report.nodeid}: {report.when}\n{report.longreprtext}\n", red=True)


WITH_SERVERS = ("test_s3_", "test_servers", "test_portal", "test_django_own", "test_tus.py", "test_site")


def pytest_collection_modifyitems(config, items):
    """With --quick no test that is slow or needs a server."""
    if not config.getoption("--quick"):
        return

    def quick(item):
        if item.get_closest_marker("slow") or item.path.name.startswith(WITH_SERVERS):
            return False
        named = item.name.partition("[")[2]
        started = ("s3", "gunicorn", "uvicorn", *SERVERS)
        again = item.originalname.endswith("_by_twins")  # the contract's tests once more
        return not (again or SERVERS & set(item.fixturenames) or any(name in named for name in started))

    verdicts = {item: quick(item) for item in items}
    config.hook.pytest_deselected(items=[item for item, chosen in verdicts.items() if not chosen])
    items[:] = [item for item, chosen in verdicts.items() if chosen]


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="no test that is slow or needs a server")
    parser.addoption("--seed", type=int, help="the one exchange of test_s3_random.py that is run")


def make_local(tmp_path, **options):
    from storage import LocalStorageAdapter

    return LocalStorageAdapter(temp_dir=tmp_path / "temp", final_dir=tmp_path / "final", **options)


def make_memory(tmp_path):
    from storage import MemoryStorageAdapter

    return MemoryStorageAdapter()


def s3_options(endpoint, *, folder=None, **options):
    """Options of an adapter with prefixes that no other test has; with folder="" those that are the default."""
    folder = uuid.uuid4().hex if folder is None else folder
    prefixes = {"temp_prefix": f"{folder}/temp", "final_prefix": f"{folder}/final/"} if folder else {}
    given = {
        "bucket_name": endpoint.bucket,
        "access_key": endpoint.access_key,
        "secret_key": endpoint.secret_key,
        "region_name": endpoint.region,
        "endpoint_url": endpoint.url,
        "ca_bundle": endpoint.ca_bundle,
        **prefixes,
    }
    return given | options


def make_s3(endpoint, **options):
    from storage import S3StorageAdapter

    return S3StorageAdapter(**s3_options(endpoint, **options))


def knows_conditions(adapter):
    """What the first puts that must replace nothing find out about a store, once for each of the two ways."""
    for size in (1, 11 * 1024 * 1024):
        adapter.delete_final(adapter.put_final(uuid.uuid4(), BYTES[:size], overwrite=False))


def on_s3(server):
    return lambda request: make_s3(request.getfixturevalue(server))


def in_a_bucket_of_its_own(server):
    """With the prefixes that are the default."""

    def make(request):
        endpoint = replace(request.getfixturevalue(server), bucket=f"tests-{uuid.uuid4().hex}")
        with endpoint.client() as client:
            client.create_bucket(Bucket=endpoint.bucket)
        return make_s3(endpoint, folder="")

    return make


ADAPTERS = {
    "local": lambda request: make_local(request.getfixturevalue("tmp_path")),
    "local-fast": lambda request: make_local(request.getfixturevalue("tmp_path"), durable=False),
    "memory": lambda request: make_memory(request.getfixturevalue("tmp_path")),
    **{f"s3-{server}": on_s3(server) for server in STORES},
    "s3-moto": on_s3("moto"),
    "s3-bare": in_a_bucket_of_its_own("versitygw"),
}


def marked(names, **marks):
    """The names as parameters; `newest=[...]` marks some of them as `newest`."""
    return [
        pytest.param(name, marks=[getattr(pytest.mark, mark) for mark, chosen in marks.items() if name in chosen])
        for name in names
    ]


# What differs by Python is the same on all of them: one in this process and one behind a connection are enough.
BY_PYTHON = ["memory", "s3-versitygw"]
MARKED = marked(ADAPTERS, slow=["s3-bare"], newest=[name for name in ADAPTERS if name not in BY_PYTHON])


def not_on(*names):
    """Decorates a test of `adapter` that is not run on these."""
    return pytest.mark.parametrize("adapter", [one for one in MARKED if one.values[0] not in names], indirect=True)


@pytest.fixture(params=MARKED)
def adapter(request):
    adapter = ADAPTERS[request.param](request)
    yield adapter
    adapter.close()


@contextlib.contextmanager
def configured(**entries):
    """Settings with adapters, which are closed at the end."""
    from django.test import override_settings

    from storage import get_storage_adapter

    with override_settings(STORAGE_ADAPTERS=entries):
        yield
        for alias in entries:
            get_storage_adapter(alias).close()


@pytest.fixture(params=["memory", "local"])
def uploads(request, tmp_path):
    """The adapter of the alias and the bucket "uploads", which is not the default one."""
    from storage import get_storage_adapter

    areas = {} if request.param == "memory" else {"temp_dir": tmp_path / "temp", "final_dir": tmp_path / "final"}
    entry = {"BACKEND": request.param, "OPTIONS": {"bucket": "uploads", **areas}}
    with configured(default={"BACKEND": "memory"}, uploads=entry):
        yield get_storage_adapter("uploads")


@pytest.fixture
def local(tmp_path):
    adapter = make_local(tmp_path)
    yield adapter
    adapter.close()


@pytest.fixture(scope="session", autouse=True)
def warm(tmp_path_factory):
    """Everything that opens lazily is open before anything is counted."""
    adapter = make_local(tmp_path_factory.mktemp("warm"))
    adapter.put_final("warm", b"warm")
    with adapter.get_final_stream("local", "warm") as reader:
        assert reader.read() == b"warm"
    adapter.close()


def native_stats():
    from storage import native

    return {**native.stats(), "lent": len(native._lent)}


def usage():
    return {
        **{
            key: native_stats()[key]
            for key in ("stores", "calls", "readers", "buffers", "connections", "goroutines", "lent")
        },
        "fds": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }


def litter(root):
    """What lies in staging directories below root."""
    return [
        os.path.join(where, name)
        for where, directories, files in os.walk(root)
        if os.path.basename(where) == STAGING
        for name in directories + files
    ]


@pytest.fixture(autouse=True)
def nothing_left(warm, tmp_path):
    before = usage()
    time.sleep(0.001)  # a goroutine that is just being woken counts neither as waiting nor as running
    before = {key: max(n, before[key]) for key, n in usage().items()}
    yield
    until = time.monotonic() + 10  # what is on its way out on a busy machine is no leak
    while True:
        after = usage()
        more = {key: (before[key], n) for key, n in after.items() if n > before[key]}
        left = litter(tmp_path)
        if not more and not left:
            return
        if time.monotonic() > until:
            pytest.fail(f"left behind: {more} {left}")
        gc.collect()
        time.sleep(0.01)


def command(*args):
    done = subprocess.run([str(arg) for arg in args], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{args[0]} failed, these tests need root: {done.stderr}")


def without_override(code):
    """Runs code in a new interpreter to which the modes of files apply, also where the user is root."""
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run([*drop, sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def mount(tmp_path):
    """Mounts what mount(8) is told, below tmp_path, and gives where."""
    mounted = []

    def mount(*args):
        where = tmp_path / f"mount{len(mounted)}"
        where.mkdir()
        command("mount", *args, where)
        mounted.append(where)
        return where

    yield mount
    for where in mounted:
        subprocess.run(["umount", "-l", where], capture_output=True)


@pytest.fixture
def script(tmp_path):
    """Starts tests/faults/NAME.py in a new interpreter; what still runs at the end is killed."""
    started = []

    def start(name, *args, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        command = [sys.executable, str(HERE / "faults" / f"{name}.py"), *map(str, args)]
        process = subprocess.Popen(command, cwd=tmp_path, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                with contextlib.suppress(OSError):  # what it did not read any more
                    pipe.close()


@dataclass(frozen=True)
class Place:
    """Where the adapter of a script of tests/faults keeps its objects: faults.adapters makes it by the environment."""

    environment: dict[str, str]
    endpoint: Endpoint | None = None  # None is a disk
    options: dict[str, object] | None = None

    def uploads(self, key):
        """The unfinished uploads of a final object. A whole key, since MinIO lists them by nothing less."""
        if not self.endpoint:
            return []
        prefix = f"{self.options['final_prefix']}{key}"
        with self.endpoint.client() as client:
            return client.list_multipart_uploads(Bucket=self.endpoint.bucket, Prefix=prefix).get("Uploads", [])


def place_on(endpoint, **options):
    """A Place on a store, in a folder that no other test has."""
    options = s3_options(endpoint, **options)
    return Place({**os.environ, OPTIONS: json.dumps(options)}, endpoint, options)


@pytest.fixture
def run(script):
    """Runs a script of tests/faults to its end and gives the JSON of its last line."""

    def run(name, *args, timeout=60, **options):
        process = script(name, *args, **options)
        out, err = process.communicate(timeout=timeout)
        assert process.returncode == 0, f"rc {process.returncode}\n{out}\n{err}"
        return json.loads(out.splitlines()[-1])

    return run
