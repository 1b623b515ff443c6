"""Every page in a real browser: axe finds nothing, nothing moves, little is loaded."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

import screens
from consoles import Console

from relay.rules.access import Role

pytestmark = pytest.mark.slow

#: WCAG 2.2 AA and what axe's authors hold for good practice.
RULES = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }
}
#: Bytes of a page with all that it loads.
HEAVIEST = 150_000
#: How much of the view moved, as Chromium counts it for the Cumulative Layout Shift.
SHIFTS = """() => new Promise(resolve => {
  let moved = 0;
  new PerformanceObserver(list => { for (const each of list.getEntries()) moved += each.value; })
    .observe({type: 'layout-shift', buffered: true});
  setTimeout(() => resolve(moved), 300);
})"""

#: Short words of tables that are broken over lines, and the current page if the row hides it.
HIDDEN = """() => {
  const found = [];
  const range = document.createRange();
  const isWord = (node) => /^\\s*[\\w-]{2,12}\\s*$/.test(node.data);
  for (const table of document.querySelectorAll('.scroll table')) {
    const texts = document.createTreeWalker(table, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const node = texts.currentNode;
      if (!isWord(node)) continue;
      range.selectNodeContents(node);
      const word = node.data.trim();
      if (!word.includes('-') && range.getClientRects().length > 1) found.push(word);
    }
  }
  const here = document.querySelector('.side [aria-current]')?.getBoundingClientRect();
  if (here && (here.left < 0 || here.right > innerWidth)) found.push('the name of the page');
  return found;
}"""


@pytest.fixture(scope="module")
def browser(missing: Callable[[str, str], None]) -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        missing("chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Console, str, Any]]:
    with screens.served(tmp_path_factory.mktemp("console")) as (console, address):
        yield console, address, screens.tell(console)


def _open(page: Page, address: str, name: str, path: str) -> None:
    page.goto(address + path)
    if name == "routes-tried":
        page.click("text=Try it")
        page.wait_for_load_state()


@pytest.mark.parametrize("mode", screens.MODES)
def test_axe_finds_nothing(
    browser: Browser, story: tuple[Console, str, dict[str, str]], mode: str
) -> None:
    console, address, pages = story
    page = screens.open_page(browser, console, Role.ADMIN, **screens.MODES[mode])
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    found = []
    for name, path in pages.items():
        _open(page, address, name, path)
        result = Axe().run(page, options=RULES)
        found += [
            f"{name}: {each['id']} at {[node['target'] for node in each['nodes']][:3]}"
            for each in result.response["violations"]
        ]
    page.goto(f"{address}/console/sign-in")
    result = Axe().run(page, options=RULES)
    found += [f"sign in: {each['id']}" for each in result.response["violations"]]
    page.context.close()

    assert found == []
    assert said == []


def test_pages_are_light_still_and_fit_a_phone(
    browser: Browser, story: tuple[Console, str, dict[str, str]]
) -> None:
    console, address, pages = story
    faults = []
    for name, path in pages.items():
        page = screens.open_page(
            browser, console, Role.ADMIN, viewport={"width": 360, "height": 740}
        )
        sizes: list[int] = []

        def finished(request: Request, sizes: list[int] = sizes) -> None:
            response = request.response()
            sizes.append(len(response.body()) if response and response.status == 200 else 0)

        page.on("requestfinished", finished)
        _open(page, address, name, path)
        page.wait_for_load_state("networkidle")
        moved = page.evaluate(SHIFTS)
        width = page.evaluate("document.documentElement.scrollWidth")
        hidden = page.evaluate(HIDDEN)
        page.context.close()
        if hidden:
            faults.append(f"{name}: broken or out of view: {', '.join(hidden)}")
        if sum(sizes) > HEAVIEST:
            faults.append(f"{name}: {sum(sizes):,} bytes")
        if moved > 0.001:
            faults.append(f"{name}: moves by {moved}")
        if width > 360:
            faults.append(f"{name}: {width} pixels wide")

    assert faults == []
