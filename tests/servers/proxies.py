"""The proxies between a client and an S3 server that make requests fail."""

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace

import trustme

from servers.endpoint import Endpoint
from servers.process import NotReady, first_line, free_port, running


class Toxiproxy:
    """Bad connections: `with Toxiproxy(directory) as toxiproxy, toxiproxy.link(endpoint) as link:`."""

    def __init__(self, directory):
        self._directory = directory

    def __enter__(self):
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._process = running(
            "toxiproxy-server",
            *("-host", "127.0.0.1", "-port", port),
            log=self._directory / f"toxiproxy-{port}.log",
            ready=lambda: _call("GET", f"{self._url}/version", answer=False),
        )
        self._process.__enter__()
        return self

    def __exit__(self, *error):
        return self._process.__exit__(*error)

    @contextlib.contextmanager
    def link(self, upstream):
        """A Link that leads to `upstream`."""
        scheme, _, address = upstream.url.partition("://")
        proxy = _call(
            "POST",
            f"{self._url}/proxies",
            {"name": f"link-{free_port()}", "listen": "127.0.0.1:0", "upstream": address, "enabled": True},
        )
        url = f"{self._url}/proxies/{proxy['name']}"
        try:
            yield Link(replace(upstream, url=f"{scheme}://{proxy['listen']}"), url)
        finally:
            _call("DELETE", url, answer=False)


@dataclass(frozen=True)
class Link:
    endpoint: Endpoint
    _url: str

    @contextlib.contextmanager
    def toxic(self, type, stream="downstream", **attributes):
        """Adds a toxic of toxiproxy: latency, bandwidth, slow_close, timeout, reset_peer, slicer, limit_data."""
        toxic = _call("POST", f"{self._url}/toxics", {"type": type, "stream": stream, "attributes": attributes})
        try:
            yield
        finally:
            _call("DELETE", f"{self._url}/toxics/{toxic['name']}", answer=False)

    @contextlib.contextmanager
    def down(self):
        """Refuses connections, and cuts those that are open."""
        _call("POST", self._url, {"enabled": False})
        try:
            yield
        finally:
            _call("POST", self._url, {"enabled": True})


@contextlib.contextmanager
def farline(upstream, directory, bandwidth, delay, ceiling=0, loss=0):
    """An Endpoint that is far from `upstream`: see tests/bench/farline.

    Each connection has `bandwidth` MB/s and `delay` ms there and back; all together have `ceiling` MB/s, or any number
    with 0. A connection is lost every `loss` MiB, or none with 0.
    """
    scheme, _, server = upstream.url.partition("://")
    log = directory / f"farline-{free_port()}.log"
    options = ("-upstream", server, "-bandwidth", bandwidth, "-delay", f"{delay}ms", "-ceiling", ceiling, "-loss", loss)
    with running("farline", *options, log=log, ready=lambda: first_line(log)) as address:
        yield replace(upstream, url=f"{scheme}://{address}")


@dataclass(frozen=True)
class Entry:
    """A request as the proxy saw it; the fields are those of Entry in faultproxy/exchange.go."""

    operation: str
    method: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    connection: int
    status: int
    fault: str
    received: int
    sent: int
    seconds: float
    finished: bool
    error: str


class FaultProxy:
    """One thing that goes wrong: `with FaultProxy(endpoint, directory) as proxy, proxy.rule("reset_up", at=1000):`.

    `endpoint` leads through the proxy, over https if it is `secure`. The faults and their fields are listed above Rule
    in faultproxy/rule.go.
    """

    def __init__(self, upstream, directory, secure=False):
        self._upstream, self._directory, self._secure = upstream, directory, secure

    def __enter__(self):
        log = self._directory / f"faultproxy-{free_port()}.log"
        options = ["-ca", self._upstream.ca_bundle] if self._upstream.ca_bundle else []
        scheme, ca_bundle = "http", None
        if self._secure:
            scheme, ca_bundle = "https", str(self._directory / "faultproxy-ca.pem")
            options += ["-certificate", self._certificate(ca_bundle)]
        self._process = running(
            "faultproxy", "-upstream", self._upstream.url, *options, log=log, ready=lambda: first_line(log)
        )
        addresses = json.loads(self._process.__enter__())
        self.endpoint = replace(self._upstream, url=f"{scheme}://{addresses['proxy']}", ca_bundle=ca_bundle)
        self._url = f"http://{addresses['control']}"
        return self

    def __exit__(self, *error):
        return self._process.__exit__(*error)

    def _certificate(self, ca_bundle):
        """A file with a certificate for 127.0.0.1 and its key; the authority that signed it is in `ca_bundle`."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(ca_bundle)
        file = self._directory / "faultproxy.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(file))
        return file

    @contextlib.contextmanager
    def rule(self, fault, operation="", **fields):
        """The fault affects requests until the end of the block; then stalled requests go on."""
        rule = _call("POST", f"{self._url}/rules", {"fault": fault, "operation": operation, **fields})
        try:
            yield
        finally:
            _call("DELETE", f"{self._url}/rules/{rule['id']}", answer=False)

    def log(self, operation=None):
        """The requests since the last clear(), oldest first, or those of one operation."""
        entries = [Entry(**entry) for entry in _call("GET", f"{self._url}/log")]
        return [entry for entry in entries if operation in (None, entry.operation)]

    def clear(self):
        """Removes all rules and forgets the log."""
        _call("DELETE", f"{self._url}/rules", answer=False)
        _call("DELETE", f"{self._url}/log", answer=False)

    def connections(self):
        """How many connections of clients are open."""
        return _call("GET", f"{self._url}/connections")["open"]


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _call(method, url, content=None, answer=True):
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with _direct.open(request, timeout=10) as response:
            text = response.read()
    except urllib.error.HTTPError as error:
        with error:
            raise ValueError(error.read().decode().strip()) from None
    except urllib.error.URLError as error:
        raise NotReady(str(error)) from error
    return json.loads(text) if answer else None
