"""The report: what the page says, and what happens where something is missing."""

import json
import re
from dataclasses import dataclass, fields, replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
import yaml

from jepakit import methods
from jepakit.data import dynamics
from jepakit.data.base import Words
from jepakit.data.images import synthetic
from jepakit.masks import Random
from jepakit.methods import ijepa
from jepakit.nn import MLP, ViT
from jepakit.nn.predictor import Predictor
from jepakit.reporting import SECTIONS, figures, write
from jepakit.reporting.curves import METRIC_CURVES
from jepakit.reporting.facts import format_duration
from jepakit.reporting.page import render_page
from jepakit.reporting.records import read_record
from jepakit.reporting.samples import Look, Samples, encode_samples, look_at_run
from jepakit.reporting.section import Entry, Section, View
from jepakit.run import checkpoint, optim
from jepakit.run import settings as config
from jepakit.run.write import to_yaml
from jepakit.training.monitor import measure

EVIL = "</script><script>alert('x')</script>"
FILES = ("config.yaml", "metrics.jsonl", "summary.json", "environment.json", "evals/knn.json")
TINY = ijepa.Config(
    encoder=ViT(patch=(8, 8), width=32, depth=2, heads=2), predictor=Predictor(width=32, depth=1, heads=2)
)


def row(step: int, **metrics: Any) -> dict[str, Any]:
    known = {"normalized_loss": 0.5, "std_ratio_target": 0.9, "rank_target": 7.5, "throughput": 321.0, **metrics}
    return {
        "step": step,
        "loss": 1 / (1 + step),
        "terms": {"prediction": 0.3},
        "metrics": known,
        "lr": 1e-3,
        "time": 2.0 * step,
    }


def write_files(folder: Path, *, verdict: str = "healthy", lr: float = 0.001) -> Path:
    """A run folder without a checkpoint: what the page reads from files alone."""
    (folder / "evals").mkdir(parents=True)
    settings = {"method": {"name": "ijepa"}, "data": {"name": "images", "path": "/nowhere/photos"}, "optim": {"lr": lr}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    rows = [row(step, rank_context=8.0, spectrum={"target": [4.0, 2.0, 1.0]}) for step in range(0, 50, 10)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    summary = {
        "steps": 40,
        "seconds": 3725.0,
        "loss": 0.125,
        "verdict": verdict,
        "reason": "rank holds",
        "advice": "go on",
    }
    (folder / "summary.json").write_text(json.dumps(summary | {"skipped": {f"{EVIL}.jpg": "truncated"}}))
    (folder / "environment.json").write_text(json.dumps({"torch": "2.99.1"}))
    (folder / "evals" / "knn.json").write_text(json.dumps(probe(0.553, 0.541, 0.565)))
    return folder


def probe(value: float, low: float, high: float) -> dict[str, Any]:
    counts = {"n_train": 800, "n_test": 200, "data": "photos", "weights": "target", "step": 40}
    scores = {
        "kind": "knn",
        "metric": "accuracy",
        "value": value,
        "low": low,
        "high": high,
        "random_init": 0.291,
        "raw": 0.392,
    }
    return {**scores, **counts, "per_class": {"cat": 0.25, EVIL: 0.75, "unseen": None}}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write_files(tmp_path / "runs" / "first")


def page(*folders: Path) -> str:
    sections = {name: SECTIONS.load(name) for name in SECTIONS.names()}
    return render_page([read_record(f) for f in folders], [Look()] * len(folders), "1.2.3", sections)


def section_names(html: str) -> list[str]:
    return re.findall(r'<section id="(\w+)">', html)


def write_run(folder: Path, source: Any, method: Any = TINY) -> Path:
    """A run folder with an untrained checkpoint."""
    run = config.Run(method=method, data=source)
    signal = source.open().signal()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = methods.build(method, signal)
    checkpoint.save_checkpoint(folder, 3, model, optim.build_optimizer(run.optim, model), {})
    (folder / "config.yaml").write_text(to_yaml(run))
    return folder


def test_the_page_states_the_verdict_its_advice_and_the_facts_of_the_run(files: Path) -> None:
    html = page(files)
    for said in (
        "healthy",
        "Rank holds.",
        "To do: go on.",
        "ijepa",
        "/nowhere/photos",
        "1 h 02 min",
        "0.125",
        "7.5",
        "2.99.1",
    ):
        assert said in html
    assert re.search(r'badge good">healthy', html)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "–"),
        (5.04, "5.04 s"),
        (61.0, "1 min 01 s"),
        (3720.0, "1 h 02 min"),
        (172_799.0, "47 h 59 min"),
        (5.6e8, "6,481 d 11 h"),
    ],
)
def test_a_time_is_told_in_units_of_its_size(seconds: float | None, told: str) -> None:
    assert format_duration(seconds) == told


def test_a_collapsed_run_has_a_badge_of_alarm(tmp_path: Path) -> None:
    assert re.search(r'badge bad">full', page(write_files(tmp_path / "run", verdict="full")))


def test_an_unfinished_run_is_judged_by_its_rows(files: Path) -> None:
    (files / "summary.json").unlink()
    rows = [row(step, std_ratio_target=ratio) for step, ratio in ((0, 1.0), (10, 0.5), (20, 0.002))]
    (files / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    html = page(files)
    assert re.search(r'badge bad">full · knn clearly better</span>', html)
    assert "Target std is 0.20 % of its value at step 0. To do: " in html
    assert "The run left no summary.json" in html


def test_a_score_stands_beside_both_baselines_with_its_interval(files: Path) -> None:
    html = page(files)
    for said in ("55.3 %", "54.1 % – 56.5 %", "29.1 %", "39.2 %", "+16.1", "test samples 200", "cat"):
        assert said in html


def test_a_gain_is_green_only_where_the_whole_interval_lies_above_the_better_baseline(files: Path) -> None:
    assert 'class="number good" data-label="Gain">+16.1' in page(files)
    (files / "evals" / "knn.json").write_text(json.dumps(probe(0.40, 0.38, 0.42)))
    assert 'class="number warn" data-label="Gain">+0.8' in page(files)
    (files / "evals" / "knn.json").write_text(json.dumps(probe(0.33, 0.30, 0.36)))
    assert 'class="number bad" data-label="Gain">-6.2' in page(files)


def test_the_essential_sections_start_open_and_the_rest_folded(files: Path, tmp_path: Path) -> None:
    def open_sections(html: str) -> set[str]:
        return set(re.findall(r'<section id="(\w+)">\n<details class="fold" open>', html))

    assert {"probes", "curves", "spectrum"} <= open_sections(page(files))
    assert not open_sections(page(files)) & {"masks", "attention", "settings", "environment", "skipped"}
    assert open_sections(page(files, write_files(tmp_path / "other"))) == {"curves"}


def test_the_score_and_its_baselines_lead_the_facts_and_no_rollbacks_are_no_fact(files: Path) -> None:
    facts = re.findall(r"<dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", page(files))
    assert facts[:3] == [("Knn accuracy", "55.3 %"), ("Untrained encoder", "29.1 %"), ("Raw input", "39.2 %")]
    assert "Rollbacks" not in dict(facts)


def test_numbers_do_not_break_across_lines_and_long_texts_do(tmp_path: Path) -> None:
    html = page(write_files(tmp_path / "a"), write_files(tmp_path / "b", lr=0.004))
    assert '<td class="number">0.004</td>' in html
    assert '<td title="/nowhere/photos">photos</td>' in html


def test_a_healthy_run_whose_probe_is_worse_than_a_baseline_has_no_green_badge(files: Path) -> None:
    (files / "evals" / "knn.json").write_text(json.dumps(probe(0.33, 0.30, 0.36)))
    html = page(files)
    assert 'badge bad">healthy · knn clearly worse</span>' in html
    assert "Knn is clearly worse than the raw input. To do: try another method" in html


def test_nothing_from_the_run_becomes_markup(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "<b onclick=alert(1)>run")
    (folder / "environment.json").write_text(json.dumps({EVIL: EVIL}))
    (folder / "config.yaml").write_text(yaml.safe_dump({"method": {"name": EVIL}, "data": {"path": '"><img src=x>'}}))
    rows = [row(k) | {"terms": {'"><svg onload=alert(1)>': 1.0, EVIL: 2.0}} for k in range(3)]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    features = np.random.default_rng(0).normal(size=(5, 4))
    pixels = (np.zeros((4, 4, 3), np.uint8),) * 5
    samples = Samples((EVIL,) * 5, (EVIL,) * 5, features, pixels, pixels, np.zeros((5, 1, 4)), None)
    sections = {name: SECTIONS.load(name) for name in SECTIONS.names()}
    html = render_page([read_record(folder)], [Look(samples=samples, notes={"masks": EVIL})], EVIL, sections, [EVIL])
    assert html.count("<script>") == 1
    for part in ("alert('x')</script>", "<b onclick", "<img src=x", "<svg onload"):
        assert part not in html


def test_the_page_loads_nothing_from_anywhere(tmp_path: Path) -> None:
    folder = write_run(write_files(tmp_path / "run"), synthetic.Config(path="shapes", count=60))
    html = write([folder], images=20).read_text()
    links = re.findall(r"""(?:src|href|data-sprite|xlink:href|action|poster)\s*=\s*["']([^"']*)""", html)
    assert len(links) > 20
    assert all(link.startswith(("data:image/", "#")) or link == "data:," for link in links)
    assert not re.search(r"@import|url\(\s*[\"']?\s*(?:https?:|//)|fetch\(|XMLHttpRequest|<link(?! rel=\"icon\")", html)
    assert "http://" not in html
    assert "https://" not in html


def test_a_folder_that_is_no_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))} is not a run: it holds neither config.yaml"):
        write([tmp_path])
    with pytest.raises(ValueError, match="gone is not a run: it is not a folder"):
        write([tmp_path / "gone"])
    with pytest.raises(ValueError, match="no run given"):
        write([])


def test_a_refused_run_leaves_the_page_that_was_there(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    out.write_text("before")
    with pytest.raises(ValueError, match="not a run"):
        write([files, tmp_path / "gone"], out)
    assert out.read_text() == "before"


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("config.yaml", "No config.yaml was found."),
        ("metrics.jsonl", "there is nothing to draw."),
        ("summary.json", "The run left no summary.json"),
        ("environment.json", "No environment.json was found."),
        ("evals/knn.json", "No probe was run; with labelled data: jepa probe RUN --kind knn"),
    ],
)
def test_each_missing_file_is_one_sentence(files: Path, missing: str, sentence: str) -> None:
    assert sentence not in page(files)
    (files / missing).unlink()
    assert sentence in page(files)


def test_broken_files_are_said_and_the_rest_is_shown(files: Path) -> None:
    with (files / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "lo')
    (files / "evals" / "linear.json").write_text("[1, 2")
    (files / "config.yaml").write_text("method: [")
    html = page(files)
    assert "1 of 6 lines of metrics.jsonl could not be read" in html
    assert "linear.json is not a valid JSON object" in html
    assert "config.yaml is not valid YAML" in html
    assert "55.3 %" in html


def test_a_run_without_its_data_still_has_its_curves_and_masks(tmp_path: Path) -> None:
    source = synthetic.Config(path="shapes", count=60)
    folder = write_run(write_files(tmp_path / "run"), source)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["data"] = {"name": "images", "path": str(tmp_path / "moved-away")}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    html = write([folder]).read_text()
    assert html.count("The data were not read: ") == 4
    assert "moved-away" in html
    assert "Coverage of MultiBlock" in html
    assert "Std ratio" in html


def test_a_run_without_a_checkpoint_says_so(files: Path) -> None:
    html = write([files]).read_text()
    assert html.count("The model could not be loaded: ") == 5
    assert "55.3 %" in html


def test_a_file_name_that_is_no_text_does_not_stop_the_page(files: Path) -> None:
    (files / "summary.json").write_text(json.dumps({"skipped": {"a\udcff.jpg": "truncated"}}))
    assert "a?.jpg: truncated" in write([files]).read_text()


def test_an_encoder_without_attention_has_no_section_of_it(tmp_path: Path) -> None:
    method = ijepa.Config(encoder=MLP(patch=(8, 8), width=32), predictor=Predictor(width=32, depth=1, heads=2))
    folder = write_run(write_files(tmp_path / "run"), synthetic.Config(path="shapes", count=60), method)
    html = write([folder], images=10).read_text()
    assert "attention" not in section_names(html)
    assert "patches" in section_names(html)
    assert "Patch representations as colours" in html


def test_the_whole_page_of_a_real_run_is_small_and_complete(tmp_path: Path) -> None:
    folder = write_run(write_files(tmp_path / "run"), synthetic.Config(path="digits_on_photos", count=200))
    random_state = torch.get_rng_state()
    out = write([folder], images=120)
    assert out == folder / "report.html"
    assert torch.equal(torch.get_rng_state(), random_state)
    html = out.read_text()
    titles = (
        "Coverage of MultiBlock",
        "Examples of MultiBlock",
        "Patch representations",
        "Attention of the last block",
    )
    for title in (*titles, "Nearest neighbours", "Map of the representations", "Eigenspectrum, target encoder"):
        assert f"<h3>{title}" in html
    assert html.count("data-i=") == 120
    assert out.stat().st_size < 5_000_000
    assert not re.search(r"<img(?![^>]* alt=)", html)
    assert [p.name for p in folder.glob(".*")] == []


def test_many_runs_show_fewer_pictures_each(tmp_path: Path) -> None:
    seen = look_at_run(write_run(tmp_path / "run", synthetic.Config(path="shapes", count=40)), 30)
    for shown in (8, 2):
        view = View(read_record(tmp_path / "run"), "run", seen.first(shown))
        names = ("masks", "patches", "attention", "neighbours", "map")
        parts = {name: SECTIONS.load(name).show([view]) for name in names}
        tiles = {name: sum(f.body.count("<figure") for f in part.figures) for name, part in parts.items() if part}
        assert tiles == {"masks": 2 + shown, "patches": shown, "attention": shown, "neighbours": 6 * shown, "map": 0}


def test_several_runs_are_compared_on_one_page(tmp_path: Path) -> None:
    one = write_files(tmp_path / "a" / "run")
    two = write_files(tmp_path / "b" / "run", verdict="dimensional", lr=0.004)
    html = page(one, two)
    for said in ("a/run", "b/run", "1 setting that differs", "0.001", "0.004", "badge good", "badge bad"):
        assert said in html
    assert html.count('data-name="a/run"') == html.count('data-name="b/run"') > 0
    assert write([one, two]) == tmp_path / "a" / "report.html"


def test_retrieval_is_told_with_the_number_of_samples_that_it_asks() -> None:
    (caption,) = [curve.caption for curve in METRIC_CURVES if curve.title == "Retrieval"]
    guide = (Path(__file__).parents[2] / "docs" / "reading-the-report.md").read_text()
    step = f"{100 / measure.NUM_QUERIES:.1f} %"
    assert f"asked of {measure.NUM_QUERIES} samples: a step of {step} is one of them" in caption
    assert f"Retrieval asks {measure.NUM_QUERIES} samples" in guide
    assert f"steps of {100 / measure.NUM_QUERIES:g} points" in guide


def test_settings_that_agree_are_not_listed_as_different(tmp_path: Path) -> None:
    html = page(write_files(tmp_path / "one"), write_files(tmp_path / "two"))
    assert "that differ" not in html


def test_data_are_shown_by_name_and_their_path_stands_behind_it(tmp_path: Path) -> None:
    one, two = write_files(tmp_path / "one"), write_files(tmp_path / "two")
    assert '<dd title="/nowhere/photos">photos</dd>' in page(one)
    for folder, data in ((one, "/a/photos → /a/shapes.npz:x (test part)"), (two, "/b/drawings")):
        (folder / "evals" / "knn.json").write_text(json.dumps(probe(0.5, 0.4, 0.6) | {"data": data}))
    html = page(one, two)
    assert "data photos → shapes.npz:x (test part) · " in html
    assert 'title="/a/photos → /a/shapes.npz:x (test part)"' in html
    assert "knn accuracy · drawings" in html


def test_a_curve_of_the_panel_begins_at_step_0_where_a_checkpoint_has_it(tmp_path: Path) -> None:
    folder = write_run(write_files(tmp_path / "run"), synthetic.Config(path="shapes", count=8))
    rows = [row(step) for step in (10, 20)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert list(read_record(folder).column("metrics", "rank_target")[0]) == [10, 20]
    path = folder / "checkpoints" / "last" / "state.json"
    panel = {"rows": [{"rank_target": 30.0}, {"rank_target": 7.5}, {"rank_target": 7.5}]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"panel": panel}))
    steps, ranks = read_record(folder).column("metrics", "rank_target")
    assert (list(steps), list(ranks)) == ([0, 10, 20], [30.0, 7.5, 7.5])
    assert list(read_record(folder).column("loss")[0]) == [10, 20]


def test_a_spectrum_lists_its_steps_and_skips_what_was_not_logged(files: Path) -> None:
    figure = figures.spectrum_figure(read_record(files), "target")
    assert figure is not None
    assert all(f"step {k}" in figure.body for k in range(0, 50, 10))
    assert "2 of 3 directions hold 90 %" not in figure.body
    assert "At step 40, 3 of 3 directions hold 90 % of the variance." in figure.body
    assert figures.spectrum_figure(read_record(files), "context") is None


def test_a_probe_without_numbers_is_shown_as_unknown(files: Path) -> None:
    (files / "evals" / "knn.json").write_text('{"kind": "knn"}')
    assert "<b>–</b>" in page(files)


def test_the_warning_of_a_probe_stands_under_its_row(files: Path) -> None:
    (files / "evals" / "knn.json").write_text(
        '{"kind": "knn", "notes": {"warning": "the test data are the training data"}}'
    )
    assert "the test data are the training data" in page(files)


def test_a_folder_as_target_is_refused_before_anything_is_computed(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder; give --out a file"):
        write([files], tmp_path)


def test_what_a_method_watches_is_drawn_apart_from_the_terms_of_its_loss(tmp_path: Path) -> None:
    rows = [row(k) | {"terms": {"forward": 1.0, "backward": 2.0}, "watched": {"norm": 9.0}} for k in range(3)]
    (write_files(tmp_path / "run") / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = {f.title: f.body for f in figures.curve_figures([read_record(tmp_path / "run")], ["run"])}
    assert "forward" in found["Loss terms"]
    assert "norm" not in found["Loss terms"]
    assert "norm: 9" in found["Watched by the method"]


def show_nothing_that_can_be_shown(views: list[View]) -> Any:
    return {"figures": []}


def divide_by_zero(views: list[View]) -> Any:
    return 1 / (len(views) - 1)


@pytest.mark.parametrize(
    ("show", "reason"),
    [
        (divide_by_zero, "ZeroDivisionError: division by zero"),
        (
            show_nothing_that_can_be_shown,
            "TypeError: show returned a dict; return a Part of figures and texts, or None",
        ),
        (lambda views: views[0].gone, "AttributeError: "),
        (lambda views: [][0], "IndexError: list index out of range"),
    ],
)
def test_a_section_that_fails_loses_its_own_place_only(
    show: Any, reason: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = {name: SECTIONS.load(name) for name in SECTIONS.names()}
    broken = sound | {"mine": Entry(Section(55, "Mine"), show)}
    monkeypatch.setattr(SECTIONS, "names", lambda: tuple(broken))
    monkeypatch.setattr(SECTIONS, "load", broken.__getitem__)
    seen = support.Recorder()
    html = write([files], progress=seen).read_text()
    sentence = f"he report section 'mine' failed and is left out ({reason}"
    assert f"T{sentence}" in unescape(html)
    assert [note for note in seen.notes if note.startswith(f"t{sentence}")]
    assert len(seen.notes) == 1
    monkeypatch.setattr(SECTIONS, "names", lambda: tuple(sound))
    assert [name for name in section_names(html) if name != "mine"] == section_names(write([files]).read_text())


def test_no_section_of_ours_fails_on_a_run_that_is_whole(tmp_path: Path) -> None:
    seen = support.Recorder()
    write([write_run(tmp_path / "r", synthetic.Config("shapes", count=8))], images=4, progress=seen)
    assert not seen.notes


def test_the_report_on_vectors_speaks_of_no_pictures(tmp_path: Path) -> None:
    waves = dynamics.Config("sines", count=12)
    size = waves.open().signal().size
    method = ijepa.Config(encoder=ViT(patch=(size[0] // 4,), width=32, depth=2, heads=2), predictor=TINY.predictor)
    folder = write_run(tmp_path / "r", waves, replace(method, masks=(Random(),)))
    (folder / "evals").mkdir()
    (folder / "evals" / "knn.json").write_text(json.dumps(probe(0.553, 0.541, 0.565)))
    seen = support.Recorder()
    html = write([folder], images=8, progress=seen).read_text()
    assert not seen.notes
    assert section_names(html) == ["probes", "curves", "spectrum", "masks", "settings", "environment", "skipped"]
    text = re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL)
    assert "Raw input" in text
    assert not re.findall(r".{0,40}(?:pixel|image).{0,40}", text, re.IGNORECASE)


def test_figures_call_samples_what_the_data_call_them(tmp_path: Path) -> None:
    @dataclass(frozen=True, eq=False)
    class Maps(type(synthetic.Config("shapes", count=8).open())):  # type: ignore[misc]
        words = Words("map", "maps")

    dataset = synthetic.Config("shapes", count=8).open()
    maps = Maps(**{f.name: getattr(dataset, f.name) for f in fields(dataset)})
    method = methods.build(TINY, maps.signal())
    seen = encode_samples(method, maps, 8, "cpu")
    assert seen is not None
    view = View(read_record(write_files(tmp_path / "r")), "r", Look((8, 8), seen))
    for name in ("map", "neighbours"):
        part = SECTIONS.load(name).show([view])
        assert part is not None
        assert "8 maps" in part.figures[0].caption
