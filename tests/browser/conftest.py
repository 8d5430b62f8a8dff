"""A real browser before the real service. BROWSER=none leaves these tests out by choice; no browser otherwise is a failure."""

import asyncio
import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from registry.models import Tenant
from tests.conftest import Api, eventually
from tests.depth import DEEP, deep
from tests.factories import make_person, make_processor, make_tenant
from tests.queueing.test_console import session_of

HERE = Path(__file__).parent
PICTURES = HERE.parents[1] / "docs" / "pictures"
LAUNCH = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
SHELL = "chromium-headless-shell"
APT = ("-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::http::Timeout=10", "-o", "Acquire::Retries=0")
LEFT_OUT = pytest.StashKey[int]()
FITS_WITHIN = 3.0  # seconds after a change of the window's size
AXE = gzip.decompress((HERE / "vendor" / "axe.min.js.gz").read_bytes()).decode()

MODES: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
}

# Before the page's own scripts: nothing that an earlier test kept here, a socket that tests can cut or forbid, and violations
# of the CSP where the guard hears them. What a page keeps for its tab is new in each test.
INIT = """
try {
  if (!sessionStorage.getItem("begun")) localStorage.clear();
  sessionStorage.setItem("begun", "yes");
} catch {} // a document without an origin keeps nothing
document.addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
window.line = { blocked: false, sockets: [], opened: 0 };
const Real = window.WebSocket;
window.WebSocket = class extends EventTarget {
  static OPEN = 1;
  constructor(...address) {
    if (window.line.blocked) {
      super();
      setTimeout(() => this.onclose?.({ code: 1006 }), 5);
      return;
    }
    const socket = new Real(...address);
    window.line.opened += 1;
    window.line.sockets.push(socket);
    return socket;
  }
};
"""

# Waits of half a second and more take a tenth of that, in their relation to one another; `waits` has what the page asked for.
HURRY = """
window.waits = [];
for (const name of ["setTimeout", "setInterval"]) {
  const real = window[name];
  window[name] = (work, ms, ...rest) => { window.waits.push(ms); return real(work, ms >= 500 ? ms / 10 : ms, ...rest); };
}
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("BROWSER") == "none":
        mine = [item for item in items if HERE in item.path.parents]
        config.stash[LEFT_OUT] = len(mine)
        items[:] = [item for item in items if item not in mine]
        config.hook.pytest_deselected(items=mine)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if left_out := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{left_out} browser tests left out: BROWSER=none")


# -- The browser -----------------------------------------------------------------------------------------


def find_browser() -> str | None:
    """Path of a chromium; None for Playwright's download, whose place it knows.

    The headless shell comes first, also from Debian's packages: opening a window takes it a third of the time.
    """
    debian = os.geteuid() == 0 and shutil.which("apt-get") is not None
    if found := shutil.which(SHELL) or (debian and _installed(SHELL)):
        return found
    others = ("chromium", "chromium-browser", "google-chrome")
    if found := next(filter(None, map(shutil.which, others)), None) or (debian and _installed("chromium")):
        return found
    if not _try(sys.executable, "-m", "playwright", "install", "chromium"):
        pytest.fail(
            "no browser: no chromium on PATH, none to be had from apt or Playwright (BROWSER=none leaves these tests out)",
            pytrace=False,
        )
    return None


def _installed(package: str) -> str | None:
    """Path of the program that this package of Debian brings, or None."""
    _try("apt-get", "-qq", *APT, "update")
    _try("apt-get", "-qq", "-y", *APT, "install", "--no-install-recommends", package)
    return shutil.which(package)


def _try(*command: str) -> bool:
    return (
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ).returncode
        == 0
    )


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    path = await asyncio.to_thread(find_browser)
    expect.set_options(timeout=10_000)
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=path, args=LAUNCH)
        yield found
        await found.close()


# -- The guard: what no page may do -----------------------------------------------------------------------


@dataclass
class Guard:
    """Collects what went wrong in a page without anybody looking."""

    home: str
    wrong: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)  # parts of messages that a test provokes

    def watch(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._note(f"error: {error}"))
        page.on("request", self._request)
        page.on("websocket", lambda socket: self._address(socket.url.replace("ws", "http", 1)))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._note(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("data:", "blob:")):
            self._address(request.url)

    def _address(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.home).netloc:
            self._note(f"outside: {url}")

    def _note(self, text: str) -> None:
        if not any(part in text for part in self.allowed):
            self.wrong.append(text)


@pytest.fixture
def guard(server: str) -> Guard:
    return Guard(server)


@pytest.fixture
def cookies() -> list[Any]:
    """What the browser sends from the start: nothing, for a guest."""
    return []


@pytest.fixture
def signed_in(tenant: Tenant, server: str) -> list[Any]:
    """The cookies of an operator of `tenant`."""
    return [{"name": "sessionid", "value": session_of(make_person(tenant=tenant)), "url": server}]


@asynccontextmanager
async def _window(browser: Browser, server: str, **options: Any) -> AsyncIterator[BrowserContext]:
    async with await browser.new_context(base_url=server, **MODES["light"], **options) as found:
        found.set_default_timeout(10_000)
        await found.add_init_script(INIT)
        yield found


@pytest.fixture(scope="session")
async def window(browser: Browser, server: str) -> AsyncIterator[BrowserContext]:
    """The window that tests share, with the files of the service in its cache, as those of a person who comes again."""
    async with _window(browser, server) as found:
        yield found


@pytest.fixture(scope="session")
async def plain_window(browser: Browser, server: str) -> AsyncIterator[BrowserContext]:
    async with _window(browser, server, java_script_enabled=False) as found:
        yield found


@asynccontextmanager
async def _visit(window: BrowserContext, guard: Guard, cookies: list[Any]) -> AsyncIterator[Page]:
    """A page of its own, which the guard watches; nobody is signed in when it ends."""
    if cookies:
        await window.add_cookies(cookies)
    window.on("page", guard.watch)
    try:
        yield await window.new_page()
    finally:
        window.remove_listener("page", guard.watch)
        for page in window.pages:
            await page.close()
        await window.clear_cookies()
    assert guard.wrong == []


# A page goes on asking until it is closed: the settings by which its tenant is found stay until then, whatever comes first in
# the arguments of a test. Else it gets a 404, which the guard notes.
@pytest.fixture
async def page(window: BrowserContext, guard: Guard, cookies: list[Any], settings: Any) -> AsyncIterator[Page]:
    async with _visit(window, guard, cookies) as found:
        yield found


@pytest.fixture
async def plain(plain_window: BrowserContext, guard: Guard, cookies: list[Any], settings: Any) -> AsyncIterator[Page]:
    """A page where JavaScript is off."""
    async with _visit(plain_window, guard, cookies) as found:
        yield found


@pytest.fixture
async def own_page(
    browser: Browser, server: str, guard: Guard, cookies: list[Any], settings: Any
) -> AsyncIterator[Page]:
    """A page in a window of its own: with an empty cache, or for a test that changes the window itself."""
    async with _window(browser, server) as window, _visit(window, guard, cookies) as found:
        yield found


async def hurry(page: Page) -> None:
    """Waits of the page take a tenth; for a test of what happens after them. Before the page is opened."""
    await page.add_init_script(HURRY)


# -- The shop ------------------------------------------------------------------------------------------------


@pytest.fixture
def tenant(settings: Any) -> Tenant:
    """The demo's tenant: open to anybody, with two sandbox processors. Named anew each time, as keys of caches are."""
    tenant = make_tenant(f"shop-{uuid4().hex[:8]}", name="Corner shop", open=True)
    for name, fee in (("default", "0.05"), ("fallback", "0.15")):
        make_processor(tenant, name, fee=fee)
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    return tenant


LEVELS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
# What depends on the mode is looked at in each; colours change nothing but contrast.
RULES: dict[str, tuple[str, ...]] = {"light": (), "dark": ("color-contrast",), "phone": ()}
# For pages of the same frame as others that are looked at wholly: the rules that depend on the layout.
BRIEFLY = deep(RULES | {"phone": ("target-size", "scrollable-region-focusable")}, RULES)


# What slides in is half transparent meanwhile, which is no fault of its colours.
STILL = """Promise.allSettled(document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime !== Infinity)
  .map((one) => one.finished)).then(() => true)"""


async def audit(page: Page, *rules: str) -> list[str]:
    """What axe finds wrong, by WCAG 2.2 A and AA, contrast included, or by these rules alone."""
    await page.evaluate(STILL)
    if not await page.evaluate("typeof axe === 'object'"):
        await page.evaluate(AXE)
    options = {"runOnly": list(rules or LEVELS), "reporter": "no-passes"}
    found = await page.evaluate("(options) => axe.run(options)", options)
    return [f"{v['id']}: {n['target']} {_why(n)}" for v in found["violations"] for n in v["nodes"]]


def _why(node: dict[str, Any]) -> str:
    """What axe says of a node; this reporter leaves its summary out."""
    checks = [check for kind in ("any", "all", "none") for check in node.get(kind, [])]
    return node.get("failureSummary") or "; ".join(check["message"] for check in checks)


async def fits(page: Page) -> bool:
    """Nothing sticks out sideways, once charts have followed a change of the window's size."""
    try:
        return await eventually(
            lambda: page.evaluate("document.documentElement.scrollWidth <= innerWidth"), within=FITS_WITHIN
        )
    except TimeoutError:
        return False


async def looks_right(page: Page, name: str, folder: Path, rules: dict[str, tuple[str, ...]] = RULES) -> None:
    """The page that is open fits and has no fault that axe knows, in light, in dark, and on a phone. `make test-deep` keeps a
    picture of each."""
    for mode in ("phone", "dark", "light"):  # it stays in light
        await page.emulate_media(color_scheme=MODES[mode]["color_scheme"])
        await page.set_viewport_size(MODES[mode]["viewport"])
        assert await fits(page), f"{name} in {mode}"
        assert await audit(page, *rules[mode]) == [], f"{name} in {mode}"
        if DEEP:
            await page.screenshot(path=folder / f"{name}-{mode}.png", full_page=True)


async def pay_many(api: Api, count: int) -> list[str]:
    answers = await asyncio.gather(*(api.pay(f"{n}.50", description=f"Order {n}") for n in range(1, count + 1)))
    return [answer["correlationId"] for answer in answers]
