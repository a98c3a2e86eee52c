"""What a person sees in MLflow and in the report, at 1440×900 in headless Chromium.

`MIMETIC_SCREENSHOTS=FOLDER pytest -m browser` writes the pictures there, to be looked at.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mimetic
from mimetic.files import JsonObject
from mimetic.study.tracker import SERVER
from mimetic.tracking.ui import prepare
from mimetic.tracking.views import FILTERS, view_link

from .servers import Mlflow, WatchedExecutor

RECIPE: JsonObject = {
    "recipe": 1,
    "name": "rates",
    "model": {"type": "convmixer", "dim": 16, "depth": 2, "kernel_size": 5, "patch_size": 2},
    "data": {"type": "digits", "train_size": 512, "test_size": 128},
    "train": {"epochs": 2, "batch_size": 32, "optimizer": {"type": "adamw", "lr": 0.02}},
    "seeds": 3,
    "baseline": "slow",
    "arms": {"slow": {"train": {"optimizer": {"lr": 1e-5}}}, "fast": {}},
}
ANSWER = "better: fast"
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
VISIBLE = """element => {
  const r = element.getBoundingClientRect(), y = (r.top + r.bottom) / 2;
  return [r.left + 3, (r.left + r.right) / 2, r.right - 3].map(x => document.elementFromPoint(x, y))
    .every(found => found && (element.contains(found) || found.contains(element)));
}"""
"""Whether an element is cut off or covered nowhere along its middle."""
UNCOVERED = """image => {
  const r = image.getBoundingClientRect(), places = [0.05, 0.3, 0.5, 0.7, 0.95];
  return places.every(x => places.every(y => {
    const left = r.left + x * r.width, top = r.top + y * r.height;
    return top > innerHeight || document.elementFromPoint(left, top) === image;
  }));
}"""
"""Whether nothing is written over a picture."""
ARMS = """() => [...document.querySelectorAll(".ag-row")]
  .sort((one, two) => one.getAttribute("row-index") - two.getAttribute("row-index"))
  .flatMap(row => row.innerText.match(/\\w+(?= · seed)/) || [])"""
"""The arms of the runs as shown; the grid leaves its elements in another order."""
CLIPPED = "tables => tables.filter(table => table.scrollWidth > table.clientWidth).length"
BRIGHTNESS = """name => getComputedStyle(document.body)[name].match(/[0-9.]+/g).slice(0, 3)
  .reduce((sum, part) => sum + Number(part) / 3, 0)"""


@dataclass(frozen=True, slots=True)
class Screen:
    """A page of 1440×900 pixels, and the folder of its pictures."""

    page: Any
    folder: Path

    def shoot(self, name: str) -> None:
        """Write a picture."""
        self.page.screenshot(path=self.folder / f"{name}.png")

    def see(self, found: Any) -> Any:
        """Assert that the first match is within the screen, whole and not covered, and return it."""
        seen = found.filter(visible=True).first
        seen.wait_for()
        self.until(lambda: self._within(seen.bounding_box()) and seen.evaluate(VISIBLE), f"{found} is whole")
        return seen

    def until(self, condition: Callable[[], bool], wanted: str) -> None:
        """Wait until a condition is met: tables and panels move into place."""
        end = time.monotonic() + 20.0
        while not condition():
            assert time.monotonic() < end, wanted
            self.page.wait_for_timeout(250)

    def _within(self, box: dict[str, float] | None) -> bool:
        if box is None:
            return False
        size = self.page.viewport_size
        right, bottom = box["x"] + box["width"], box["y"] + box["height"]
        return box["x"] >= 0 and box["y"] >= 0 and right <= size["width"] and bottom <= size["height"]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.usefixtures("warm_processes")
@pytest.mark.timeout(600)
def test_the_first_screen_names_the_better_arm(
    empty_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Printed link, experiment, run table, comparison of two runs, a trial, its pictures, and the report."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("mimetic.study.study.pick_executor", lambda *_, **__: WatchedExecutor())
    folder = Path(os.environ.get("MIMETIC_SCREENSHOTS", tmp_path / "screenshots"))
    with _screen(folder) as screen:
        root = empty_store(tmp_path / "mlruns")
        result = mimetic.run(RECIPE, root=root)
        ui = prepare(root, port=5600)
        assert result.link is not None
        study = f"rates/{result.folder.name}"
        server = Mlflow(
            ui.command, int(ui.address.rpartition(":")[2]), tmp_path / "mlflow.log", dict(ui.environment)
        )
        try:
            server.start()
            link = result.link.replace(SERVER, ui.address)
            _check_link(screen, link)
            _check_experiment(screen, ui.address, link)
            _check_table(screen, view_link(ui.address, "1", study=study, mode="TABLE"))
            _check_pictures(screen, view_link(ui.address, "1", study=study, view=FILTERS))
        finally:
            server.kill()
        _check_report(screen, result.folder / "report.html")


@contextmanager
def _screen(folder: Path) -> Iterator[Screen]:
    """Open a headless browser without history, or skip."""
    playwright = pytest.importorskip("playwright.sync_api", reason="drives the browser: install `playwright`")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("no Chromium on the path: install `chromium`")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS.split())
        context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
        context.set_default_timeout(60_000)
        yield Screen(context.new_page(), folder)
        browser.close()


def _check_link(screen: Screen, link: str) -> None:
    """Sentence, whole table and figure of the report."""
    screen.page.goto(link)
    report = screen.page.frame_locator("iframe")
    screen.see(report.get_by_text(ANSWER))
    screen.see(report.get_by_role("cell", name="fast", exact=True))
    screen.see(report.get_by_role("columnheader", name="time", exact=True))
    screen.see(report.locator("img"))
    assert report.locator(".table").evaluate_all(CLIPPED) == 0
    screen.shoot("link")


def _check_experiment(screen: Screen, address: str, link: str) -> None:
    """The sentence, and a link to the report."""
    screen.page.goto(f"{address}/#/experiments/1?workflowType=machine_learning")
    screen.see(screen.page.get_by_text(ANSWER))
    report = screen.see(screen.page.get_by_role("link", name="Report", exact=True))
    screen.see(screen.page.locator(".ag-row"))
    screen.shoot("experiment")
    with screen.page.expect_popup() as opened:
        report.click()
    opened.value.wait_for_url(link)
    opened.value.close()


def _check_table(screen: Screen, link: str) -> None:
    """Arm, seed, final and best metric, and time; the best first. Two runs compare, and each has a page."""
    screen.page.goto("about:blank")
    screen.page.goto(link)
    for header in ("arm", "seed", "Duration", "test/acc", "best/test/acc"):
        screen.see(screen.page.locator(".ag-root").get_by_role("columnheader", name=header, exact=True))
    best = "fast · seed 0"
    screen.see(screen.page.get_by_role("link", name=best, exact=True))
    expected = ["fast"] * 3 + ["slow"] * 3
    screen.until(lambda: screen.page.evaluate(ARMS) == expected, "the best runs are first")
    screen.shoot("table")

    for name in (best, "slow · seed 0"):
        row = screen.page.locator(".ag-row").filter(has_text=name).first
        row.get_by_role("checkbox").first.click(force=True)
    screen.page.get_by_role("link", name="Compare", exact=True).or_(
        screen.page.get_by_role("button", name="Compare", exact=True)
    ).first.click()
    screen.see(screen.page.get_by_text("Comparing 2 Runs"))
    screen.see(screen.page.get_by_text("slow · seed 0", exact=True))
    screen.shoot("compare")

    screen.page.go_back()
    screen.page.get_by_role("link", name=best, exact=True).first.click()
    screen.see(screen.page.get_by_role("heading", name=best))
    screen.see(screen.page.get_by_text("Finished", exact=True))
    screen.shoot("trial")
    assert screen.page.get_by_text("train.optimizer.lr").count() > 0


def _check_pictures(screen: Screen, link: str) -> None:
    """Pictures have the size of MLflow's tiles, and nothing is written over them."""
    screen.page.goto(link)
    screen.see(screen.page.get_by_text("pictures/filters", exact=True))
    for key in ("filters", "covariance"):
        if key == "covariance":
            screen.page.mouse.move(720, 700)
            screen.page.mouse.wheel(0, 720)
        picture = screen.page.locator(f'img[src*="pictures~{key}"]').first
        picture.wait_for()
        picture.evaluate("image => image.decode()")
        screen.shoot(f"pictures-{key}")
        shown, natural = picture.evaluate(
            "image => [[image.width, image.height], [image.naturalWidth, image.naturalHeight]]"
        )
        assert shown == natural
        assert min(natural) >= 200
        assert picture.evaluate(UNCOVERED), key


def _check_report(screen: Screen, report: Path) -> None:
    """Light text on dark and dark text on light; paper is light."""
    screen.page.goto(report.as_uri())
    for medium, scheme in (("screen", "light"), ("screen", "dark"), ("print", "dark")):
        screen.page.emulate_media(media=medium, color_scheme=scheme)
        screen.see(screen.page.get_by_text(ANSWER))
        screen.see(screen.page.locator("img"))
        screen.shoot(f"report-{scheme}-{medium}")
        ink = screen.page.evaluate(BRIGHTNESS, "color")
        paper = screen.page.evaluate(BRIGHTNESS, "backgroundColor")
        assert abs(ink - paper) > 150
        assert (paper < ink) == ((medium, scheme) == ("screen", "dark"))
