"""Pictures of the energy that a planner descends: what is drawn is what was stored."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepakit.reporting.landscapes import COLOURS, Grid, band_picture, enlarge, landscape_figures

GRID = Grid(("x", "y"), np.linspace(4, 60, 3), np.linspace(0, 2, 2), downward=True)
FACTS: dict[str, Any] = {
    "episodes": ["arrives"],
    "downward": True,
    "floor": {
        "axes": ["x", "y"],
        "maps": ["true way to go", "latent distance (l2)"],
        "goals": 8,
        "correlation": {"latent distance (l2)": 0.5, "straight line": 0.8},
        "arrives": {"true way to go": 1.0, "latent distance (l2)": 0.25, "straight line": 0.75},
    },
    "actions": {"axes": ["x", "y"], "maps": ["on the model"]},
}


def write_arrays(file: Path) -> None:
    """A floor of 5 x 5 places in which everything leads to the last one, or nothing leads anywhere."""
    lead = np.stack([np.full(25, 24), np.arange(25)]).reshape(1, 2, 5, 5)
    np.savez(
        file,
        floor_x=np.linspace(4, 60, 5),
        floor_y=np.linspace(4, 60, 5),
        floor_energy=np.arange(50.0).reshape(1, 2, 5, 5),
        floor_downhill=lead,
        floor_arrives=lead == 24,
        floor_ends=np.array([[0, 24]]),
        action_x=np.linspace(-2, 2, 5, dtype=np.float32),
        action_y=np.linspace(-2, 2, 5),
        action_energy=np.arange(25.0).reshape(1, 1, 5, 5),
        action_choice=np.array([[0.0, 2.0]], np.float32),
    )


def test_a_floor_has_its_numbers_and_a_dot_where_a_way_down_is_caught(tmp_path: Path) -> None:
    write_arrays(file := tmp_path / "plan.npz")
    floor, actions = landscape_figures({"landscapes": FACTS}, file)
    true, latent = floor.body.split("<figure")[1:]
    assert 'class="caught"' not in true
    assert latent.count('class="caught"') == 24
    assert "rank correlation 0.50, leads to the goal from 25 % of places" in latent
    assert "The straight line has rank correlation 0.80" in floor.caption
    goal = re.search(r'class="goal" cx="([\d.]+)" cy="([\d.]+)"', true)
    assert goal is not None
    assert [float(v) for v in goal.groups()] == [270, 270]
    # The choice (0, 2) lies in the middle of x and, as y grows downward, at the bottom; the lowest energy at the top.
    assert 'd="M141.0 270.0h18' in actions.body
    assert 'class="lowest" cx="30.0" cy="30.0"' in actions.body


def test_a_model_without_finite_energies_has_blank_maps_and_no_lowest_point(tmp_path: Path) -> None:
    write_arrays(file := tmp_path / "plan.npz")
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["floor_energy"][0, 1], arrays["action_energy"][:] = np.nan, np.nan
    np.savez(file, **arrays)
    floor, actions = landscape_figures({"landscapes": FACTS}, file)
    assert floor.body.count('class="way"') == 25  # of the true way to go alone
    assert 'class="lowest"' not in actions.body
    assert 'class="choice"' in actions.body


def test_there_is_no_figure_without_arrays(tmp_path: Path) -> None:
    assert landscape_figures({"landscapes": FACTS}, tmp_path / "plan.npz") == []
    write_arrays(file := tmp_path / "plan.npz")
    assert landscape_figures({}, file) == []


def test_places_lie_where_their_values_say_and_vectors_grow_upward() -> None:
    upward = Grid(GRID.names, GRID.x, GRID.y, downward=False)
    assert GRID.number(5) == (250, 225)
    assert upward.number(5) == (250, 75)
    assert GRID.value(60.0, 2.0) == pytest.approx(GRID.number(5))
    assert GRID.value(18.0, 1.0) == pytest.approx((100, 150))


def test_colours_are_bands_of_equal_shares_and_unknown_places_are_blank() -> None:
    energy = np.array([[0.0, 1.0, 2.0, 1000.0], [np.nan, 4.0, 5.0, 6.0]])
    picture = band_picture(energy)
    assert tuple(picture[0, 0]) == (*COLOURS[0], 255)
    assert tuple(picture[0, -1]) == (*COLOURS[-1], 255)
    assert (picture[8:, :8, 3] == 0).all()
    assert (picture[:, :, 3] > 0).sum() == 7 * 64
    # A monotone change of the energy changes no colour of the places themselves.
    middle = np.ix_(range(4, 16, 8), range(4, 32, 8))
    assert np.array_equal(band_picture(np.sqrt(energy))[middle], picture[middle])


def test_an_enlarged_map_is_linear_between_known_places_alone() -> None:
    found = enlarge(np.array([[0.0, 1.0, np.nan, 5.0]]), 4)
    assert found.shape == (4, 16)
    assert found[0, :8] == pytest.approx([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
    assert np.isnan(found[0, 8:12]).all()
    assert (found[0, 12:] == 5).all()
