"""The servers as fixtures: each is started once for all tests, when the first test needs it; each test has its own
fault proxy."""

import pytest

import servers
from servers import web


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory):
    with servers.versitygw(tmp_path_factory.mktemp("servers")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def minio(tmp_path_factory):
    with servers.minio(tmp_path_factory.mktemp("servers")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def moto(tmp_path_factory):
    with servers.moto(tmp_path_factory.mktemp("servers")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def own_store():
    return servers.own_store()


@pytest.fixture(scope="session")
def toxiproxy(tmp_path_factory):
    with servers.Toxiproxy(tmp_path_factory.mktemp("servers")) as toxiproxy:
        yield toxiproxy


@pytest.fixture(params=servers.STORES)
def store(request):
    """Each S3 store in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def faults(versitygw, tmp_path):
    """A FaultProxy in front of versitygw."""
    with servers.FaultProxy(versitygw, tmp_path) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def browser():
    """Chromium, for the tests of a module. See servers.web.chromium for what they cannot do beside it."""
    with web.chromium() as browser:
        yield browser
