"""report.html: self-contained, safe with hostile text, and usable in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import console, open_browser, requests, show
from made_reports import ATTACK, Row, make_class_rows, make_full_run, make_report_runs, write_lines

from unipeft_run.commands.report import main

WIDTHS = {"desktop": 1280, "phone": 390}


def attack(rows: list[Row]) -> None:
    reference = f"{ATTACK} \u2028 <!--<script>"
    rows[0] |= {"prediction": f"{ATTACK} {rows[0]['prediction']}", "reference": reference}


def poison(folder: Path) -> None:
    """Make every text of a run hostile, not only its predictions."""
    for name in ("metrics.json", "parameters.json"):
        content = json.loads((folder / name).read_text())
        content |= {"method": ATTACK, "signatures": {ATTACK: ATTACK}, "trivial/name": ATTACK}
        content |= {"sites": [{"slot": ATTACK, "representation": ATTACK, "stored": 77_227}]}
        (folder / name).write_text(json.dumps(content))
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(
        config.replace("optim:\n", f"optim:\n  extra: '{ATTACK}'\n")
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page of six runs, with hostile texts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("report"))
        make_report_runs(attack)
        (folder,) = Path("outputs/sst2/bitfit").iterdir()
        poison(folder)
        assert main(["outputs", "--html"]) == 0
        yield Path("report.html").absolute()


class Tags(HTMLParser):
    """Collects the start tags with their attributes, and the content of scripts and styles."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:  # inside a script or style
            self.raw[self.cdata_elem][-1] += data


def test_the_page_refers_to_nothing_outside(page: Path) -> None:
    found = Tags(page)
    names = {tag for tag, _ in found.tags}
    assert not names & {"img", "link", "iframe", "object", "base"}
    for tag, attributes in found.tags:
        assert "src" not in attributes and "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert (attributes.get("href") or "#").startswith("#"), tag


def test_only_the_pages_own_script_and_style_may_run(page: Path) -> None:
    found = Tags(page)
    payload, script = found.raw["script"]
    (policy,) = (own["content"] for _, own in found.tags if "http-equiv" in own)
    assert policy and policy.startswith("default-src 'none'; ")
    for content in (script, found.raw["style"][0]):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy
    groups = json.loads(payload)
    assert groups[1]["runs"][0]["predictions"][0].startswith(ATTACK), "nothing is lost"


def test_tables_hold_what_the_text_report_says(page: Path) -> None:
    content = page.read_text()
    assert main(["outputs"]) == 0
    for value in ("lora_attn", "trivial: naive Bayes", "118,112", "2.29", "Table 2: "):
        assert value in content
    (command,) = re.findall(r"unipeft train task=sst2 method=full scale=mini[^<]*", content)
    assert "Full-FT" in command


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as found:
        yield found


def column(browser: Any, number: int) -> list[str]:
    rows = "[...document.querySelector('table').tBodies[0].rows]"
    return list(browser.execute_script(f"return {rows}.map(r => r.cells[{number}].textContent)"))


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_in_a_browser(browser: Any, page: Path, width: int) -> None:
    show(browser, page, width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    size = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert size == [width, width], "no horizontal scroll"
    assert [url for url in requests(browser) if url != page.as_uri()] == []
    assert console(browser) == []
    shown = browser.execute_script("return document.body.textContent")
    assert shown.count(ATTACK) > 9, "hostile text is shown, not run"


def test_tables_are_sorted_by_keyboard(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    show(browser, page, 1280)
    header = browser.find_element(By.CSS_SELECTOR, "thead th:nth-child(6) button")
    assert header.text.startswith("stored")
    header.send_keys(Keys.ENTER)
    assert column(browser, 5) == ["520,150", "118,112", "77,227", "", ""]
    header.send_keys(Keys.SPACE)
    assert column(browser, 5) == ["77,227", "118,112", "520,150", "", ""]
    parent = header.find_element(By.XPATH, "..")
    assert parent.get_attribute("aria-sort") == "ascending"


def test_the_legend_hides_a_series(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.by import By

    show(browser, page, 1280)
    button = browser.find_element(By.CSS_SELECTOR, ".legend button")
    series = browser.find_elements(By.CSS_SELECTOR, ".figures .series.s0")[0]
    assert series.is_displayed() and button.get_attribute("aria-pressed") == "true"
    button.click()
    assert not series.is_displayed() and button.get_attribute("aria-pressed") == "false"


def test_predictions_of_two_runs_are_compared(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.select import Select

    show(browser, page, 1280)
    group, first, second, shown = map(Select, browser.find_elements(By.TAG_NAME, "select"))
    group.select_by_index(1)
    chosen = [box.first_selected_option.text[:8] for box in (first, second)]
    assert chosen == ["mam, see", "lora_ffn"]
    article = browser.find_element(By.CSS_SELECTOR, ".example")
    assert ATTACK in article.text, "hostile text is shown, not run"
    assert browser.find_elements(By.CSS_SELECTOR, "#viewer img, #viewer script") == []
    marks = browser.find_elements(By.CSS_SELECTOR, ".example:nth-child(2) mark.a")
    words = [mark.text for mark in marks]
    other = browser.find_elements(By.CSS_SELECTOR, ".example:nth-child(2) .pair > div")[1].text
    assert words and len(words) < 18 and other.count("\n") == 1
    second.select_by_index(0)
    assert "differ on 0" in browser.find_element(By.CSS_SELECTOR, "#viewer [aria-live]").text
    shown.select_by_visible_text("all examples")
    assert browser.find_elements(By.CSS_SELECTOR, "mark") == []
    assert console(browser) == []


def test_the_number_of_predictions_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = make_class_rows(1, 50, 80)
    rows[0]["prediction"] = "x" * 5000
    make_full_run("task=sst2", "method=mam", rows=rows, final=80)
    assert main(["--html", "small.html", "--predictions", "7"]) == 0
    assert capsys.readouterr().out == "small.html\n"
    (group,) = json.loads(Tags(Path("small.html")).raw["script"][0])
    assert len(group["examples"]) == len(group["runs"][0]["predictions"]) == 7
    assert len(group["runs"][0]["predictions"][0]) == 1001
    assert "The first 7 test predictions" in Path("small.html").read_text()
    assert main(["--html", "none.html", "--predictions", "0"]) == 0
    assert "id='viewer'" not in Path("none.html").read_text()


ODD: dict[str, bytes] = {
    "predictions/test.jsonl": b'{"id": {"a": 1}, "prediction": 3, "score": "x"}\n[1]\n{',
    "train.jsonl": b'{"step": 1, "train/loss": 1e40}\n{"step": "x"}\n\xff\n{"step": 2}',
    "parameters.json": b'{"sites": [3, {"slot": [1], "trained": "x", "stored_percent": null}]}',
}


@pytest.mark.parametrize("name", ODD)
def test_damaged_files_leave_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        rows = make_class_rows(seed, 20, 80)
        folder = make_full_run("task=sst2", "method=mam", f"seed={seed}", rows=rows, final=80)
    (folder / name).write_bytes(ODD[name])
    write_lines(folder.parent / "unfinished" / "train.jsonl", [])
    (folder.parent / "unfinished" / "status.json").write_text("{}")
    assert main(["--html"]) == 0
    content = Path("report.html").read_text()
    assert "Runs left out" in content and "seed 1" in content


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (
            ["--html", "outputs"],
            "--html outputs: this is a folder; write unipeft report outputs --html",
        ),
        (["outputs", "--html", "nowhere/page.html"], "nowhere/page.html cannot be written"),
        (["nowhere", "--html"], "nowhere is not a run folder"),
        (["--html", "--format", "csv"], "--html and --format exclude each other"),
        (["outputs", "--experiment", "tabel2", "--html"], "table2"),
    ],
)
def test_a_wrong_name_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_full_run("task=sst2", "method=mam", rows=make_class_rows(1, 4, 80), final=80)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and part in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("place", ["elsewhere/outputs/sst2/mam/run", "run"])
def test_commands_of_missing_cells_name_the_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_full_run("task=sst2", "method=mam", rows=make_class_rows(1, 4, 80), final=80)
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    folder.rename(place)
    assert main([place, "--html"]) == 0
    content = Path("report.html").read_text()
    command = "unipeft train task=sst2 method=bitfit scale=mini"
    output = f" output={tmp_path / 'elsewhere/outputs'}" if place != "run" else ""
    assert f"{command}{output}  # BitFit" in content
