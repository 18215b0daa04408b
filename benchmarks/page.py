"""The dashboard in a real browser, for an app of works that do nothing: the speed that a user sees.

Four measurements: the first paint and the time until the works are drawn; the time from a change in the app until it is
drawn; frames while 1,000 works are scrolled, beside the frames of the same idle page, which are the limit of this
browser on this machine; and whether three pages keep up with 5,000 changes a second. Without a graphics card the
browser draws by software, and it shares the cores with the app and the other pages. So these are worst cases.

Needs playwright and a chromium: ``bash .ci/browser`` and the dependency group ``browser``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

from benchmarks.harness import Budget, Report, Scale
from benchmarks.works import Waiting
from lightwork import App, Work

__all__ = ["measure"]

STREAM = 5_000
"""Changes per second."""

SECONDS = 5.0

ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]

WATCH_ROWS = """
new MutationObserver((_, observer) => {
  if (!document.querySelector(".work-row")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.rowsAt = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""
"""Records when the first row of a work is drawn."""

WATCH_VALUE = """(path) => {
  window.seen = {};
  const look = () => {
    const text = document.querySelector(`[data-path="${path}"] .value`)?.textContent;
    if (text === undefined || text in window.seen) return;
    window.seen[text] = 0;
    // After the frame in which it is drawn, not when it is in the document.
    requestAnimationFrame(() => setTimeout(() => {
      window.seen[text] = (performance.timeOrigin + performance.now()) / 1000;
    }));
  };
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true, characterData: true });
}"""
"""Records when each text of an attribute is drawn, by the clock that all processes share."""

FRAMES = """([seconds, scrolls]) => new Promise((done) => {
  const box = document.querySelector(".works-list .vlist");
  const times = [];
  let direction = 1;
  const frame = (now) => {
    times.push(now);
    if (scrolls) {
      if (box.scrollTop + box.clientHeight >= box.scrollHeight - 1) direction = -1;
      else if (box.scrollTop <= 0) direction = 1;
      box.scrollTop += direction * 90;
    }
    if (now - times[0] < seconds * 1000) requestAnimationFrame(frame);
    else done(times);
  };
  requestAnimationFrame(frame);
})"""
"""Returns the times of the frames within that many seconds."""

COUNTERS = "import('/js/store.js').then(({ counters }) => ({ ...counters }))"


UNTIL_THERE = """async (name) => {
  const { model } = await import("/js/store.js");
  while (model.valueAt(name, ["value"]) !== -1) await new Promise((go) => setTimeout(go, 4));
}"""
"""Returns when the page has received the last change."""


class Still(Work):
    """Has a state, and does nothing."""

    def __init__(self) -> None:
        super().__init__(parallel=True, start_with_flow=False)
        self.value = 0
        self.losses: list[int] = []

    async def run(self) -> None:
        return None


@asynccontextmanager
async def shown(count: int) -> AsyncIterator[tuple[App[Waiting], list[Still], str]]:
    """Run an app of `count` works with an HTTP server."""
    works = [Still() for _ in range(count)]
    async with App(Waiting(works), http=True, http_port=0, runtime="inprocess") as app:
        assert app.url is not None
        yield app, works, app.url.rstrip("/") + "/"


@asynccontextmanager
async def page_of(browser: Any, address: str) -> AsyncIterator[Any]:
    """Open a page with an empty browser profile, so nothing is cached."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    try:
        page = await context.new_page()
        page.set_default_timeout(120_000)
        await page.add_init_script(WATCH_ROWS)
        await page.goto(address)
        yield page
    finally:
        await context.close()


async def plain_paint(browser: Any, url: str) -> float:
    """Return the milliseconds until a text of the same server is drawn: the browser's share, without our page."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    try:
        page = await context.new_page()
        page.set_default_timeout(120_000)
        await page.goto(url + "vendor/NOTICE.md")
        await page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length")
        return float(await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    finally:
        await context.close()


async def first_paint(browser: Any, url: str) -> tuple[float, float]:
    """Return the milliseconds from the request for the page until the first paint, and until the works are drawn."""
    async with page_of(browser, url + "#/works") as page:
        await page.wait_for_function("() => window.rowsAt")
        paint = await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        return paint, await page.evaluate("window.rowsAt")


async def until_drawn(browser: Any, url: str, works: list[Still], count: int) -> list[float]:
    """Return the milliseconds from each change of an attribute until it is drawn, one change after the other."""
    name = works[0].name
    async with page_of(browser, f"{url}#/works/{name}/state") as page:
        await page.wait_for_selector(f'[data-path="{name}.value"]')
        await page.evaluate(WATCH_VALUE, f"{name}.value")
        samples = []
        for number in range(1, count + 1):
            made = time.time()
            works[0].value = number
            await page.wait_for_function("text => window.seen[text]", arg=str(number))
            samples.append((await page.evaluate(f"window.seen['{number}']") - made) * 1000)
        return samples


async def frames(browser: Any, url: str, seconds: float, *, scrolls: bool) -> list[float]:
    """Return the milliseconds between frames while the list of works scrolls, or while the page is idle."""
    async with page_of(browser, url + "#/works") as page:
        await page.wait_for_function("() => window.rowsAt")
        times = await page.evaluate(FRAMES, [seconds, scrolls])
        return [after - before for before, after in pairwise(times)]


class Streamed:
    """The rates of three pages that read a stream of changes.

    Attributes:
        sent: Changes per second that the app made.
        applied: Changes per second that each page applied.
        flushes: Updates per second of each page.
        lag: Milliseconds from the last change until the slowest page had it.
    """

    def __init__(self) -> None:
        self.sent = 0.0
        self.applied: list[float] = []
        self.flushes: list[float] = []
        self.lag = 0.0


async def stream(browser: Any, url: str, works: list[Still], seconds: float) -> Streamed:
    """Open three pages with three views, and change the works' attributes in turns."""
    found = Streamed()
    name = works[0].name
    async with (
        page_of(browser, url + "#/works") as first,
        page_of(browser, url + "#/state") as second,
        page_of(browser, f"{url}#/works/{name}") as third,
    ):
        pages = [first, second, third]
        for page in pages:
            await page.wait_for_function("() => document.querySelector('main:not(.waiting)')")
        before = [await page.evaluate(COUNTERS) for page in pages]
        began, sent = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            while sent < passed * STREAM:
                sent += 1
                losses = works[sent % len(works)].losses
                losses.append(sent)  # no change makes another unnecessary: each one is sent
                if len(losses) > 100:
                    losses.clear()
            await asyncio.sleep(0.005)
        found.sent = sent / passed
        for work in works:
            work.value = -1
        ended = time.perf_counter()
        last = works[-1].name
        await asyncio.gather(*[page.evaluate(UNTIL_THERE, last) for page in pages])
        found.lag = (time.perf_counter() - ended) * 1000
        for page, old in zip(pages, before, strict=True):
            new = await page.evaluate(COUNTERS)
            found.applied.append((new["changes"] - old["changes"]) / (time.perf_counter() - began))
            found.flushes.append((new["flushes"] - old["flushes"]) / (time.perf_counter() - began))
    return found


async def look(report: Report, scale: Scale, path: str) -> None:
    """Measure everything in one browser."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        async with shown(scale.idle_works) as (_, works, url):
            plain, paints = [], []
            for _ in range(scale.repeats + 1):  # in turns, so that a busy moment affects both
                plain.append(await plain_paint(browser, url))
                paints.append(await first_paint(browser, url))
            plain, paints = plain[1:], paints[1:]  # the first ones warm up
            drawn = await until_drawn(browser, url, works, scale.latencies // 4)
            streamed = await stream(browser, url, works, SECONDS)
        async with shown(scale.works[-1]) as (_, _, url):
            rest = await frames(browser, url, SECONDS, scrolls=False)
            scrolled = await frames(browser, url, SECONDS, scrolls=True)
        await browser.close()

    subject = f"page, {scale.idle_works} works"
    report.add(subject, "a text of the same server is drawn", "ms", plain)
    paint = report.add(subject, "first paint", "ms", [one for one, _ in paints])
    rows = report.add(subject, "the works are drawn", "ms", [one for _, one in paints])
    report.add(subject, "from a change until it is drawn", "ms", drawn)
    slowest = statistics.quantiles(drawn, n=20)[-1]
    report.budgets.append(Budget(f"first paint, {scale.idle_works} works", "ms", 300.0, paint.median))
    report.budgets.append(Budget(f"the works are drawn, {scale.idle_works} works", "ms", 300.0, rows.median))
    report.budgets.append(Budget("a change is drawn, 95 of 100", "ms", 100.0, slowest))

    subject = f"page, scrolling {scale.works[-1]} works"
    report.add(subject, "milliseconds between frames", "ms", scrolled)
    report.add(subject, "the same page at rest", "ms", rest)
    report.add(subject, "frames that came late", "of 100", [late(scrolled)])
    report.add(subject, "frames that came late at rest", "of 100", [late(rest)])
    rate = 1000 * len(scrolled) / sum(scrolled)
    report.budgets.append(Budget(f"frames while scrolling {scale.works[-1]} works", "a second", 60.0, rate, True))

    subject = f"page, three of them and {STREAM} changes a second"
    report.add(subject, "changes made", "a second", [streamed.sent])
    report.add(subject, "changes that a page took in", "a second", streamed.applied)
    report.add(subject, "times that a page was drawn", "a second", streamed.flushes)
    report.budgets.append(Budget("three pages: from the last of the changes to the slowest", "ms", 100.0, streamed.lag))


def late(intervals: list[float]) -> float:
    """Return how many of 100 frames came later than 1.5 frames of a 60 Hz screen."""
    return 100 * sum(one > 25 for one in intervals) / len(intervals)


def measure(report: Report, scale: Scale) -> None:
    """Measure with one browser, one app after the other."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise RuntimeError("chromium is not installed: `bash .ci/browser` installs it")
    asyncio.run(look(report, scale, path))
