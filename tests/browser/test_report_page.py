"""The report's page in a real browser: what is clicked and pressed there, and what it saves.

``make test-browser`` runs this.
"""

from __future__ import annotations

import base64
import json
import shutil
import time

import pytest
from browser.chrome import PROGRAM, WAIT_S, Chrome
from browser.made_up import PLANE, PREPARED, write_made_up

from sbr_core.io.correction_pages import read_correction_page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"no {PROGRAM} here"),
]

HOSTILE = "<img src=x onerror=alert(1)>"
WORSE = "</script><script>alert(2)</script>"
NAMES = ("s1", "s2", HOSTILE, WORSE, "s5")


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    browser = Chrome(tmp_path_factory.mktemp("chrome"))
    yield browser
    browser.close()


@pytest.fixture
def page(chrome, tmp_path):
    """A page of five sections, opened as a user does; nothing may complain, or ask for anything."""
    out = tmp_path / "index.html"
    write_made_up(out, NAMES, key=str(tmp_path))
    chrome.complaints.clear()
    chrome.requests.clear()
    chrome.resize(1400, 1000)
    chrome.open(out)
    yield chrome
    assert chrome.complaints == []
    allowed = (out.as_uri(), "data:image/", "blob:")
    assert [url for url in chrome.requests if not url.startswith(allowed)] == []


def name(page):
    return page.text("#v-name")


def saved(page):
    """What the page saves, read as `sbr correct` reads it."""
    for old in page.downloads.glob("*"):
        old.unlink()
    page.click("#v-save")
    path = page.downloads / "corrections.json"
    until = time.monotonic() + WAIT_S
    while not path.is_file():
        assert time.monotonic() < until, "nothing was saved"
        time.sleep(0.05)
    return read_correction_page(path)


def over(page, what):
    """A computed style of the second layer."""
    return page.run(f"getComputedStyle(document.querySelector('#v-plane .v-over')).{what}")


def test_next_and_previous_by_button_key_strip_and_suspect(page):
    assert name(page) == "s1"
    page.click("#v-next")
    assert name(page) == "s2" and page.text("#v-count") == "2 of 5"
    page.press("k")
    assert name(page) == "s1"
    page.press("j", "ArrowRight", "ArrowLeft")
    assert name(page) == "s2"
    page.click("#v-strip button:nth-child(5)")
    assert name(page) == "s5"
    page.press("j")
    assert name(page) == "s5"  # there is no further one
    page.click("#v-strip button:nth-child(1)")
    page.click("a[data-section]")
    assert name(page) == "s5"


def test_a_hostile_name_is_text_wherever_it_stands(page):
    page.press("j", "j")
    assert name(page) == HOSTILE
    page.press("j")
    assert name(page) == WORSE
    options = page.run(
        "[...document.querySelectorAll('#v-section option')].map(o => o.textContent)"
    )
    assert options == list(NAMES)
    assert "<i>far</i>" in page.text(".suspects li") and "<b>x</b>" in page.text(".alarms li")
    page.run("document.querySelector('#all-sections').open = true")
    titles = page.run("[...document.querySelectorAll('.section h3')].map(h => h.textContent)")
    assert titles[2].startswith(HOSTILE) and titles[3].startswith(WORSE)
    assert page.run("document.querySelectorAll('script').length") == 2


def test_layers_lie_over_each_other_in_every_mode(page):
    shown = "[...document.querySelectorAll('#v-plane canvas')].map(c => c.ariaLabel)"
    assert page.run(shown) == [
        "section s1, section by sbr",
        "section s1, MRI plane",
        "outlines of the MRI",
    ]
    page.until("[...document.querySelectorAll('#v-plane canvas')].every(c => c.width === 160)")
    page.press("]")
    assert over(page, "opacity") == "0.1"
    page.click("#v-mode-slider")
    assert over(page, "clipPath") == "inset(0px 0px 0px 50%)"
    left, top, _, height = page.box("#v-divider")
    page.drag(
        (left, top + height / 2), (left - 60, top + height / 2), (left - 90, top + height / 2)
    )
    amount = page.run("Number(document.querySelector('#v-amount').value)")
    shown_width = page.run(
        "document.querySelector('#v-plane .v-world').getBoundingClientRect().width"
    )
    assert amount == pytest.approx(50 - 100 * 90 / shown_width, abs=2)
    page.press("4")
    assert "conic-gradient" in over(page, "maskImage")
    page.press("5")
    assert page.box("#v-second .v-frame")[2] > 200
    assert page.run("document.querySelectorAll('#v-second canvas').length") == 2
    page.press("b")
    seen = set()
    until = time.monotonic() + 10
    while len(seen) < 2 and time.monotonic() < until:
        seen.add(over(page, "visibility"))
        time.sleep(0.1)
    assert seen == {"visible", "hidden"}
    page.press("1", "g", "o")
    assert page.run(shown)[2:] == ["deformed grid"]
    page.run("document.querySelector('#v-b').focus()")
    page.press("ArrowDown")  # within a list, keys are the list's
    assert name(page) == "s1"


def test_motion_is_reduced_where_the_user_asks_for_it(page):
    media = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.call("Emulation.setEmulatedMedia", features=media)
    page.reload()
    page.press("b")
    assert over(page, "visibility") == "visible"
    time.sleep(1.5)
    assert over(page, "visibility") == "visible"
    page.press("b")
    assert over(page, "visibility") == "hidden"
    page.call("Emulation.setEmulatedMedia", features=[])


def test_zoom_keeps_what_is_under_the_pointer_and_moves(page):
    world = "#v-plane .v-world"
    frame_left, frame_top, width, height = page.box("#v-plane .v-frame")
    x, y = round(frame_left + 0.3 * width), round(frame_top + 0.4 * height)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    before = page.text("#v-readout")
    assert before.startswith("on the plane: x ")
    scroll = {"x": x, "y": y, "deltaX": 0, "deltaY": -400, "modifiers": 2}
    page.call("Input.dispatchMouseEvent", type="mouseWheel", **scroll)
    wide = f"document.querySelector('{world}').getBoundingClientRect().width"
    page.until(f"{wide} > 1.5 * {width}")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert page.text("#v-readout") == before
    page.drag((x, y), (x + 40, y), (x + 80, y))
    assert page.run(f"document.querySelector('{world}').getBoundingClientRect().left") > -1e4
    page.press("0")
    assert page.run(wide) == pytest.approx(width, rel=0.01)
    assert page.run("document.querySelector('#v-save').disabled")  # looking decides nothing


def test_verdicts_and_notes_are_saved(page):
    page.press("a", "j")
    page.click("#v-reject")
    assert page.run("document.querySelector('#v-reject').getAttribute('aria-pressed')") == "true"
    page.press("n")
    page.write("torn </script> badly; j is no key here")
    page.press("Escape", "j", "x", "j", "x", "x")  # the second takes the verdict back
    corrections = saved(page)
    assert (corrections.brain, corrections.method) == ("b", "sbr")
    assert corrections.saved.endswith("Z") and list(corrections.sections) == ["s1", "s2", HOSTILE]
    verdicts = {key: section.verdict for key, section in corrections.sections.items()}
    assert verdicts == {"s1": "accept", "s2": "reject", HOSTILE: "exclude"}
    second = corrections.sections["s2"]
    assert second.note == "torn </script> badly; j is no key here"
    assert (second.prepared_sha256, second.plane_sha256) == ("prepared 1", "plane 1")
    assert second.landmarks is None and second.flip == "none" and second.turn_deg == 0


def test_what_was_decided_is_there_after_a_reload_and_can_be_loaded_and_forgotten(page, tmp_path):
    page.press("r")
    page.reload()
    assert page.text("#v-save") == "Save corrections (1)"
    assert page.text("#v-strip button") == "✕"
    file = {"format": "sbr_core corrections", "version": 1, "brain": "b", "sections": {}}
    mark = dict.fromkeys(("x_prepared_mm", "y_prepared_mm", "x_plane_mm", "y_plane_mm"), 3.0)
    digests = {"prepared_sha256": "prepared 4", "plane_sha256": "plane 4"}
    file["sections"]["s5"] = {"flip": "ud", "turn_deg": 90, "landmarks": [mark], **digests}
    file["sections"]["s2"] = {"verdict": "accept", "landmarks": [mark]}  # of another picture
    earlier = {"prepared_sha256": "before the last run", "plane_sha256": "plane 0"}
    file["sections"]["s1"] = {"verdict": "accept", "flip": "lr", "turn_deg": 90, **earlier}
    file["sections"]["gone"] = {"verdict": "accept"}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(file))
    page.choose_file("#v-file", path)
    page.until("document.querySelector('#v-status').textContent.includes('read')")
    status = page.text("#v-status")
    assert (
        "3 sections read" in status
        and "earlier picture: s1" in status
        and "picture has changed: s2" in status
    )
    assert "not on this page: gone" in status
    corrections = saved(page).sections
    assert set(corrections) == {"s1", "s2", "s5"}
    first = corrections["s1"]
    assert (first.verdict, first.flip, first.turn_deg) == ("accept", "none", 0)
    # upside down and a quarter: as left to right and three quarters
    assert (corrections["s5"].flip, corrections["s5"].turn_deg) == ("lr", 270)
    assert corrections["s5"].landmarks[0].x_plane_mm == 3.0 and corrections["s2"].landmarks is None
    path.write_text(json.dumps(file | {"brain": "other"}))
    page.choose_file("#v-file", path)
    page.until("document.querySelector('#v-status').textContent.includes('not read')")
    assert "it is of brain other" in page.text("#v-status")
    page.run("window.confirm = () => true")
    page.click("#v-clear")
    assert page.run("document.querySelector('#v-save').disabled")
    page.reload()
    assert page.text("#v-save") == "Save corrections (0)"


def middle_mm(grid):
    """Millimetres of the middle of a picture."""
    return [(grid[side] / 2 - 0.5) * grid["pixel_mm"] for side in ("columns", "rows")]


def test_a_landmark_is_a_pair_of_places_on_section_and_plane(page):
    page.press("l")
    assert "Click the same place" in page.text("#v-status")
    page.click("#v-prepared .v-frame")
    assert "on the MRI plane" in page.text("#v-status")
    page.click("#v-plane .v-frame")
    assert page.text("#v-status") == "Landmark 1 is set."
    # the second: the cross goes by keys; 20 pixels of the screen to the right
    page.run("document.querySelector('#v-plane .v-frame').focus()")
    page.press("ArrowRight", "Enter")
    page.click("#v-prepared .v-frame", at=(0.6, 0.5))
    one, two = saved(page).sections["s1"].landmarks
    assert (one.name, two.name) == ("1", "2")
    assert [one.x_prepared_mm, one.y_prepared_mm] == pytest.approx(middle_mm(PREPARED), abs=0.1)
    assert [one.x_plane_mm, one.y_plane_mm] == pytest.approx(middle_mm(PLANE), abs=0.1)
    width = page.box("#v-prepared .v-frame")[2]
    shown = page.run("document.querySelector('#v-prepared .v-world').getBoundingClientRect().width")
    mm = PREPARED["columns"] * PREPARED["pixel_mm"]
    expected = one.x_prepared_mm + 0.1 * width / shown * mm
    assert two.x_prepared_mm == pytest.approx(expected, abs=0.1)
    assert page.run("document.querySelectorAll('#v-prepared .v-mark').length") == 2
    page.press("Backspace")
    (left,) = saved(page).sections["s1"].landmarks
    assert left == one
    page.click("#v-landmarks button")
    assert page.run("document.querySelector('#v-save').disabled")


def test_a_turn_may_be_typed_with_a_sign(page):
    field = "document.querySelector('#v-turn')"
    page.run(f"{field}.value = '-30'; {field}.dispatchEvent(new Event('change'))")
    assert saved(page).sections["s1"].turn_deg == 330 and page.run(f"{field}.value") == "-30"
    page.press("t")
    assert page.run(f"{field}.value") == "60"
    page.run(f"{field}.value = ''; {field}.dispatchEvent(new Event('change'))")
    assert page.run(f"{field}.value") == "0" and page.run(
        "document.querySelector('#v-save').disabled"
    )


def test_a_place_on_a_flipped_and_turned_section_is_saved_as_before_it_was(page):
    """The mark stays on its tissue: 0.3 of the width to the right, at the height of the middle."""
    page.press("f", "t")
    corrections = saved(page).sections["s1"]
    assert (corrections.flip, corrections.turn_deg) == ("lr", 90)
    page.press("l")
    # mirrored, what was right is left; turned counter-clockwise by 90 degrees, left is below
    _, _, _, height = page.box("#v-prepared .v-frame")
    box = page.run(
        "(() => { const b = document.querySelector('#v-prepared .v-world').getBoundingClientRect();"
        " return [b.width, b.height]; })()"
    )
    page.click("#v-prepared .v-frame", at=(0.5, 0.5 + 0.3 * box[1] / height))
    page.click("#v-plane .v-frame")
    (mark,) = saved(page).sections["s1"].landmarks
    middle = middle_mm(PREPARED)
    right = 0.3 * PREPARED["columns"] * PREPARED["pixel_mm"]
    assert [mark.x_prepared_mm, mark.y_prepared_mm] == pytest.approx(
        [middle[0] + right, middle[1]], abs=0.15
    )
    page.press("T", "f")
    assert saved(page).sections["s1"].flip == "none"


def test_help_and_a_narrow_window(page):
    page.press("?")
    assert page.run("document.querySelector('#v-help').open")
    assert "reject: keep it out of the volume" in page.text("#v-key-table")
    page.press("Escape")
    page.run("document.querySelector('#v-help').close()")
    page.resize(400, 800)
    page.press("j")
    assert page.run("document.documentElement.scrollWidth") <= 400
    assert page.box("#v-plane .v-frame")[2] > 300


def test_everything_that_can_be_done_has_a_name(page):
    nameless = page.run(
        "[...document.querySelectorAll('#viewer button, #viewer input, #viewer select,"
        " #viewer textarea')].filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') ||"
        " (e.labels && e.labels.length))).map(e => e.id)"
    )
    assert nameless == []
    assert page.run("[...document.querySelectorAll('img')].every(i => i.hasAttribute('alt'))")


def test_a_page_within_another_works_and_says_that_nothing_is_kept(chrome, tmp_path):
    """As `snakemake --report` shows it: by an address that holds it, so it has no storage."""
    inner = tmp_path / "index.html"
    write_made_up(inner, NAMES)
    data = base64.b64encode(inner.read_bytes()).decode()
    (tmp_path / "outer.html").write_text(f'<iframe src="data:text/html;base64,{data}"></iframe>')
    chrome.complaints.clear()
    chrome.open(tmp_path / "outer.html")
    frame = chrome.call("Page.getFrameTree")["frameTree"]["childFrames"][0]["frame"]["id"]
    world = chrome.call("Page.createIsolatedWorld", frameId=frame)["executionContextId"]
    script = "['#v-name', '#v-kept'].map(id => document.querySelector(id).textContent)"
    answer = chrome.call("Runtime.evaluate", expression=script, contextId=world, returnByValue=True)
    shown, kept = answer["result"]["value"]
    assert shown == "s1" and kept.startswith("This browser keeps nothing")
    assert chrome.complaints == []


def test_printed_it_has_every_section_and_no_viewer(page):
    page.run("window.dispatchEvent(new Event('beforeprint'))")
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run("getComputedStyle(document.querySelector('#viewer')).display") == "none"
    assert page.run("[...document.querySelectorAll('.section')].every(s => s.offsetHeight > 50)")
    page.call("Emulation.setEmulatedMedia", media="")


def test_pictures_in_a_folder_that_stayed_behind_are_missed(chrome, tmp_path, monkeypatch):
    monkeypatch.setattr("sbr_core.report.shelf.MOST_INSIDE", 1000)
    out = tmp_path / "index.html"
    shelf = write_made_up(out, ("s1", "s2"), key=str(tmp_path))
    chrome.complaints.clear()
    chrome.open(out)
    chrome.until("document.querySelector('#v-plane canvas').width > 0")
    assert chrome.run("document.querySelector('#lost-pictures').hidden")
    assert chrome.complaints == []
    shelf.folder.rename(tmp_path / "elsewhere")
    chrome.reload()
    chrome.until("!document.querySelector('#lost-pictures').hidden")
    chrome.complaints.clear()


@pytest.mark.parametrize(("width", "is_beside"), [(150, False), (480, True)])
def test_350_sections_need_less_than_500_mb(tmp_path, width, is_beside):
    """Each is shown once, and then the whole page is scrolled through."""
    out = tmp_path / "index.html"
    shelf = write_made_up(out, [f"s{number:03d}" for number in range(350)], width, str(tmp_path))
    assert shelf.is_beside == is_beside
    browser = Chrome(tmp_path / "chrome")
    try:
        used_mb = {"empty": browser.memory_mb()}
        browser.open(out)
        used_mb["opened"] = browser.memory_mb()
        for _ in range(349):
            browser.press("j")
        browser.until("document.querySelector('#v-plane canvas').width > 0")
        assert browser.text("#v-name") == "s349" and browser.complaints == []
        used_mb["every section shown"] = browser.memory_mb()
        heap_mb = browser.heap_mb()
        browser.run("document.querySelector('#all-sections').open = true")
        height = browser.run("document.documentElement.scrollHeight")
        for share in range(21):
            browser.run(f"window.scrollTo(0, {height * share / 20})")
            time.sleep(0.1)
        used_mb["scrolled through"] = browser.memory_mb()
    finally:
        browser.close()
    size_mb = (out.stat().st_size + sum(f.stat().st_size for f in shelf.folder.glob("*"))) / 1e6
    print(f"\n{size_mb:.0f} MB of files; MB of the page's process, of the whole browser:")
    for when, (page, everything) in used_mb.items():
        print(f"  {when}: {page:.0f}, {everything:.0f}")
    print(f"  scripts: {heap_mb:.0f}")
    # of the whole browser no more than told: what it keeps beside the page depends on the machine
    assert max(page for page, _ in used_mb.values()) < 500 and heap_mb < 50
