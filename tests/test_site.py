"""The site of `make docs`: every link and picture leads somewhere, and nothing is fetched from elsewhere."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser

import filelock
import headless_browser
import pytest

from fedmrg_core.paths import REPOSITORY

pytest.importorskip("sphinx", reason="Sphinx is not installed: pip install -r requirements.lock")

PAGES = (
    *("docs/running", "docs/results", "docs/site/api", "data_cards/iu_xray", "figures/reference/README"),
    *("notebooks/01_data", "notebooks/06_federated_run", "notebooks/10_benchmark"),
)
# Pictures load when they are scrolled to; here all are loaded now.
LOOK = """
(async () => {
    const pictures = [...document.images];
    pictures.forEach(picture => picture.loading = "eager");
    await Promise.all(pictures.map(picture => picture.decode().catch(() => null)));
    return {
        links: [...document.querySelectorAll("a[href]")].map(link => link.href),
        pictures: pictures.length,
        missing: pictures.filter(picture => picture.naturalWidth === 0).map(picture => picture.src),
        formulas: [...document.querySelectorAll("math")].filter(formula => formula.clientWidth > 0).length,
    };
})()
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The built site: the folder that the variable SITE names, otherwise built here, once for all workers."""
    if os.environ.get("SITE"):
        return (REPOSITORY / os.environ["SITE"]).resolve()
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "site"
    with filelock.FileLock(shared / "site.lock"):
        if not folder.exists():
            built = build(REPOSITORY, folder)
            assert built.returncode == 0, built.stderr
    return folder


def build(source: pathlib.Path, folder: pathlib.Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", REPOSITORY / "docs" / "site"]
    return subprocess.run([*command, source, folder], cwd=REPOSITORY, capture_output=True, text=True, check=False)


# ---- without a browser ----


class Page(HTMLParser):
    """What a page names: its anchors, where its links lead, what it loads."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors.add(given.get("id") or "")
        if tag == "a" and "href" in given:
            self.links.append(given["href"] or "")
        elif tag == "link" and not {"stylesheet", "icon", "preload"}.isdisjoint((given.get("rel") or "").split()):
            self.loaded.append(given["href"] or "")
        elif tag in {"script", "img", "iframe", "source", "video", "audio", "embed"} and given.get("src"):
            self.loaded.append(given["src"] or "")


def target(page: pathlib.Path, address: str) -> tuple[pathlib.Path, str]:
    """The file and the anchor that a page's relative address names."""
    parts = urllib.parse.urlsplit(address)
    path = urllib.parse.unquote(parts.path)
    return (page.parent / path).resolve() if path else page, urllib.parse.unquote(parts.fragment)


def is_outside(address: str) -> bool:
    return bool(urllib.parse.urlsplit(address).scheme) or address.startswith("//")


def faults(site: pathlib.Path) -> list[str]:
    """Links, pictures, scripts and styles of all pages that lead nowhere or are loaded from elsewhere."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [f"{name} loads {address}" for address in page.loaded if is_outside(address)]
        for address in {*page.links, *page.loaded}:
            if is_outside(address) or address.startswith("data:"):
                continue
            file, anchor = target(path, address)
            if not file.is_file():
                found.append(f"{name}: {address} is no file")
            elif anchor and file in pages and anchor not in pages[file].anchors:
                found.append(f"{name}: {address} has no such place")
    return found


def test_every_link_and_picture_of_the_site_is_there(site):
    for name in ("index", *PAGES):
        assert (site / f"{name}.html").is_file(), name
    assert not (site.parent / "jupyter_execute").exists(), "the build writes beside its folder"
    assert not faults(site)


def test_faults_are_found(tmp_path):
    (tmp_path / "index.html").write_text(
        '<a href="no.html">x</a><a href="#there">x</a><p id="here"><a href="#here">x</a><img src="no.png">'
        '<script src="https://example.org/x.js"></script><a href="https://example.org">x</a>'
    )
    assert sorted(faults(tmp_path)) == [
        "index.html loads https://example.org/x.js",
        "index.html: #there has no such place",
        "index.html: no.html is no file",
        "index.html: no.png is no file",
    ]


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "there.md").write_text("# There\n\nBack to [the front](../README.md#front-page).\n")
    links = ("docs/there.md", "docs/there.md#there", "docs/there.md#nowhere", "#nowhere", "nowhere.md", "nowhere.png")
    (tmp_path / "README.md").write_text("# Front page\n\n" + "".join(f"[x]({link}) " for link in links))
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode != 0
    said = [line for line in built.stderr.splitlines() if "xref_missing" in line]
    assert len(said) == 4 and all("nowhere" in line for line in said), built.stderr


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("docs/reproducibility", "fedmrg_core/training/optimisation.py"),  # a link
        ("docs/contracts", "fedmrg_core/data/client_folders.py"),  # named in code
        ("README", "methods.yaml"),
    ],
)
def test_source_files_are_shown(site, page, file):
    path = site / f"{page}.html"
    shown = [place for place, _ in (target(path, address) for address in Page(path).links if not is_outside(address))]
    assert site / "files" / f"{file}.html" in shown
    assert len((site / "files" / f"{file}.html").read_text(encoding="utf-8")) > (REPOSITORY / file).stat().st_size


# ---- with a browser ----


@pytest.fixture(scope="module")
def browser():
    try:
        with headless_browser.browser() as started:
            yield started
    except headless_browser.NoBrowserError as error:
        if os.environ.get("SITE_BROWSER") == "required":
            raise
        pytest.skip(str(error))


def seen(browser: headless_browser.Browser, address: str) -> tuple[dict, list[str]]:
    """What a page shows, and what went wrong while it loaded."""
    events = browser.open(address)
    shown = browser.evaluate(LOOK)
    wrong = [f"{address}: no picture {picture}" for picture in shown["missing"]]
    for event in events:
        detail = event["params"]
        if event["method"] == "Network.requestWillBeSent" and not detail["request"]["url"].startswith(
            ("file:", "data:")
        ):
            wrong.append(f"{address} asks for {detail['request']['url']}")
        elif event["method"] == "Network.loadingFailed":
            wrong.append(f"{address}: a {detail['type']} did not load, {detail['errorText']}")
        elif event["method"] == "Runtime.exceptionThrown":
            wrong.append(f"{address}: {detail['exceptionDetails']['text']}")
    return shown, wrong


def test_a_reader_who_follows_every_link_finds_everything(site, browser):
    sources = {f"{site.as_uri()}/files/{name}.html" for name in ("methods.yaml", "fedmrg_core/contrast.py")}
    waiting, reached, wrong = [(site / "index.html").as_uri()], {}, []
    while waiting:
        address = waiting.pop()
        if address in reached:
            continue
        reached[address], new = seen(browser, address)
        wrong += new
        links = {link.partition("#")[0] for link in reached[address]["links"]}
        # Pages of source files are all alike, and opened up to a few.
        links = {link for link in links if not link.startswith(f"{site.as_uri()}/files/") or link in sources}
        waiting += [link for link in links if link.startswith(site.as_uri()) and link.endswith(".html")]
    assert not wrong and set(reached) >= sources
    assert {(site / f"{name}.html").as_uri() for name in PAGES} <= set(reached)
    assert reached[(site / "docs" / "results.html").as_uri()]["pictures"] > 5
    assert reached[(site / "notebooks" / "06_federated_run.html").as_uri()]["formulas"] > 3


def test_what_is_missing_is_seen(tmp_path, browser):
    page = tmp_path / "index.html"
    page.write_text(
        '<img src="no.png"><script src="no.js"></script><script>nothing()</script>'
        '<link rel="stylesheet" href="http://127.0.0.1:9/no.css">'
    )
    wrong = "\n".join(seen(browser, page.as_uri())[1])
    for part in ("no picture", "asks for http://127.0.0.1:9/no.css", "a Script did not load", "Uncaught"):
        assert part in wrong


def test_the_search_finds_a_page(site, browser):
    browser.open(f"{(site / 'search.html').as_uri()}?q=prototypes")
    found = """
    new Promise(resolve => {
        const look = () => {
            const links = [...document.querySelectorAll("#search-results li a")].map(link => link.href);
            links.length ? resolve(links) : setTimeout(look, 100);
        };
        look();
    })"""
    assert any(link.startswith(site.as_uri()) for link in browser.evaluate(found))
