"""The report in a real browser: no error, no request, links and pictures that answer."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jepakit.reporting import SECTIONS, atlas, figures
from jepakit.reporting.charts import Line, line_chart
from jepakit.reporting.page import render_page
from jepakit.reporting.pictures import img_tag
from jepakit.reporting.records import RunRecord
from jepakit.reporting.samples import Look
from jepakit.reporting.section import Part

CHROMIUM = Path("/usr/bin/chromium")
QUIET = ("quic", "background-networking", "component-update", "sync")

SCORES = {"value": 0.553, "low": 0.541, "high": 0.565, "random_init": 0.291, "raw": 0.392}
PROBE = {
    **{
        "kind": "linear",
        "metric": "accuracy",
        **SCORES,
        "data": f"/srv/{12 * 'deep/'}photos → x (test part)",
    },
    **{"baselines": {key: {"low": SCORES[key] - 0.012, "high": SCORES[key] + 0.012} for key in ("random_init", "raw")}},
    **{"weights": "target", "step": 1700, "n_train": 6400, "n_test": 1600, "per_class": {"triangle": 0.4, "disc": 1.0}},
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a curve, and a map of 60 images of which the first is red and the others are blue."""
    rows = tuple({"step": k, "loss": 100.0 - k, "lr": 0.1} for k in range(0, 101, 10))
    record = RunRecord(
        Path("runs/one"), "one", "seed: 0\n", {"seed": 0}, rows, {"verdict": "healthy"}, {"torch": "2"}, (PROBE,)
    )
    colors = [(255, 0, 0), *[(0, 0, 255)] * 59]
    thumbs = [np.full((8, 8, 3), color, np.uint8) for color in colors]
    features = np.random.default_rng(0).normal(size=(60, 5))
    drawn = atlas.embedding_map(features, thumbs, [f"photo-{k}<b>.png" for k in range(60)], ["red", *["blue"] * 59])
    lines = [Line("long", np.arange(101.0), np.arange(101.0)), Line("short", np.arange(3.0), np.ones(3))]
    wide = figures.Figure("Wide", line_chart(lines, "wide"), "A caption.", wide=True)
    sheet = figures.Figure("Sheet", img_tag(np.zeros((500, 2000, 3), np.uint8), "a sheet"), "A caption.", wide=True)
    out = tmp_path_factory.mktemp("page") / "report.html"
    long_note = "word " * 50 + "x" * 200
    parts = {"map": Part((drawn,)), "spectrum": Part((wide, sheet)), "patches": Part(notes=(long_note,))}
    sections = {name: SECTIONS.load(name) for name in SECTIONS.names()}
    for name, part in parts.items():
        sections[name] = sections[name]._replace(show=lambda views, part=part: part)
    out.write_text(render_page([record], [Look()], "1", sections))
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", *[f"--disable-{name}" for name in QUIET]]
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any, html: Path) -> Iterator[tuple[Any, list[str]]]:
    """The loaded page, and everything it complained of or asked for."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    trouble: list[str] = []
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on("request", lambda request: trouble.append(request.url) if not request.url.startswith("data:") else None)
    tab.goto(html.as_uri())
    # The page itself is the one request there has to be.
    assert trouble.pop(0) == html.as_uri()
    yield tab, trouble
    tab.close()


def test_the_page_loads_without_an_error_or_a_request(opened: tuple[Any, list[str]]) -> None:
    tab, trouble = opened
    tab.mouse.move(400, 400)
    tab.mouse.wheel(0, 4000)
    tab.wait_for_timeout(200)
    assert trouble == []
    assert tab.title() == "one · jepakit report"


def test_every_entry_of_the_index_leads_to_its_section(opened: tuple[Any, list[str]]) -> None:
    tab, _ = opened
    tab.emulate_media(reduced_motion="reduce")
    links = tab.locator("nav a")
    assert links.count() == 9
    for k in range(links.count()):
        links.nth(k).click()
        tab.wait_for_timeout(50)
        top = tab.evaluate("document.querySelector(location.hash).getBoundingClientRect().top")
        at_the_end = tab.evaluate("innerHeight + scrollY >= document.documentElement.scrollHeight - 2")
        assert -2 <= top <= 60 or at_the_end


@pytest.mark.parametrize("height", [900, 3000])
def test_the_index_marks_the_overview_at_the_top_and_then_the_section_that_is_read(
    opened: tuple[Any, list[str]], height: int
) -> None:
    tab, _ = opened
    tab.emulate_media(reduced_motion="reduce")
    tab.set_viewport_size({"width": 1280, "height": height})
    marked = tab.locator("nav a[aria-current]")
    assert marked.all_inner_texts() == ["Overview"]
    if height == 900:
        tab.locator("nav a", has_text="Curves").click()
        tab.wait_for_timeout(100)
        assert marked.all_inner_texts() == ["Curves"]
        tab.evaluate("scrollTo(0, 0)")
        tab.wait_for_timeout(100)
        assert marked.all_inner_texts() == ["Overview"]


def test_the_probes_fit_on_a_telephone_with_the_names_of_their_numbers(opened: tuple[Any, list[str]]) -> None:
    tab, _ = opened
    tab.set_viewport_size({"width": 390, "height": 900})
    table = tab.locator("#probes .scroll")
    assert table.evaluate("box => box.scrollWidth <= box.clientWidth")
    named = "[...document.querySelectorAll('.probes td.number')].map(e => getComputedStyle(e, '::before').content)"
    assert tab.evaluate(named) == ['"Encoder"', '"Untrained encoder"', '"Raw input"', '"Gain"']
    assert "deep" not in table.inner_text()
    assert "deep/photos" in table.locator("small[title]").first.get_attribute("title")


def test_pointing_at_a_dot_shows_its_image_and_its_name(opened: tuple[Any, list[str]]) -> None:
    tab, trouble = opened
    tip = tab.locator("#tip")
    assert tip.is_hidden()
    for index, color in ((0, (255, 0, 0)), (37, (0, 0, 255))):
        dot = tab.locator(f'circle[data-i="{index}"]')
        dot.scroll_into_view_if_needed()
        # Another dot may lie on top of this one's centre.
        dot.evaluate("dot => dot.parentNode.append(dot)")
        dot.hover()
        assert tip.is_visible()
        assert f"photo-{index}<b>.png" in tip.inner_text()
        assert seen(tip.locator(".thumb")) == pytest.approx(color, abs=12)
    tab.mouse.move(5, 5)
    tab.mouse.move(6, 6)
    assert tip.is_hidden()
    assert trouble == []


def seen(element: Any) -> tuple[int, ...]:
    """The colour in the middle of an element, from a screenshot."""
    picture = Image.open(io.BytesIO(element.screenshot())).convert("RGB")
    color = picture.getpixel((picture.width // 2, picture.height // 2))
    assert isinstance(color, tuple)
    return color


def pointed(tab: Any, plot: Any, x: float) -> list[str]:
    """The words beside the pointer over a chart at `x` of its 460 units; it is pointed at until there are some."""
    plot.scroll_into_view_if_needed()
    for _ in range(40):
        box = plot.bounding_box()
        tab.mouse.move(box["x"] + box["width"] * x / 460, box["y"] + box["height"] / 2)
        if tab.locator("#tip").is_visible():
            return [str(word) for word in tab.locator("#tip").inner_text().split()]
        tab.wait_for_timeout(50)
    raise AssertionError("nothing appeared beside the pointer")


def test_pointing_at_a_curve_tells_its_values(opened: tuple[Any, list[str]]) -> None:
    tab, _ = opened
    plot = tab.locator("#curves svg.chart").first
    # The plot spans 46 to 444 of 460 units: its middle is step 50, where the loss is 50.
    words = pointed(tab, plot, 245)
    assert words[0] == "50"
    assert float(words[-1]) == pytest.approx(50, abs=0.5)


def test_a_curve_that_has_ended_has_no_value_later(opened: tuple[Any, list[str]]) -> None:
    tab, _ = opened
    plot = tab.locator("#spectrum svg.chart")
    for x, words in ((46, ["0", "long", "0", "short", "1"]), (245, ["50", "long", "50"])):
        assert pointed(tab, plot, x) == words


@pytest.mark.parametrize("width", [1280, 600, 380])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_text_stands_out(opened: tuple[Any, list[str]], width: int, scheme: Any) -> None:
    tab, _ = opened
    tab.set_viewport_size({"width": width, "height": 900})
    tab.emulate_media(color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("body", ".read", ".note", ".badge", ".intro"):
        front, back = tab.locator(selector).first.evaluate(COLORS)
        assert contrast(front, back) >= 4.5, selector


def test_a_picture_wider_than_the_page_keeps_its_shape(opened: tuple[Any, list[str]]) -> None:
    tab, _ = opened
    width, height = tab.locator("img[alt='a sheet']").evaluate("picture => [picture.clientWidth, picture.clientHeight]")
    assert width < 2000
    assert height == pytest.approx(width / 4, abs=1)


COLORS = """element => {
  let back = element;
  while (getComputedStyle(back).backgroundColor === "rgba(0, 0, 0, 0)") back = back.parentElement;
  return [getComputedStyle(element).color, getComputedStyle(back).backgroundColor];
}"""


def contrast(front: str, back: str) -> float:
    """The WCAG contrast ratio of two CSS colours rgb(r, g, b)."""
    light, dark = sorted((luminance(front), luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    parts = [int(v) / 255 for v in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_page_reads_without_scripts(browser: Any, html: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(html.as_uri())
    assert tab.locator("circle[data-i]").count() == 60
    assert "healthy" in tab.locator("#overview").inner_text()
    context.close()
