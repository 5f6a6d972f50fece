"""In Chromium: objects that object_response serves, by gunicorn and uvicorn, on a disk and on S3."""

import contextlib
import io
import struct
import time
from urllib.parse import urlencode

import pytest
from conftest import make_local, place_on
from PIL import Image
from servers import web

from storage import S3StorageAdapter

NAME = "Zoë 报告 100%.bin"
PERCENT = "%41 100%25.bin"


# ---- a film


def element(name, *body):
    """An element of Matroska, of which WebM is a subset."""
    body = b"".join(body)
    return bytes.fromhex(name) + (1 << 56 | len(body)).to_bytes(8) + body


def number(name, value):
    return element(name, value.to_bytes(8))


def frame(colour, size):
    """A key frame of VP8: the one of which a WebP image consists. Noise makes it large."""
    picture = Image.blend(Image.effect_noise(size, 200).convert("RGB"), Image.new("RGB", size, colour), 0.6)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=98)
    header, data = file.getvalue()[:20], file.getvalue()[20:]
    assert header[12:16] == b"VP8 "
    return data[: int.from_bytes(header[16:], "little")]


def film(seconds=30, rate=10, size=(320, 180)):
    """A WebM of 14 MB: red in its first half and blue in its second, with an index of its frames."""
    red, blue = frame("red", size), frame("blue", size)
    times = range(0, seconds * 1000, 1000 // rate)
    pictures = [element("A3", b"\x81\0\0\x80", red if at < seconds * 500 else blue) for at in times]
    clusters = [element("1F43B675", number("E7", at), one) for at, one in zip(times, pictures, strict=True)]
    info = element("1549A966", number("2AD7B1", 1_000_000), element("4489", struct.pack(">d", seconds * 1000)))
    video = element("E0", number("B0", size[0]), number("BA", size[1]))
    tracks = element(
        "1654AE6B",
        element("AE", number("D7", 1), number("73C5", 1), number("83", 1), element("86", b"V_VP8"), video),
    )

    def index(position):
        points = []
        for at, cluster in zip(times, clusters, strict=True):
            where = element("B7", number("F7", 1), number("F1", position))
            points.append(element("BB", number("B3", at), where))
            position += len(cluster)
        return element("1C53BB6B", *points)

    cues = index(len(info + tracks + index(0)))
    head = element("1A45DFA3", element("4282", b"webm"), number("4287", 2), number("4285", 2))
    return head + element("18538067", info, tracks, cues, *clusters)


# ---- what all tests use


def picture(form, size=(50, 40)):
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, form)
    return file.getvalue()


SCRIPT = "document.title = 'a script ran'"
OBJECTS = {
    "film.webm": (film(), "video/webm"),
    "a.png": (picture("PNG"), "image/png"),
    "a.pdf": (picture("PDF"), "application/pdf"),
    "a.svg": (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="60" height="20" onload="{SCRIPT}"><script>{SCRIPT}</script>'
        '<rect width="60" height="20" style="fill: blue"/></svg>'.encode(),
        "image/svg+xml",
    ),
    "a.html": (f"<title>Zoë</title><meta charset=utf-8><h1>报告</h1><script>{SCRIPT}</script>".encode(), "text/html"),
    "a.txt": ("Zoë, 报告".encode(), "text/plain"),
    "b.txt": ("Zoë, 报告".encode("utf-16"), "text/plain; charset=utf-16"),
}


@pytest.fixture(scope="module", params=[f"{kind}-{where}" for kind in web.SERVERS for where in ("local", "s3")])
def site(request, tmp_path_factory):
    """The URL of a server with OBJECTS on a disk or in a bucket."""
    root = tmp_path_factory.mktemp("site")
    kind, _, where = request.param.partition("-")
    if where == "s3":
        place = place_on(request.getfixturevalue("versitygw"))
        adapter, environment = S3StorageAdapter(**place.options), place.environment
    else:
        adapter, environment = make_local(root), {}
    with contextlib.closing(adapter):
        for name, (data, content_type) in OBJECTS.items():
            adapter.put_final(name, data, content_type=content_type)
    with web.serving(kind, root, environment) as (url, log):
        yield url
        assert "Traceback" not in log.read_text()


on_one_server = pytest.mark.parametrize("site", ["uvicorn-local"], indirect=True)


@pytest.fixture
def tab(browser):
    """A tab of the browser that keeps what its console says, and the answers that it gets."""
    with browser.new_page() as tab:
        tab.said, tab.answers = [], []
        tab.on("console", lambda message: tab.said.append(message.text))
        tab.on("response", lambda answer: tab.answers.append(answer))
        yield tab


def until(tab, condition):
    """Waits until a condition holds in the page, also where the page may run no script."""
    latest = time.monotonic() + web.PATIENCE
    while not tab.evaluate(condition):
        assert time.monotonic() < latest, f"{condition} {tab.said}"
        tab.wait_for_timeout(20)


# ---- the tests

VIDEO = "document.querySelector('video')"
COLOUR = """() => {
    const video = document.querySelector('video');
    const context = document.createElement('canvas').getContext('2d');
    context.drawImage(video, 0, 0);
    const [red, green, blue] = context.getImageData(100, 100, 1, 1).data;
    return red > blue ? 'red' : 'blue';
}"""


def seek(tab, to):
    tab.evaluate(f"{VIDEO}.currentTime = {to}")
    until(tab, f"!{VIDEO}.seeking")


def play(tab, url):
    """Plays the film from its beginning, its end, and once more near its beginning."""
    tab.goto(url)
    until(tab, f"{VIDEO}.readyState >= 2")
    assert tab.evaluate(f"[{VIDEO}.duration, {VIDEO}.videoWidth]") == [30, 320]
    tab.evaluate(f"{VIDEO}.muted = true; {VIDEO}.play()")
    until(tab, f"{VIDEO}.currentTime > 0.1")
    until(tab, f"({COLOUR})() == 'red'")
    seek(tab, 29.7)
    until(tab, f"({COLOUR})() == 'blue'")
    until(tab, f"{VIDEO}.ended")
    seek(tab, 1)
    until(tab, f"({COLOUR})() == 'red'")  # a moment after the seek, the picture before it may still be there
    assert tab.said == []


def is_idle(tab, site):
    """Leaving the page ends what is still read for it."""
    tab.goto(f"{site}/process/")
    until(tab, f"fetch('{site}/process/').then(answer => answer.json()).then(process => process.readers == 0)")


def test_a_video_plays_and_can_be_sought(site, tab):
    play(tab, f"{site}/page/film.webm")
    answers = [answer for answer in tab.answers if answer.url.endswith("/film.webm") and "/page/" not in answer.url]
    assert {answer.status for answer in answers} == {206}
    starts = [int(answer.headers["content-range"].removeprefix("bytes ").partition("-")[0]) for answer in answers]
    assert starts[0] == 0 and max(starts) > 10_000_000
    is_idle(tab, site)


@on_one_server
@pytest.mark.parametrize("view", ["", "async/"], ids=["function", "coroutine"])
def test_a_video_is_opened_by_itself(site, tab, view):
    play(tab, f"{site}/{view}film.webm")
    is_idle(tab, site)


@on_one_server
def test_what_is_shown(site, tab):
    """Images and text are shown, scripts do not run, and the console tells of nothing else."""
    for name, size in {"a.png": [50, 40], "a.svg": [60, 20]}.items():
        tab.goto(f"{site}/page/{name}")
        until(tab, "document.images[0].complete")
        assert tab.evaluate("[document.images[0].naturalWidth, document.images[0].naturalHeight]") == size
    tab.goto(f"{site}/a.png")
    assert tab.evaluate("document.images[0].naturalWidth") == 50
    for name in ("a.txt", "b.txt"):
        tab.goto(f"{site}/{name}")
        assert tab.inner_text("body") == "Zoë, 报告"
    assert tab.said == []
    tab.goto(f"{site}/a.svg")
    assert tab.evaluate("getComputedStyle(document.querySelector('rect')).fill") == "rgb(0, 0, 255)"
    tab.goto(f"{site}/a.html")
    assert (tab.title(), tab.inner_text("body")) == ("Zoë", "报告")
    assert len(tab.said) >= 2 and all("Blocked script" in message for message in tab.said)


@on_one_server
def test_a_pdf_is_shown(site, tab):
    tab.goto(f"{site}/page/a.pdf")
    until_red(tab)


def until_red(tab):
    latest = time.monotonic() + web.PATIENCE
    while reds(tab.screenshot()) < 1000:
        assert time.monotonic() < latest, "there is nothing red in the page"


def reds(screenshot):
    """The number of pixels of a picture that are about red."""
    image = Image.open(io.BytesIO(screenshot)).convert("RGB")
    counted = image.getcolors(image.width * image.height)
    return sum(count for count, (red, green, blue) in counted if red > 200 > 50 > max(green, blue))


@on_one_server
def test_a_download_has_its_name(site, tab):
    for name, told in (("a.pdf", NAME), ("a.html", PERCENT), ("film.webm", NAME)):
        with tab.expect_download() as started:
            tab.goto(f"{site}/page/a.png")
            tab.evaluate("url => { location = url }", f"{site}/{name}?{urlencode({'filename': told})}")
        download = started.value
        assert download.suggested_filename == told
        assert download.path().read_bytes() == OBJECTS[name][0]
    assert tab.said == []
