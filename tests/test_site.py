"""The site of `make portal` in Chromium, as a person uses it."""

import contextlib
import hashlib
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import axe_playwright_python
import pytest
import test_browser
from conftest import FULL, HERE
from PIL import Image
from playwright.sync_api import expect
from portal.web import rules
from portal.web.templatetags.portal import limit
from servers import web
from servers.process import free_port

MIB = 1024 * 1024
LIMIT = 400_000_000
BIG = 300 * MIB if FULL else 24 * MIB
RATE = 30_000_000 if FULL else 5_000_000
"""Bytes a second of the browser's line in tests that need an upload to last."""
SLOWLY = 1_000_000

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
EVERYTHING = "axe.run(document, {resultTypes: ['violations']})"

long = pytest.mark.skipif(not FULL, reason="takes long: make test-full")

expect.set_options(timeout=web.PATIENCE * 1000)


SERVE = [sys.executable, HERE / "portal" / "web" / "serve.py"]


class Site:
    """What `make portal` runs. It can be killed and started again, at the same address and with the same files."""

    def __init__(self, var, on_s3=False):
        self.log, self.var = var / "log", var / "var"
        self.environment = {"PORT": str(free_port()), "PORTAL_VAR": str(self.var), "PORTAL_MAX_SIZE": str(LIMIT)}
        self.command = [sys.executable, HERE / "tools" / "with-s3", "--kept", var / "s3", *SERVE] if on_s3 else SERVE
        self.process = None

    def start(self):
        with open(self.log, "w") as output:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"} | self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        said = web.wait(lambda: re.search(r"(http\S+)\nLog in as (\S+) with password (\S+)\n", self.text()), self.log)
        self.url, self.user, self.password = said.groups()

    def text(self):
        return self.log.read_text()

    def expire(self, name):
        """Makes the upload of a file as old as one that is left for a week, once nothing of it arrives any more."""
        (rows,) = self.var.glob("site*.sqlite3")
        that = "WHERE json_extract(metadata, '$.filename') = ? AND expires > '2020-01-02'"
        with contextlib.closing(sqlite3.connect(rows, timeout=web.PATIENCE, isolation_level=None)) as database:
            while database.execute(f"UPDATE storage_tus_upload SET expires = '2020-01-01' {that}", [name]).rowcount:
                time.sleep(0.3)

    def end(self, number=signal.SIGINT):
        os.killpg(self.process.pid, number)
        return self.process.wait(web.PATIENCE)


@contextlib.contextmanager
def running(site):
    site.start()
    try:
        yield site
    finally:
        assert site.end() == 0, site.text()


@pytest.fixture(scope="module", params=["local", "s3"] if FULL else ["local"])
def site(request, tmp_path_factory):
    """The site on a disk and, in make test-full, as with `make portal S3=1`."""
    with running(Site(tmp_path_factory.mktemp("site"), on_s3=request.param == "s3")) as site:
        yield site
        assert "Traceback" not in site.text()


@pytest.fixture(scope="module")
def cookies(site, browser):
    """Those of somebody who has logged in."""
    with browser.new_page() as tab:
        tab.goto(site.url)
        log_in(tab, site)
        return tab.context.storage_state()


def log_in(tab, site):
    tab.get_by_label("Username").fill(site.user)
    tab.get_by_label("Password").fill(site.password)
    tab.get_by_role("button", name="Log in").click()
    expect(tab.get_by_label("Choose files")).to_be_attached()


@pytest.fixture
def person(browser, cookies, site):
    """A person's browser. No page of it may ask another host, or say anything on its console."""
    with browser.new_context(storage_state=cookies) as context:
        context.said = []
        context.on("request", lambda request: request.url.startswith((site.url, "data:", "blob:")) or stray(request))
        context.on("weberror", lambda error: context.said.append(str(error.error)))

        def stray(request):
            if not request.url.startswith(("chrome:", "chrome-extension:")):  # the viewer of PDFs
                context.said.append(request.url)

        yield context
        assert context.said == []


@pytest.fixture
def tab(person, site):
    return open_tab(person, site)


def open_tab(person, site, rate=None):
    tab = person.new_page()
    tab.on("filechooser", lambda chooser: None)  # from now on: one that is opened at once would be missed
    if rate:
        slow_down(tab, rate)
    tab.goto(site.url)
    return tab


def slow_down(tab, rate, offline=False):
    """Makes the line of a tab as slow as so many bytes a second; -1 is as fast as can be."""
    if not hasattr(tab, "line"):
        tab.line = tab.context.new_cdp_session(tab)
        tab.line.send("Network.enable")
    conditions = {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": rate}
    tab.line.send("Network.emulateNetworkConditions", conditions)


@pytest.fixture
def make(tmp_path):
    """Makes a file, and gives its path and the digest that has to be shown."""

    def make(name, size):
        source, digest = random.Random(name), hashlib.sha256()
        with (tmp_path / name).open("wb") as file:
            while left := size - file.tell():
                data = source.randbytes(min(left, MIB))
                file.write(data)
                digest.update(data)
        os.utime(tmp_path / name, (1_700_000_000, 1_700_000_000))  # what is changed from now on is newer
        return tmp_path / name, digest.hexdigest()

    return make


def choose(tab, *paths):
    tab.get_by_label("Choose files").set_input_files(list(paths))


def item(tab, path):
    return tab.get_by_role("listitem").filter(has_text=path.name)


def press(tab, path, button):
    item(tab, path).get_by_role("button", name=button, exact=True).click()


def percent(tab, path):
    return int(re.search(r"(\d+) %", item(tab, path).inner_text())[1])


def goes_on(tab, path, to):
    """Waits until so many percent are sent."""
    expect(item(tab, path)).to_contain_text(re.compile(r"\d+ % · [\d.]+ MB/s · \d+ s left"))
    bar = f"[...document.querySelectorAll('progress')].some(bar => bar.value > {to / 100})"
    test_browser.until(tab, bar)


def pause_early(tab, path):
    """Chooses a file, and pauses its upload when something is sent."""
    choose(tab, path)
    goes_on(tab, path, 5)
    press(tab, path, "Pause")


def is_stored(tab, path, digest):
    """The one item of the file shows the digest of the store, and offers what can be done with it."""
    expect(item(tab, path)).to_contain_text(digest)
    expect(item(tab, path)).to_have_count(1)
    expect(item(tab, path).get_by_role("button", name="Delete")).to_be_visible()
    expect(item(tab, path).get_by_role("progressbar")).to_have_count(0)


def has_no_flaws(tab):
    """What an accessibility checker calls serious or critical."""
    found = tab.evaluate(f"{AXE}; {EVERYTHING}")["violations"]
    flaws = {flaw["id"]: [node["target"] for node in flaw["nodes"]] for flaw in found if flaw["impact"] != "minor"}
    assert flaws == {}


# ---- uploads


def test_an_upload_is_stored(tab, make, site):
    path, digest = make("Zoë 报告 100%.bin", 5 * MIB)
    choose(tab, path)
    is_stored(tab, path, digest)
    expect(item(tab, path)).to_contain_text("5.2 MB")
    expect(tab.get_by_role("status")).to_have_text(f"{path.name} is uploaded.")
    with tab.expect_download() as started:
        item(tab, path).get_by_role("link", name="Download").click()
    assert started.value.suggested_filename == path.name
    assert started.value.path().read_bytes() == path.read_bytes()
    html = tab.request.get(site.url).text()
    told, words = re.search(r'<time datetime="(\S+)">(.+?)</time>', html).groups()
    assert datetime.fromisoformat(told).strftime("%-d %B %Y, %H:%M UTC") == words and told.endswith("+00:00")


def test_an_upload_behind_a_proxy_that_is_not_believed(person, site, make):
    """The server tells no whole URL of the upload then, and the page knows its endpoint as a path only."""
    person.set_extra_http_headers({"X-Forwarded-Proto": "https"})
    path, digest = make("proxied.bin", 1000)
    tab = open_tab(person, site)
    choose(tab, path)
    is_stored(tab, path, digest)


@long
def test_an_empty_file(tab, make):
    path, digest = make("nothing.txt", 0)
    choose(tab, path)
    is_stored(tab, path, digest)


def test_the_server_is_killed(person, site, make):
    """The page goes on by itself when the server is back, from what had arrived."""
    path, digest = make("film.bin", BIG)
    tab = open_tab(person, site, RATE)
    choose(tab, path)
    goes_on(tab, path, 60)  # of 24 MiB at least: a whole part of 8 MiB has arrived
    site.end(signal.SIGKILL)
    slow_down(tab, -1)
    expect(item(tab, path)).to_contain_text("The connection to the server is lost")
    expect(item(tab, path).get_by_role("button", name="Retry")).to_be_visible()
    password = site.password
    site.start()
    assert site.password == password
    with tab.expect_response(lambda answer: answer.request.method == "HEAD" and answer.ok) as asked:
        pass
    assert int(asked.value.headers["upload-offset"]) >= 8 * MIB
    is_stored(tab, path, digest)


def test_pause_and_cancel(person, site, make):
    tab = open_tab(person, site, SLOWLY)
    path, digest = make("pause.bin", 8 * MIB)
    choose(tab, path)
    goes_on(tab, path, 5)
    assert item(tab, path).get_by_role("progressbar", name=f"Progress of {path.name}").is_visible()
    press(tab, path, "Pause")
    expect(item(tab, path)).to_contain_text("Paused at")
    before = percent(tab, path)
    tab.wait_for_timeout(300)
    assert percent(tab, path) == before
    slow_down(tab, -1)
    press(tab, path, "Resume")
    is_stored(tab, path, digest)

    path, _ = make("cancel.bin", 8 * MIB)
    slow_down(tab, SLOWLY)
    choose(tab, path)
    goes_on(tab, path, 5)
    with tab.expect_response(lambda answer: answer.request.method == "DELETE") as deleted:
        press(tab, path, "Cancel")
    assert deleted.value.status == 204
    expect(item(tab, path)).to_have_count(0)
    tab.reload()
    expect(item(tab, path)).to_have_count(0)


def test_the_tab_is_closed(person, site, make):
    """Who comes back sees the upload, is told of a wrong file, chooses the same one, and only the rest is sent."""
    path, digest = make("closed.bin", BIG)
    tab = open_tab(person, site, RATE // 2)
    choose(tab, path)
    goes_on(tab, path, 20)
    tab.close()
    tab = open_tab(person, site)
    expect(item(tab, path)).to_contain_text("Choose the same file again to go on.")
    other, _ = make("other.bin", 1000)
    with tab.expect_file_chooser() as chooser:
        press(tab, path, "Resume")
    chooser.value.set_files(other)
    expect(tab.get_by_role("alert")).to_contain_text("other.bin is not the file that was begun as closed.bin")
    begun = []
    tab.on("request", lambda request: begun.append(request) if request.method == "POST" else None)
    with tab.expect_response(lambda answer: answer.request.method == "HEAD" and answer.ok) as asked:
        choose(tab, path)
    assert int(asked.value.headers["upload-offset"]) >= MIB
    is_stored(tab, path, digest)
    assert begun == []


def test_going_back(person, site, make):
    """The browser asks for the page again: one that it has kept would not have the upload."""
    path, _ = make("left.bin", 8 * MIB)
    tab = open_tab(person, site, SLOWLY)
    choose(tab, path)
    goes_on(tab, path, 5)
    tab.goto("about:blank")
    tab.go_back()
    expect(item(tab, path)).to_contain_text("Choose the same file again to go on.")
    press(tab, path, "Cancel")
    expect(item(tab, path)).to_have_count(0)


ROWS = "[...document.querySelectorAll('#files li')].map(row => [row.dataset.name, row.querySelector('code').innerText])"


@long
def test_many_files_of_any_name(tab, make, tmp_path):
    """Fifty at once, one of them empty, and then another one with a name that was there."""
    named = ["مخطط البناء.txt", "שלום.txt", "😀👩‍👩‍👧.txt", "a" * 251 + ".txt", "報" * 83 + ".txt", "  blanks  .txt"]
    named += ["<b>&amp;\"'.txt", "100%20.txt", "no-ending", "..two", "new\nline.txt", "-dash", "empty"]
    files = [make(name, 0 if name == "empty" else 1000 + len(name)) for name in named]
    files += [make(f"many-{number}.bin", 200_000) for number in range(50 - len(files))]
    choose(tab, *(path for path, _ in files))
    expect(tab.locator("#uploads li")).not_to_have_count(0)
    expect(tab.locator("#uploads li")).to_have_count(0)
    (tmp_path / "beside").mkdir()
    twin = tmp_path / "beside" / "empty"
    twin.write_text("not at all")
    choose(tab, twin)
    expect(item(tab, twin).filter(has_text=hashlib.sha256(b"not at all").hexdigest())).to_have_count(1)
    expect(tab.get_by_role("alert")).to_have_count(0)
    there = tab.evaluate(ROWS)
    while (older := tab.get_by_role("link", name="Older files")).count():
        page = tab.locator("#files").get_attribute("data-page")
        older.click()
        expect(tab.locator("#files")).not_to_have_attribute("data-page", page)
        there += tab.evaluate(ROWS)
    assert {tuple(row) for row in there} >= {(path.name, digest) for path, digest in files}


@long
def test_two_tabs(person, site, make):
    """The second tab shows what the first one does, begins nothing of its own, and takes over when that is closed."""
    path, digest = make("tabs.bin", BIG)
    one = open_tab(person, site, RATE)
    choose(one, path)
    goes_on(one, path, 10)
    two = open_tab(person, site, RATE)
    expect(item(two, path)).to_contain_text("in another tab or window")
    choose(two, path)
    expect(two.get_by_role("alert")).to_contain_text("tabs.bin is being uploaded already.")
    one.close()
    expect(item(two, path)).to_contain_text("Choose the same file again to go on.")
    choose(two, path)
    three = open_tab(person, site)
    is_stored(two, path, digest)
    is_stored(three, path, digest)


def test_an_upload_expires(person, site, make):
    """Its person is told, and what Retry begins again is stored."""
    path, digest = make("late.bin", 8 * MIB)
    tab = open_tab(person, site, SLOWLY)
    pause_early(tab, path)
    site.expire(path.name)
    slow_down(tab, -1)
    with tab.expect_response(lambda answer: answer.request.method == "HEAD") as asked:
        press(tab, path, "Resume")
    assert asked.value.status == 410
    expect(item(tab, path)).to_contain_text("has expired. Retry begins again.")
    press(tab, path, "Retry")
    is_stored(tab, path, digest)


def test_a_person_is_logged_out(person, site, make):
    """The page says so, and once the person has logged in again beside it, the upload goes on from where it was."""
    path, digest = make("session.bin", 8 * MIB)
    small, small_digest = make("small.bin", 10)
    tab = open_tab(person, site, SLOWLY)
    begun = []
    tab.on("request", lambda request: begun.append(request) if request.method == "POST" else None)
    pause_early(tab, path)
    person.clear_cookies()
    slow_down(tab, -1)
    press(tab, path, "Resume")
    choose(tab, small)
    for one in (path, small):
        expect(item(tab, one)).to_contain_text("You are logged out. Log in again, and the upload goes on.")
    with person.expect_page() as opened:
        item(tab, path).get_by_role("link", name="Log in").click()
    with tab.expect_response(lambda answer: answer.request.method == "HEAD" and answer.ok) as asked:
        log_in(opened.value, site)
    assert int(asked.value.headers["upload-offset"]) > 0
    is_stored(tab, path, digest)
    is_stored(tab, small, small_digest)
    assert len(begun) == 3  # the second of small.bin

    person.clear_cookies()
    for button in ("Download", "Delete"):
        item(tab, small).locator(f"text={button}").click()
    tab.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    said = "You are logged out. Log in again in another tab, and then try again here."
    expect(tab.get_by_role("alert")).to_have_text(
        [f"small.bin cannot be opened. {said}", f"small.bin was not deleted. {said}"]
    )


def test_files_are_dropped(tab, make, tmp_path):
    path, digest = make("dropped.bin", 100)
    other, other_digest = make("dropped too.bin", 200)
    folder = tmp_path / "folder"
    folder.mkdir()
    devtools = tab.context.new_cdp_session(tab)
    data = {"items": [], "files": [str(path), str(folder), str(other)], "dragOperationsMask": 1}
    zone = tab.get_by_role("region", name="Upload files")
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 150, "data": data})
        if kind == "dragOver":
            expect(zone).to_have_class("over")
    expect(zone).to_have_class("")
    is_stored(tab, path, digest)
    is_stored(tab, other, other_digest)
    expect(tab.get_by_role("alert")).to_have_text("folder is a folder. Choose the files in it.")


@long
def test_a_file_changes(person, site, make):
    """It is never joined with what it was before."""
    path, _ = make("draft.bin", 8 * MIB)
    tab = open_tab(person, site, SLOWLY)
    pause_early(tab, path)
    path.write_bytes(b"other bytes" + path.read_bytes()[11:])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    slow_down(tab, -1)
    press(tab, path, "Resume")
    expect(item(tab, path)).to_contain_text("The file was changed, moved or deleted after you had chosen it.")
    choose(tab, path)
    expect(tab.get_by_role("alert")).to_contain_text("draft.bin is not the same as when its upload was begun")
    expect(item(tab, path).filter(has_text="SHA-256")).to_contain_text(digest)
    tab.reload()
    item(tab, path).filter(has_text="Choose the same file again").get_by_role("button", name="Cancel").click()
    is_stored(tab, path, digest)


@long
def test_offline(person, site, make):
    path, digest = make("offline.bin", BIG)
    tab = open_tab(person, site, RATE)
    choose(tab, path)
    goes_on(tab, path, 30)
    slow_down(tab, RATE, offline=True)
    expect(item(tab, path)).to_contain_text("You are offline. The upload goes on when you are back.")
    slow_down(tab, -1)
    is_stored(tab, path, digest)


# ---- refusals

REASON = "Programs and scripts cannot be uploaded here."

ASK = """([name, size, type]) => fetch('/uploads/', {method: 'POST', headers: {
    'Tus-Resumable': '1.0.0', 'Upload-Length': size, 'Upload-Metadata': `filename ${btoa(name)},filetype ${btoa(type)}`
}}).then(answer => answer.status)"""


def test_what_is_refused(tab, make, tmp_path):
    """Nothing is sent of what the page refuses, and the server refuses it too."""
    program, _ = make("Setup.EXE", 10)
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(LIMIT + 1)
    begun = []
    tab.on("request", lambda request: begun.append(request))
    choose(tab, program, large)
    alerts = tab.get_by_role("alert")
    expect(alerts).to_have_text(
        [
            f"Setup.EXE was not uploaded. {REASON}",
            "large.bin was not uploaded. This file is larger than 400 MB.",
        ]
    )
    expect(tab.get_by_role("listitem").filter(has_text=re.compile("Setup|large"))).to_have_count(0)
    assert [request.url for request in begun if "/uploads/" in request.url] == []
    asked = [
        ["a.exe", "5", ""],
        ["a.exe. ", "5", ""],
        ["a.txt", "5", "application/x-msdownload"],
        ["a.txt", str(LIMIT + 1), ""],
        ["a.txt", "5", "text/plain"],
    ]
    assert [tab.evaluate(ASK, one) for one in asked] == [403, 403, 403, 413, 201]
    tab.reload()
    press(tab, Path("a.txt"), "Cancel")
    expect(tab.get_by_role("status")).to_have_text("The upload of a.txt is cancelled.")


NAMES = {
    **dict.fromkeys(["a.exe", "A.ExE", "a.tar.sh", ".exe", "a.exe. .", "b.ps1", "a.jar", "报告.bat"], True),
    **dict.fromkeys(["a.py", "A.Js"], True),
    **dict.fromkeys(["exe", "a.exe.txt", "a.bin", "", ".", "a.", "sh.pdf", "a.shx"], False),
}
HEADS = {
    **dict.fromkeys([b"\x7fELF\2\1", b"MZ\x90\0\3", b"MZ" + bytes(1000), b"#!/bin/sh\n", b"#! /usr/bin/perl"], True),
    **dict.fromkeys([b"#!\t/bin/sh", b"\xca\xfe\xba\xbf\0\0", b"\xca\xfe\xba\xbe\0\0", b"\xcf\xfa\xed\xfe"], True),
    **dict.fromkeys([b"", b"M", b"MZ", b"MZ of the unit is away.\n", b"\x7fEL", b"#!", b"%PDF-1.7", bytes(9)], False),
}


@long
def test_a_limit_that_was_lowered(tab, site, tmp_path):
    """A page that was open before tells that of the server."""
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(LIMIT + 1)
    was = {f'data-max-size="{LIMIT}"': f'data-max-size="{2 * LIMIT}"', 'data-limit="400 MB"': 'data-limit="800 MB"'}

    def as_it_was(route):
        answer = route.fetch()
        route.fulfill(response=answer, body=re.sub("|".join(was), lambda found: was[found[0]], answer.text()))

    tab.route(site.url, as_it_was)
    tab.reload()
    tab.unroute_all()
    assert tab.evaluate("MAX_SIZE") == 2 * LIMIT
    choose(tab, large)
    expect(tab.get_by_role("alert")).to_have_text("large.bin was not uploaded. This file is larger than 400 MB.")


def test_page_and_server_have_the_same_rules(tab):
    assert {name: rules.ending(name) in rules.REFUSED for name in NAMES} == NAMES
    assert {head: rules.is_program(head) for head in HEADS} == HEADS
    names = "names => names.map(name => reasonAgainst(new File([], name)) === page.reason)"
    assert tab.evaluate(names, list(NAMES)) == list(NAMES.values())
    heads = "heads => Promise.all(heads.map(head => isProgram(new File([Uint8Array.from(head)], 'a'))))"
    assert tab.evaluate(heads, [list(head) for head in HEADS]) == list(HEADS.values())


def test_a_program_by_another_name(tab, tmp_path):
    """The page sees it, and the server refuses one that reaches it all the same."""
    program = tmp_path / "holiday.jpg"
    program.write_bytes(b"\x7fELF" + bytes(100))
    choose(tab, program)
    expect(tab.get_by_role("alert")).to_have_text(f"holiday.jpg was not uploaded. {REASON}")
    tab.evaluate("String.prototype.startsWith = () => false")
    with tab.expect_response(lambda answer: answer.request.method == "PATCH") as refused:
        choose(tab, program)
    assert refused.value.status == 422
    expect(tab.get_by_role("alert")).to_have_text([f"holiday.jpg was not uploaded. {REASON}"] * 2)
    expect(item(tab, program)).to_have_count(0)
    tab.reload()
    expect(item(tab, program)).to_have_count(0)


@long
def test_what_is_refused_when_the_page_comes_back(person, site, make):
    """As a program is if the server was killed before it had said so."""
    path, _ = make("back.bin", 8 * MIB)
    tab = open_tab(person, site, SLOWLY)
    pause_early(tab, path)
    tab.route("**/uploads/*", lambda route: route.fulfill(status=422))
    tab.reload()
    expect(tab.get_by_role("alert")).to_have_text(f"back.bin was not uploaded. {REASON}")
    expect(item(tab, path)).to_have_count(0)
    tab.unroute_all()
    tab.reload()
    press(tab, path, "Cancel")
    expect(item(tab, path)).to_have_count(0)


@long
def test_nobody_else(browser, site, tab, make):
    """Who is not logged in sees and does nothing."""
    path, digest = make("mine.txt", 10)
    choose(tab, path)
    is_stored(tab, path, digest)
    url = item(tab, path).get_by_role("link", name="Download").get_attribute("href")
    with browser.new_page() as stranger:
        for place in (site.url, site.url.rstrip("/") + url):
            stranger.goto(place)
            expect(stranger.get_by_role("button", name="Log in")).to_be_visible()
        assert stranger.evaluate(ASK, ["a.txt", "5", ""]) == 403


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (20_000_000_000, "20 GB"),
        (20 * 1024**3, "21.4 GB"),
        (MIB, "1 MB"),
        (999_999_999, "999.9 MB"),
        (1_500, "1.5 kB"),
        (999, "999 bytes"),
        (1, "1 byte"),
        (0, "0 bytes"),
    ],
)
def test_a_limit_in_words(size, said):
    """What is larger than the limit is larger than what is said of it."""
    assert limit(size) == said


@long
def test_pages_of_errors(browser, person, site):
    tab = person.new_page()
    tab.goto(f"{site.url}files/{uuid.uuid4()}/")
    expect(tab.get_by_role("heading", name="There is nothing here")).to_be_visible()
    has_no_flaws(tab)
    tab.get_by_role("link", name="To your files").click()
    expect(tab.get_by_label("Choose files")).to_be_attached()
    with browser.new_page() as stranger:
        stranger.goto(site.url)
        stranger.context.clear_cookies()
        stranger.get_by_label("Username").fill(site.user)
        stranger.get_by_label("Password").fill(site.password)
        stranger.get_by_role("button", name="Log in").click()
        expect(stranger.get_by_role("heading", name="Please try again")).to_be_visible()
        stranger.get_by_role("link", name="To your files").click()
        log_in(stranger, site)


# ---- stored files


@long
def test_previews(tab, tmp_path):
    picture, document, video = (tmp_path / name for name in ("harbour.png", "plan.pdf", "film.webm"))
    Image.new("RGB", (600, 400), "red").save(picture)
    Image.new("RGB", (600, 400), "red").save(document)
    video.write_bytes(test_browser.film())
    choose(tab, picture, document, video)
    dialog = tab.get_by_role("dialog")

    press(tab, picture, "Preview")
    test_browser.until(tab, "document.querySelector('#preview img').naturalWidth == 600")
    dialog.get_by_role("button", name="Close").click()
    press(tab, document, "Preview")
    test_browser.until_red(tab)
    tab.keyboard.press("Escape")
    press(tab, video, "Preview")
    test_browser.until(tab, "document.querySelector('video').readyState >= 2")
    test_browser.seek(tab, 29.7)
    assert tab.evaluate(test_browser.COLOUR) == "blue"
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


@long
def test_a_list_comes_late(tab, make, site):
    """It does not take away what a later one has shown."""
    early, early_digest = make("early.txt", 10)
    late, late_digest = make("late.txt", 10)
    held = []

    def hold(route):
        if held:
            route.continue_()
        else:
            held.append(route)  # at once: the next request may come while this one is fetched
            held.append(route.fetch())

    tab.route(site.url, hold)
    choose(tab, early)
    expect(item(tab, early)).to_contain_text("The server stores it")
    choose(tab, late)
    is_stored(tab, late, late_digest)
    route, answer = held
    route.fulfill(response=answer)
    expect(tab.get_by_role("status")).to_have_text("early.txt is uploaded.")
    is_stored(tab, early, early_digest)
    is_stored(tab, late, late_digest)


@long
def test_a_list_that_cannot_be_had(tab, make, site):
    """The upload gives way to its row as soon as there is a list."""
    path, digest = make("unlisted.txt", 10)
    tab.route(site.url, lambda route: route.abort())
    choose(tab, path)
    expect(item(tab, path)).to_contain_text("It is uploaded. The list cannot be shown now.")
    tab.unroute_all()
    is_stored(tab, path, digest)


def test_delete_is_asked(tab, make, site):
    path, digest = make("old.txt", 10)
    choose(tab, path)
    is_stored(tab, path, digest)
    url = item(tab, path).get_by_role("link", name="Download").get_attribute("href")
    question = tab.get_by_role("alertdialog", name="Delete old.txt?")
    press(tab, path, "Delete")
    question.get_by_role("button", name="Keep it").click()
    is_stored(tab, path, digest)
    press(tab, path, "Delete")
    question.get_by_role("button", name="Delete").click()
    expect(item(tab, path)).to_have_count(0)
    expect(tab.get_by_role("status")).to_have_text("old.txt is deleted.")
    assert tab.request.get(site.url.rstrip("/") + url).status == 404


@long
def test_pages(tab, make):
    """Newest first; another page can be turned to while an upload goes on, and that one is shown when it is done."""
    paths = [make(f"page-{number:02}.txt", 20)[0] for number in range(22)]
    for some in (paths[:11], paths[11:]):
        choose(tab, *some)
        for path in some:
            expect(item(tab, path)).to_contain_text("SHA-256")
    path, digest = make("slow.bin", 6 * MIB)
    slow_down(tab, 3_000_000)
    choose(tab, path)
    tab.get_by_role("link", name="Older files").click()
    expect(tab.get_by_role("navigation", name="Pages of stored files")).to_contain_text("Page 2 of ")
    assert tab.url.endswith("?page=2")
    expect(item(tab, path).get_by_role("progressbar")).to_be_visible()
    is_stored(tab, path, digest)
    assert tab.url.endswith("?page=2")
    tab.goto(tab.url.partition("?")[0])
    names = tab.locator("#files .name").all_inner_texts()
    assert names[0] == "slow.bin" and len(names) == 20
    assert {name[:7] for name in names[1:]} <= {"page-21", "page-20"} | {f"page-{number:02}" for number in range(22)}


@long
def test_the_admin(person, site, make):
    """Uploads that go on are there, with their parts."""
    path, _ = make("parts.bin", BIG)
    tab = open_tab(person, site, RATE)
    choose(tab, path)
    goes_on(tab, path, 40)
    press(tab, path, "Pause")
    admin = open_tab(person, site)
    admin.get_by_role("link", name="Administration").click()
    admin.get_by_role("link", name="Uploads", exact=True).first.click()
    admin.get_by_role("link", name="parts.bin").click()
    assert re.search(r"^1: 8\.0\sMB", admin.inner_text("main"), re.MULTILINE)
    press(tab, path, "Cancel")


# ---- people who see little, or use no mouse


def focused(tab):
    return tab.evaluate("(document.activeElement.labels?.[0] ?? document.activeElement).innerText")


def walk_to(tab, name):
    for _ in range(80):
        if focused(tab) == name:
            return
        tab.keyboard.press("Tab")
    raise AssertionError(f"the Tab key never leads to {name}")


def test_keyboard_only(browser, site, make):
    path, digest = make("keys.bin", 8 * MIB)
    with browser.new_context() as context:
        tab = open_tab(context, site)
        expect(tab.get_by_label("Username")).to_be_focused()
        tab.keyboard.type(site.user)
        tab.keyboard.press("Tab")
        tab.keyboard.type(site.password)
        tab.keyboard.press("Enter")
        expect(tab.get_by_label("Choose files")).to_be_attached()
        slow_down(tab, SLOWLY)
        walk_to(tab, "Choose files")
        with tab.expect_file_chooser() as chooser:
            tab.keyboard.press("Enter")
        chooser.value.set_files(path)
        goes_on(tab, path, 5)
        walk_to(tab, "Pause")
        tab.keyboard.press("Enter")
        assert focused(tab) == "Resume"
        slow_down(tab, -1)
        tab.keyboard.press("Enter")
        is_stored(tab, path, digest)
        assert tab.evaluate("document.activeElement.closest('li')?.innerText.startsWith('keys.bin')")
        walk_to(tab, "Delete")
        tab.keyboard.press("Enter")
        assert focused(tab) == "Keep it"
        tab.keyboard.press("Escape")
        assert focused(tab) == "Delete"
        tab.keyboard.press("Enter")
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        expect(item(tab, path)).to_have_count(0)
        assert focused(tab).startswith("Stored files")


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=long)])
def test_a_checker_finds_no_flaws(browser, person, site, make, scheme):
    """Nor is anything of the page wider than a telephone."""
    path, digest = make(f"{scheme}-{'long-name-' * 12}.bin", 4 * MIB)
    program, _ = make("a.exe", 1)
    with browser.new_page(color_scheme=scheme) as stranger:
        stranger.goto(site.url)
        stranger.get_by_label("Username").fill("nobody")
        stranger.get_by_label("Password").fill("nothing")
        stranger.get_by_role("button", name="Log in").click()
        expect(stranger.get_by_role("alert")).to_be_visible()
        has_no_flaws(stranger)
    tab = open_tab(person, site)
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": 390, "height": 844})
    slow_down(tab, SLOWLY)
    choose(tab, program, path)
    goes_on(tab, path, 5)
    has_no_flaws(tab)
    slow_down(tab, -1)
    is_stored(tab, path, digest)
    press(tab, path, "Delete")
    has_no_flaws(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


# ---- starting


@long
def test_what_is_set_wrongly(tmp_path, site):
    def start(**environment):
        done = subprocess.run(
            [sys.executable, HERE / "portal" / "web" / "serve.py"],
            env=os.environ | {"PORT": "0", "PORTAL_VAR": str(tmp_path)} | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stderr

    taken = site.url.rstrip("/").rpartition(":")[2]
    assert start(PORT=taken) == (1, f"port {taken}: Address already in use. Take another one: make portal PORT=8000\n")
    assert start(PORT="http")[1] == "PORT is a number up to 65535, not 'http'\n"
    assert start(PORTAL_MAX_SIZE="20 GB")[1].startswith("PORTAL_MAX_SIZE is a number of bytes, such as 20000000000")
    assert start(PORTAL_VAR=str(site.log))[1].startswith("PORTAL_VAR is a folder that can be written to: ")
    assert start(STORAGE_BACKEND="s3")[1] == "set AWS_STORAGE_BUCKET_NAME (or STORAGE_ADAPTERS)\n"
    nothing = {"AWS_S3_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "AWS_STORAGE_BUCKET_NAME": "files"}
    assert start(STORAGE_BACKEND="s3", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", **nothing)[1].startswith(
        "files cannot be stored: "
    )


@long
def test_two_that_start_at_once(tmp_path):
    """In one new folder: both are there, with one user."""
    first, second = Site(tmp_path), Site(tmp_path)
    second.log = tmp_path / "second"
    with contextlib.ExitStack() as both, ThreadPoolExecutor() as threads:
        for site in threads.map(lambda site: site.start() or site, (first, second)):
            both.callback(site.end)
    assert first.password == second.password and first.url != second.url


@long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "terminal"])
@pytest.mark.parametrize("s3", ["", "1"], ids=["local", "s3"])
def test_make_portal_ends(tmp_path, number, s3):
    """It leaves nothing behind when its terminal says that it ends."""
    var, log = tmp_path / "a folder", tmp_path / "log"
    with open(log, "w") as output:
        process = subprocess.Popen(
            ["make", "portal", f"S3={s3}", "PORT=0", f"PORTAL_VAR={var}"],
            cwd=HERE.parent,
            env={name: value for name, value in os.environ.items() if name != "MAKELEVEL"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        said = r"^http://127\.0\.0\.1:(\d+)/\nLog in as portal with password \S+\n\Z"
        port = int(web.wait(lambda: re.search(said, log.read_text(), re.MULTILINE), log)[1])
        web.wait(lambda: len(processes_of(var)) >= 4, log)  # make, gunicorn, and two workers
        os.killpg(process.pid, number)
        process.wait(web.PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
    web.wait(lambda: not processes_of(var), log)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


def processes_of(folder):
    """The processes that were told of a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                found.append(process.name)
    return found


def test_the_library_is_what_npm_has():
    """The file in the repository is the one whose digest the build step checks."""
    step = (HERE / "tools" / "vendor").read_text()
    library = HERE / "portal" / "web" / "static" / "web" / "tus.min.js"
    assert re.search(r"^sha256=(\w+)", step, re.MULTILINE)[1] == hashlib.sha256(library.read_bytes()).hexdigest()
