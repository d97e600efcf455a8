"""The report on a world model: errors by horizon, true quantities, films of what is imagined, energy along episodes."""

from pathlib import Path

import numpy as np
import pytest
import support
import torch

from jepakit.data import loader
from jepakit.data.images import files
from jepakit.data.trajectories import settings as trajectories
from jepakit.evals.runs import probe_run
from jepakit.reporting import imagination, write
from jepakit.reporting.imagination import imagine_episodes
from jepakit.run.checkpoint import load_run
from jepakit.types import Signal


def rollouts_run(folder: Path, side: int = 0, split: str = "train") -> Path:
    """A run folder of an untrained world model on episodes of places, or of pictures."""
    source = support.write_rollouts(folder / "episodes", side=side)
    cfg = trajectories.Config(str(source), split=split, window=5, stride=2, held_out=0.3)  # type: ignore[arg-type]
    return support.world_run(folder / "run", cfg)


def imagined_from(run: Path) -> imagination.Imagination:
    loaded = load_run(run)
    found = imagine_episodes(loaded.method, loaded.run.data.test_part().open(), "cpu", seen=False)
    assert found is not None
    return found


def test_the_page_shows_what_a_world_model_imagines(tmp_path: Path) -> None:
    run = rollouts_run(tmp_path, side=9)
    page = write([run]).read_text()
    assert "Imagined and real" in page
    assert "There is no decoder" in page
    assert "Energy along an episode" in page
    assert "the dynamics were not probed" in page
    probe_run(run, ["dynamics"], settings={"dynamics.transitions": 8}, baselines=False)
    page = write([run]).read_text()
    assert "Error by horizon" in page
    assert "True quantities" in page
    assert "the dynamics were not probed" not in page


def test_vectors_are_drawn_as_curves(tmp_path: Path) -> None:
    page = write([rollouts_run(tmp_path)]).read_text()
    assert "Values as they are and as they are imagined" in page
    assert "Training saw these episodes" not in page


def test_episodes_that_training_saw_are_named_so(tmp_path: Path) -> None:
    assert "Training saw these episodes" in write([rollouts_run(tmp_path, split="all")]).read_text()


def test_a_run_that_is_no_world_model_has_no_such_section(tmp_path: Path) -> None:
    source = support.write_pictures(tmp_path / "photos", [f"{k}.png" for k in range(4)], side=16)
    run = support.untrained_run(tmp_path / "run", files.Config(str(source), size=(16, 16)), Signal(3, (16, 16)))
    assert 'id="dynamics"' not in write([run]).read_text()


def test_an_untrained_predictor_imagines_the_first_frame_for_ever(tmp_path: Path) -> None:
    found = imagined_from(rollouts_run(tmp_path, side=9))
    assert (found.nearest == found.true[:, :1]).all()
    assert set(found.frames) == set(found.true.ravel())


def test_a_frame_that_several_windows_show_counts_once(tmp_path: Path) -> None:
    run = rollouts_run(tmp_path)
    found, loaded = imagined_from(run), load_run(run)
    dataset = loaded.run.data.test_part().open()
    episodes = {dataset.place(i).episode for i in range(len(dataset))}
    assert found.count == 17 * len(episodes)
    assert len(found.paths) == len(episodes)
    assert all(to_go.tolist() == list(range(16, 0, -1)) for _, to_go, _ in found.paths)


def test_the_frames_shown_are_those_of_the_data(tmp_path: Path) -> None:
    run = rollouts_run(tmp_path)
    found, loaded = imagined_from(run), load_run(run)
    dataset = loaded.run.data.test_part().open()
    x = torch.cat([batch.x for batch in loader.read_stream(dataset, loaded.method.signal, batch=7)]).numpy()
    names = [dataset.name(i) for i in range(len(dataset))]
    for name, true in zip(found.names, found.true, strict=True):
        shown = np.stack([found.frames[int(row)] for row in true], 1)
        assert shown == pytest.approx(x[names.index(name)])


def test_films_stand_below_one_another() -> None:
    dark, bright = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 200, np.uint8)
    joined = imagination.join_films([[dark, bright], [bright, dark]], gap=1)
    scale = round(imagination.FRAME_SIDE / 6)
    assert joined.shape == (2 * 4 * scale + 1, 2 * 6 * scale + 1, 3)
    assert joined[0, 0].tolist() == [0, 0, 0]
    assert joined[0, -1].tolist() == [200] * 3
    assert joined[-1, 0].tolist() == [200] * 3
    assert joined[4 * scale, 0].tolist() == [255] * 3
