"""The pages as a site: no broken link, every page is found, nothing is loaded from elsewhere."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs/site"
BUILDER = runpy.run_path(str(SITE / "build.py"))
#: Elements that load what their attribute names.
LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


def navigation() -> list[str]:
    """Return the pages in the order in which the site shows them."""

    class Loader(yaml.SafeLoader):
        """Reads what only the generator understands as nothing."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    config = yaml.load((SITE / "mkdocs.yml").read_text(encoding="utf-8"), Loader)  # noqa: S506

    def leaves(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
            return
        for each in node.values() if isinstance(node, dict) else node:
            yield from leaves(each)

    return list(leaves(config["nav"]))


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(navigation()) == sorted(BUILDER["pages"]().values())


def test_links_to_files_of_the_repository_lead_to_the_web() -> None:
    page = "[unit](../deploy/a.service) [x](b.md#c) [y](../README.md) [z](#d) ![i](images/i.png)"
    names = {"docs/a.md": "a.md", "docs/b.md": "b.md", "README.md": "index.md"}

    changed = BUILDER["for_the_site"](page, "docs/a.md", names, "https://host/blob")

    assert changed == (
        "[unit](https://host/blob/deploy/a.service) [x](b.md#c) [y](index.md) [z](#d)"
        " ![i](images/i.png)"
    )


@pytest.mark.slow
def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(SITE / "reference.py"), "--check"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zensical")
    to = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, str(SITE / "build.py"), str(to)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return to


class Loads(HTMLParser):
    """What a page loads by itself."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("next", "prev", "canonical"):
            return
        if url := given.get(LOADING.get(tag, "")):
            self.found.append(url)


@pytest.mark.slow
def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    styles = "".join(each.read_text(encoding="utf-8") for each in site.rglob("*.css"))

    loaded = {(page.name, url) for page in pages for url in Loads(page).found}

    assert len(loaded) > 4 * len(pages)
    assert [each for each in sorted(loaded) if urlsplit(each[1]).netloc] == []
    assert re.findall(r"url\(['\"]?(?:https?:)?//[^)]*|@import[^;]*", styles) == []


@pytest.mark.slow
def test_every_file_that_a_page_loads_is_there(site: Path) -> None:
    missing = [
        f"{page.name}: {url}"
        for page in site.rglob("*.html")
        for url in Loads(page).found
        # The page for what is not found does not know how deep it is shown.
        if page.name != "404.html" and not (page.parent / urlsplit(url).path).is_file()
    ]

    assert missing == []


@pytest.mark.slow
def test_the_search_has_words_of_every_page(site: Path) -> None:
    index = json.loads((site / "search.json").read_text(encoding="utf-8"))
    words: dict[str, int] = {}
    for each in index["items"]:
        page = each["location"].partition("#")[0]
        words[page] = words.get(page, 0) + len(re.findall(r"\w+", each["text"]))

    there = {each.replace(".md", ".html") for each in navigation()}
    assert there <= words.keys()
    assert [page for page in sorted(there) if words[page] < 100] == []


@pytest.fixture(scope="module")
def browser(missing: Callable[[str, str], None]) -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        missing("chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_reader_searches_and_the_browser_asks_nobody_else(
    address: str, browser: Browser
) -> None:
    asked: list[str] = []
    with browser.new_page() as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/index.html")
        page.keyboard.press("/")
        page.get_by_placeholder("Search").fill("diagnose signature")
        page.locator('a[href*="/mending.html?h="]').first.click()
        page.wait_for_url("**/mending.html*")

    assert [each for each in asked if not each.startswith((address, "data:", "blob:"))] == []
