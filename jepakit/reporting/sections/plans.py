"""The section on planning: every agent on the same starts, what the model knows, the energy, and a film."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from ...core.words import percent
from ..figures import Figure
from ..landscapes import landscape_figures
from ..section import Part, Section, View
from ..templates import fill_template

SECTION: Final = Section(
    15,
    "Planning",
    "How often plans arrive, beside a random policy and agents that know the true dynamics. A score counts only under "
    "its protocol.",
    folds="for several runs",
)
MAX_FILM_BYTES: Final = 2**22
FILM_CAPTION: Final = (
    "Left the present, then the frame that the plan is imagined to end at, decoded by a small decoder, and the goal. A "
    "plan fails where the imagined frame shows what cannot happen, or shows the goal although nothing gets there."
)


def show(views: Sequence[View]) -> Part | None:
    """A table per result, its landscapes and its film; None if no run has planned."""
    found = [(view, name, result) for view in views for name, result in view.record.plans.items()]
    if not found:
        return None
    plans = [{"title": _title(view, name, len(views)), **_rows(result)} for view, name, result in found]
    figures = list[Figure]()
    for view, name, result in found:
        title = _title(view, name, len(views))
        own = _figures(view.record.folder / "evals" / name, result)
        figures += [replace(f, title=f"{f.title} · {title}") if len(found) > 1 else f for f in own]
    return Part(tuple(figures), body=fill_template("plans.html.j2", plans=plans))


def _title(view: View, name: str, runs: int) -> str:
    planner = name.removeprefix("plan-")
    return f"{planner} · {view.name}" if runs > 1 else planner


def _figures(file: Path, result: Mapping[str, Any]) -> list[Figure]:
    """The landscapes and the film of one result; `file` is its path without an ending."""
    film = _film(file.with_suffix(".gif"))
    return [*landscape_figures(result, file.with_suffix(".npz")), *([film] if film else [])]


def _rows(result: Mapping[str, Any]) -> dict[str, Any]:
    """The template's values for one result."""
    goal = result.get("success_end") is not None

    def written(value: float | None) -> str:
        return "" if value is None else percent(value, 0) if goal else f"{value:.1f}"

    agents = [
        (name, written(agent["score"]), f"{written(agent['low'])} – {written(agent['high'])}")
        for name, agent in result.get("agents", {}).items()
    ]
    model = result.get("model") or {}
    factors = [
        (name, *(f"{value:.2f}" for value in (errors["seen"], errors["imagined"][-1], errors["spread"])))
        for name, errors in model.get("factors", {}).items()
    ]
    return {
        "agents": agents,
        "score": "Success at the end" if goal else "Return",
        "energy": result.get("energy", ""),
        "protocol": _protocol(result.get("protocol", {})),
        "factors": factors,
        "horizon": len(next(iter(model["factors"].values()))["imagined"]) if factors else 0,
        "walls": _walls(model.get("ghosting") or {}),
    }


def _protocol(protocol: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in protocol.items() if value is not None)


def _walls(ghosting: Mapping[str, Any]) -> str:
    shares = [share for share in ghosting.get("share", []) if share is not None]
    return f"The model lets {percent(shares[-1], 0)} of pushes through the wall at the end of a plan." if shares else ""


def _film(path: Path) -> Figure | None:
    """The film of one result, inside the page; None if there is none, or if it is too large for a page."""
    if not path.is_file() or path.stat().st_size > MAX_FILM_BYTES:
        return None
    data = base64.b64encode(path.read_bytes()).decode()
    picture = Markup('<img alt="Film of two episodes" src="data:image/gif;base64,{}">').format(data)
    return Figure("Episodes", picture, FILM_CAPTION, wide=True)
