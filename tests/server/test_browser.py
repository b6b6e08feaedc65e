"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import json
import shutil
import threading
import time

import pytest

from blindtune.server.api.app import create_app
from blindtune.server.tables import jobs, tokens
from tests.server.serving import serving
from tests.server.told import Told

CHROMIUM = shutil.which("chromium")
WAIT = 60_000
"""Milliseconds that an expectation may take on a busy machine."""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"
)

SIZES = {"phone": (360, 740), "desktop": (1280, 900)}
STUDY, OTHER = "3fa2" * 8, "77b0" * 8
PROGRESS = {
    "step": 2, "steps": 4, "phase": "residual", "level": 11,
    "modulus_bits": 412.4, "modulus_bits_whole": 881.3,
    "done": 30, "total": 100, "seconds": 75.0, "eta": 100.0, "memory": 3_400_000_000,
    "operations": {"multiply": 120, "rotate": 40}, "planned": {"multiply": 400, "rotate": 160},
}  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    playwright.expect.set_options(timeout=WAIT)
    with playwright.sync_playwright() as running:
        # Tests may run as root, where Chromium's sandbox cannot.
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def expect():
    from playwright.sync_api import expect

    return expect


class Board(Told):
    """A service over which a page is open."""

    def __init__(self, directory):
        super().__init__(directory)
        self.study("clinic", STUDY, changed=1.7e9)
        self.job("clinic", STUDY, "0" * 32, state="running", started=1.7e9, cores=2, lease=1.0,
                 progress=json.dumps(PROGRESS))  # fmt: skip
        self.study("hospital", OTHER)
        self.job(
            "hospital", OTHER, "1" * 32, error="<img src=x onerror=document.title='run'>", state="failed"
        )

    def progress(self, **values):
        self.change(jobs, jobs.c.id == "0" * 32, progress=json.dumps(PROGRESS | values), lease=time.time())


@pytest.fixture
def board(tmp_path):
    made = Board(tmp_path)
    yield made
    made.service.close()


@pytest.fixture
def stopped():
    """Once set, streams of events end."""
    return threading.Event()


@pytest.fixture
def url(board, stopped):
    with serving(create_app(board.service, stopping=stopped.is_set)) as address:
        yield address
        stopped.set()


@pytest.fixture
def visit(browser, url):
    """Opens the page; whatever the browser complains of fails the test."""
    contexts, complaints = [], []

    def opened(size="desktop", scheme="light"):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.set_default_timeout(WAIT)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [c for c in complaints if "401" not in c] == []


def sign_in(page, token):
    page.get_by_label("Access token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def test_a_tenant_sees_its_own_training_live(visit, board, expect):
    page = visit()
    sign_in(page, board.tokens["clinic"])
    expect(page.get_by_text("Tenant clinic")).to_be_visible()
    training = page.get_by_role("article")
    expect(training).to_contain_text("Step 2 of 4: evaluating the residual polynomial, 30 %")
    for told in ("11; 412 of 881 bits", "160 of 560", "1 min 15 s", "about 1 min 40 s", "3.40 GB"):
        expect(training).to_contain_text(told)
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "30")
    page.get_by_text("Operations by kind").click()
    expect(page.get_by_role("row", name="multiply 120 400")).to_be_visible()
    board.progress(done=55, step=3, operations={"multiply": 200, "rotate": 80})
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "55")
    # What was folded open stays so while figures change.
    expect(page.get_by_role("row", name="multiply 200 400")).to_be_visible()
    board.change(jobs, jobs.c.id == "0" * 32, state="done", changed=time.time())
    expect(page.get_by_text("Nothing is training.")).to_be_visible()
    expect(page.locator("#news")).to_have_text("Study 3fa23fa2…3fa2: done")
    assert OTHER not in page.content()
    assert "hospital" not in page.locator("#board").inner_text()


def test_an_operator_sees_all_tenants_and_text_is_never_markup(visit, board, expect):
    page = visit()
    sign_in(page, board.tokens["operator"])
    rows = page.locator("#studies > li")
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text="clinic")).to_have_count(1)
    failed = rows.filter(has_text="hospital")
    failed.locator("summary").click()
    expect(failed.get_by_role("listitem")).to_contain_text("<img src=x onerror=")
    assert page.locator("#board img").count() == 0
    assert "run" not in page.title()
    assert "north" not in page.content()


def test_the_page_is_used_by_keyboard_alone(visit, board, expect):
    page = visit()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Access token")).to_be_focused()
    page.keyboard.type(board.tokens["clinic"])
    page.keyboard.press("Enter")
    expect(page.get_by_text("Tenant clinic")).to_be_visible()
    summary = page.locator("#studies summary")
    while not summary.evaluate("e => e === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Data of members")).to_be_visible()
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"


def test_a_wrong_token_is_told_and_a_revoked_one_leaves(visit, board, expect, stopped):
    page = visit()
    sign_in(page, "bt_" + "0" * 16 + "_" + "x" * 43)
    expect(page.get_by_role("alert")).to_contain_text("does not accept this token")
    expect(page.get_by_label("Access token")).to_be_focused()
    sign_in(page, board.tokens["clinic"])
    expect(page.locator("#link")).to_have_text("live")
    board.change(tokens, tokens.c.tenant == board.tenants["clinic"], revoked=time.time())
    stopped.set()
    expect(page.get_by_role("alert")).to_contain_text("revoked")
    expect(page.locator("#board")).to_be_hidden()
    assert STUDY not in page.content()


def test_the_token_stays_in_its_tab(visit, board, expect):
    page = visit()
    sign_in(page, board.tokens["clinic"])
    expect(page.get_by_text("Tenant clinic")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Tenant clinic")).to_be_visible()
    assert page.evaluate("document.cookie + JSON.stringify(localStorage)") == "{}"
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Access token")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_page_comes_back_after_the_server_did(visit, board, expect, stopped):
    page = visit()
    sign_in(page, board.tokens["clinic"])
    expect(page.locator("#link")).to_have_text("live")
    stopped.set()
    expect(page.locator("#link")).to_have_text("connecting")
    board.progress(done=77)
    stopped.clear()
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "77")
    expect(page.locator("#link")).to_have_text("live")


CONTRAST = """
() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = channels(colour).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if ((channels(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility() || node.closest("noscript")) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([node.nodeName, node.className, node.textContent.trim().slice(0, 30), ratio]);
  }
  return found;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_can_be_read(visit, board, expect, size, scheme):
    page = visit(size, scheme)
    assert page.evaluate(CONTRAST) == []
    sign_in(page, board.tokens["operator"])
    expect(page.locator("#studies > li")).to_have_count(2)
    for summary in page.locator("#studies summary").all():
        summary.click()
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
