"""The page in a real browser: no error, sorting, keyboard, pictures, a phone, the dark; screenshots for a person.

The screenshots are left in ``.pytest_cache/report`` (wide, dark, phone). Without chromium, chromedriver and selenium
the tests are skipped; ``AFFECTORY_CHROMIUM`` and ``AFFECTORY_CHROMEDRIVER`` say where they are, if not on the path.
"""

import base64
import os
import shutil
from pathlib import Path

import pytest

from classify.pages.page import write_report_page
from classify.runs.folder import find_runs

from .test_report_evidence import hostile  # noqa: F401 - a fixture

SHOTS = Path(__file__).parents[2] / ".pytest_cache" / "report"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


def program(variable, *names):
    """Path of the first of some programs that is installed."""
    return os.environ.get(variable) or next((found for name in names if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Return a browser with an empty profile."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: the page is not looked at")
    chromium = program("AFFECTORY_CHROMIUM", "chromium", "chromium-browser", "google-chrome")
    driver = program("AFFECTORY_CHROMEDRIVER", "chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium with chromedriver is installed: the page is not looked at in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def address(hostile, tmp_path_factory):  # noqa: F811 - pytest's way to ask for it
    """Return the address of a page with every kind of evidence."""
    runs, data = hostile
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report_page(find_runs([runs]), path, data=data)
    return path.as_uri()


def visit(browser, address, *, width=1280, height=900, dark=False):
    """Open the page at a size and in a colour scheme, everything unfolded; fail on whatever the console says."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get(address)
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.get_log("browser") == []


def keep_screenshot(browser, name):
    """Leave a picture of the whole page for a person to look at."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    width, height = browser.execute_script("return [innerWidth, document.documentElement.scrollHeight]")
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, 12_000), "scale": 1}
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    (SHOTS / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))


def column(browser, index):
    """Return the values of a column of the first leaderboard, as they stand."""
    rows = "[...document.querySelector('table.board').tBodies[0].rows]"
    return browser.execute_script(f"return {rows}.map(row => row.cells[arguments[0]].dataset.value)", index)


@pytest.mark.parametrize(
    ("name", "width", "height", "dark"),
    [("wide", 1280, 900, False), ("dark", 1280, 900, True), ("phone", 390, 844, False), ("small", 320, 600, True)],
)
def test_page_fits_the_screen(browser, address, name, width, height, dark):
    """No sideways scroll of the page at any width, no console error, and the colours follow the scheme."""
    visit(browser, address, width=width, height=height, dark=dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, colour.strip("rgb()").split(","))) < 150) == dark
    keep_screenshot(browser, name)


def test_headers_sort(browser, address):
    """A click sorts by the column, another turns it round; aria-sort and the spoken line follow, baselines stay."""
    visit(browser, address)
    table = browser.find_element("css selector", "table.board")
    foot = table.find_element("css selector", "tfoot").text
    button = table.find_elements("css selector", "thead button")[2]
    head = button.find_element("xpath", "./ancestor::th")
    place = browser.execute_script("return arguments[0].cellIndex", head)
    values = []
    for expected in (head.get_attribute("data-first"), None):
        button.click()
        order = head.get_attribute("aria-sort")
        assert expected in (None, order)
        values.append(order)
        cells = column(browser, place)
        shown = [float(one) for one in cells if one]
        assert shown == sorted(shown, reverse=order == "descending")
        assert all(cells[: len(shown)])  # what is undefined comes last
        assert len(table.find_elements("css selector", "[aria-sort]")) == 1
        said = browser.find_element("id", "sort-status").get_attribute("textContent")
        assert order in said
    assert set(values) == {"ascending", "descending"}
    assert table.find_element("css selector", "tfoot").text == foot


def test_keyboard_reaches_and_sorts(browser, address):
    """Tab goes from the skip link on to the headers; Enter sorts; what has the focus is outlined."""
    from selenium.webdriver.common.keys import Keys

    visit(browser, address)
    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("class") == "skip"
    for _ in range(40):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.switch_to.active_element.tag_name == "button":
            break
    focused = browser.switch_to.active_element
    assert focused.tag_name == "button"
    style = browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", focused)
    assert style != "none"
    focused.send_keys(Keys.ENTER)
    assert focused.find_element("xpath", "./ancestor::th").get_attribute("aria-sort") in ("ascending", "descending")


def test_pictures_have_the_right_sizes(browser, address):
    """Every picture is decoded, shown in its own proportions, and not larger than it is."""
    visit(browser, address)
    pictures = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.clientWidth, "
        "i.clientHeight, i.alt])"
    )
    assert len(pictures) > 20
    for complete, natural_width, natural_height, width, height, words in pictures:
        assert complete
        assert words
        assert 0 < width <= natural_width
        assert width / height == pytest.approx(natural_width / natural_height, rel=0.06)


def test_planted_scripts_never_run(browser, address):
    """The corpus' names are scripts: none runs, and no element came of them."""
    visit(browser, address)
    assert browser.execute_script("return document.scripts.length") == 1
    assert browser.execute_script("return document.querySelectorAll('td b b, th b, .id b').length") == 0
    assert "<script>alert(1)" in browser.find_element("tag name", "main").text


def test_links_open_what_they_point_to(browser, address):
    """A link to a run that is folded unfolds it."""
    from selenium.webdriver.common.keys import Keys

    visit(browser, address)
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = false)")
    link = browser.find_elements("css selector", "table.board tbody th a")[1]
    target = link.get_attribute("href").rpartition("#")[2]
    link.send_keys(Keys.ENTER)
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")
    assert browser.find_element("id", target).get_attribute("open") is not None
