"""The page in a real browser, with a real app."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lightwork import App
from lightwork.runtime import Address
from tests.browser.live_app import Training
from tests.browser.support import SCREENSHOTS, Open
from tests.chaos.proxy import proxies

expect = pytest.importorskip("playwright.async_api", reason="playwright is missing: the group `browser` has it").expect
expect.set_options(timeout=30_000)  # long, so that a busy machine does not fail the test

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
PATIENCE = 100_000
"""Milliseconds to wait for effects that need new processes, on a busy machine."""

IS_PAST = "epoch => Number(document.querySelector('[data-path=\"root.trainer.epoch\"] .value').textContent) > epoch"

has_sklearn = importlib.util.find_spec("sklearn") is not None


def value(page: Any, path: str) -> Any:
    """Return the row of an attribute in the state tree."""
    return page.locator(f'[data-path="{path}"]')


@asynccontextmanager
async def training(tmp_path: Path, runtime: str = "local") -> AsyncIterator[tuple[App[Training], str]]:
    """Run the app of `live_app` with an HTTP server; yield the app and its URL."""
    async with App(Training(), http=True, http_port=0, runtime=runtime, log_dir=str(tmp_path)) as app:
        assert app.url is not None
        yield app, app.url.rstrip("/") + "/"


async def test_a_running_work_is_followed_edited_and_stopped(open_page: Open, tmp_path: Path) -> None:
    """The page shows live state and log lines of a work in a process; an edit reaches the work; a stop stops it."""
    async with training(tmp_path) as (app, url):
        page = await open_page(url, "#/works/root.trainer/state")
        shown = value(page, "root.trainer.epoch").locator(".value")
        await expect(shown).to_have_text(re.compile(r"^\d\d+$"), timeout=PATIENCE)
        await expect(shown).not_to_have_text(await shown.inner_text())
        await value(page, "root.trainer.losses").click()
        await expect(value(page, "root.trainer.losses.9")).to_be_visible()

        await value(page, "root.trainer.pace").dblclick()
        await page.locator(".editor input").fill("0.02")
        await page.keyboard.press("Enter")
        await expect(value(page, "root.trainer.pace")).to_contain_text("0.02")
        await app.wait_for(lambda: app.root.trainer.pace == 0.02)

        await page.get_by_role("link", name="Logs").last.click()
        await expect(page.locator(".log-line").last).to_contain_text(re.compile(r"epoch \d+"))
        last = await page.locator(".log-line").last.inner_text()
        await expect(page.locator(".log-line").last).not_to_have_text(last)

        await page.get_by_role("button", name="Stop", exact=True).click()
        await page.locator("dialog").get_by_role("button", name="Stop work").click()
        await expect(page.locator(".work-title")).to_contain_text("stopped", timeout=PATIENCE)
        assert app.root.trainer.status.stage == "stopped"
        await page.close()


async def test_a_call_that_failed_shows_the_traceback_of_its_process(open_page: Open, tmp_path: Path) -> None:
    """The overview leads to a failed call with its arguments and the worker's traceback; a retry fails again."""
    async with training(tmp_path) as (_, url):
        page = await open_page(url)
        failure = page.locator(".section", has_text="Recent failures").get_by_role("link", name=re.compile(r"^\d+$"))
        await failure.first.click(timeout=PATIENCE)
        await expect(page.locator(".traceback pre")).to_contain_text("raise ValueError", timeout=PATIENCE)
        await expect(page.locator(".traceback-head")).to_have_text("ValueError: no such batch: b7")
        await expect(page.locator(".work-body")).to_contain_text('"b7"')
        here = page.url
        await page.get_by_role("button", name="Retry", exact=True).click()
        await expect(page).not_to_have_url(here)
        await expect(page.locator(".traceback-head")).to_have_text("ValueError: no such batch: b7", timeout=PATIENCE)
        await page.close()


async def test_the_feed_is_resumed_after_a_cut(open_page: Open, tmp_path: Path) -> None:
    """The page reports a broken connection, reconnects, and is up to date again without a new snapshot."""
    async with training(tmp_path, "inprocess") as (app, url):
        upstream = urlsplit(url)
        assert upstream.hostname is not None
        assert upstream.port is not None
        async with proxies(1, Address(upstream.hostname, upstream.port)) as (proxy,):
            page = await open_page(f"http://127.0.0.1:{proxy.route.port}/", "#/works/root.trainer/state")
            await expect(value(page, "root.trainer.epoch").locator(".value")).to_have_text(re.compile(r"^\d\d+$"))
            # A mark on an object of the page: a new snapshot would replace the object, a resumption keeps it.
            await page.evaluate("import('/js/store.js').then(({ model }) => { model.components.mark = 1; })")
            proxy.is_closed_to_new = True
            for line in list(proxy.lines):
                line.cut()
            await expect(page.locator(".banner")).to_contain_text("is lost")
            missed = app.root.trainer.epoch
            proxy.is_closed_to_new = False
            await expect(page.locator(".connection")).to_have_text("live", timeout=PATIENCE)
            await page.wait_for_function(IS_PAST, arg=missed)
            assert await page.evaluate("import('/js/store.js').then(({ model }) => model.components.mark)") == 1
            await page.close()


@pytest.mark.skipif(not has_sklearn, reason="scikit-learn is not installed")
async def test_the_digits_example_is_followed(open_page: Open, tmp_path: Path) -> None:
    """In the README's example four works train, their charts grow, and the page reports the end of the app."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lightwork", "run", "app.py", "--set", "root.epochs=2000", "--http-port", "0"),
        cwd=ROOT / "examples" / "digits",
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "runtimes")]),
            "LIGHTWORK_LOG_DIR": str(tmp_path),
            "PYTHONUNBUFFERED": "1",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert program.stdout is not None
    try:
        url = ""
        while not url:
            text = (await program.stdout.readline()).decode()
            assert text, "it ended"
            found = re.search(r"http://[\d.]+:\d+/?", text)
            url = found[0].rstrip("/") + "/" if found else ""
        page = await open_page(url, "#/works/root.trials.logistic", width=1440, height=900)
        await expect(page.locator(".work-title")).to_contain_text("running", timeout=PATIENCE)
        await expect(page.locator(".chart", has_text="accuracy").locator("canvas")).to_be_visible(timeout=PATIENCE)
        loss = page.locator(".chart", has_text="loss").locator("figcaption .num")
        before = await loss.inner_text()
        await expect(loss).not_to_have_text(before, timeout=PATIENCE)
        await page.screenshot(path=SCREENSHOTS / "digits-work.png")
        await page.get_by_role("link", name="Overview").first.click()
        await expect(page.locator(".tile.stage-running .tile-number")).to_have_text(re.compile("[1-4]"))
        await page.screenshot(path=SCREENSHOTS / "digits-overview.png")
        await page.get_by_role("button", name="Stop app").click()
        await page.locator("dialog").get_by_role("button", name="Stop app").click()
        await expect(page.locator(".banner")).to_contain_text("is lost", timeout=PATIENCE)
        assert await program.wait() == 0
    finally:
        if program.returncode is None:
            program.send_signal(signal.SIGINT)
            await program.communicate()
