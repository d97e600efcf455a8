"""Lets a world model imagine a few episodes and draws what it imagines, for the section on dynamics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from markupsafe import Markup

from ..data import Dataset, loader
from ..data.draws import spread_evenly
from ..evals.kinds.dynamics import episode_energies
from ..evals.transitions import Transitions, choose_windows, read_transitions
from ..methods.predictive import Predictive
from ..types import Batch, unit
from .charts import Line, line_chart
from .figures import Figure, describe_line
from .pictures import img_tag, shrink_image, to_rgb
from .records import Array, nested_value

MAX_WINDOWS: Final = 100
MAX_FILMS: Final = 6
MAX_SHOWN_FRAMES: Final = 9
MAX_PATHS: Final = 7
MAX_VALUES_SHOWN: Final = 2
FRAME_SIDE: Final = 64
CURVE_NAMES: Final = {
    "model": "model",
    "last_state": "last seen frame",
    "mean": "mean latent",
    "linear": "linear model of latents",
}


@dataclass(frozen=True, eq=False)
class Imagination:
    """What a world model makes of k windows of F frames, and of whole episodes.

    `nearest` (k, T) is, for each imagined frame, the row of the nearest real one among all `count` frames, and `true`
    (k, T) that of the frame itself. `frames` are pictures (H, W, 3) uint8 by row, or values (C,) if frames are vectors.
    `paths` are, by episode, steps to go and the energy of each frame to the last one. `seen`: training saw them.
    """

    names: tuple[str, ...]
    nearest: Array
    true: Array
    frames: Mapping[int, Array]
    count: int
    paths: tuple[tuple[str, Array, Array], ...]
    columns: tuple[str, ...] = ()
    seen: bool = False


def imagine_episodes(
    method: Predictive, dataset: Dataset, device: torch.device | str, seen: bool
) -> Imagination | None:
    """Windows of the data as the model imagines them; None if fewer than two can be read."""
    rows, pictures = choose_windows(dataset, MAX_WINDOWS), list[Array]()
    batches = _keep_frames(loader.read_stream(dataset.subset(rows), method.signal, batch=16), rows, pictures)
    try:
        part = read_transitions({"value": method}, method, dataset, batches, str(device))["value"]
    except ValueError:
        if not pictures:
            return None
        raise
    part.check_finite()
    if len(part) < 2 or part.pred is None:
        return None
    shown = spread_evenly(len(part), MAX_FILMS)
    # A frame that several windows show counts once, in the first of them.
    number = np.stack([np.repeat(part.sequence, part.s.shape[1]), part.frame.ravel()], 1)
    _, first, which = np.unique(number, axis=0, return_index=True, return_inverse=True)
    pool = part.s.reshape(-1, part.s.shape[-1])[first]
    nearest = np.stack([first[_nearest_rows(pool, part.pred[k])] for k in shown])
    true = first[which.reshape(part.frame.shape)[shown]]
    rows_shown = sorted({*nearest.ravel().tolist(), *true.ravel().tolist()})
    return Imagination(
        names=tuple(dataset.name(int(part.id[k])) for k in shown),
        nearest=nearest,
        true=true,
        frames={row: pictures[row] for row in rows_shown},
        count=len(pool),
        paths=_energy_paths(part, dataset),
        columns=() if len(method.signal.size) > 1 else dataset.column_names,
        seen=seen,
    )


def _keep_frames(batches: Iterator[Batch], rows: Array, kept: list[Array]) -> Iterator[Batch]:
    """The batches, with ids of the whole data set; their frames are added to `kept` in order, as pictures or values."""
    for batch in batches:
        x = unit(batch.x).float().movedim(2, 1).flatten(0, 1).numpy()
        # Of two channels the brighter one is shown: their mean would halve what only one of them has.
        shown = x.max(1, keepdims=True) if x.shape[1] == 2 else x
        kept += [shrink_image(p, FRAME_SIDE) for p in to_rgb(shown)] if x.ndim == 4 else list(x)
        yield Batch(batch.x, action=batch.action, proprio=batch.proprio, id=torch.from_numpy(rows)[batch.id])


def _nearest_rows(pool: Array, pred: Array) -> Array:
    """The row of `pool` (n, D) that is nearest to each row of `pred` (T, D)."""
    return np.array([int(np.square(pool - each).sum(1).argmin()) for each in pred])


def _energy_paths(part: Transitions, dataset: Dataset) -> tuple[tuple[str, Array, Array], ...]:
    found = episode_energies(part)
    chosen = [list(found)[k] for k in spread_evenly(len(found), MAX_PATHS)]
    first = {int(part.sequence[i]): int(part.id[i]) for i in reversed(range(len(part)))}
    return tuple((dataset.place(first[e]).episode, *found[e]) for e in chosen)


# --- figures


def imagination_figures(imagined: Imagination) -> list[Figure]:
    """The films, imagined beside real, and the energy along episodes."""
    films = [_value_figure(imagined)] if imagined.columns else [_film_figure(imagined)]
    return [*films, *_energy_figure(imagined)]


def error_figure(entry: Mapping[str, Any]) -> Figure | None:
    """The open-loop error by horizon of a probe's result, beside what is trivial; None if it has no curves."""
    curves = nested_value(entry, ("notes", "curves"))
    if not isinstance(curves, Mapping):
        return None
    lines = []
    for color, (name, words) in enumerate(CURVE_NAMES.items()):
        y = np.array(curves.get(name, ()), float)
        lines.append(Line(words, np.arange(1, len(y) + 1, dtype=float), y, color=color, dashed=name != "model"))
    caption = (
        "How far imagined latents lie from those of the real frames, as a share of the latents' variance, by the "
        "number of steps imagined. Below the last seen frame, the model knows more than that nothing changes; below "
        "the linear model, more than a linear one of the same latents. What stands still in an episode is imagined for "
        "free, so a low curve alone says little."
    )
    label = "Open-loop error by horizon. " + " ".join(describe_line(line) for line in lines)
    body = line_chart(lines, label, x_label="steps imagined", log_y=all((line.y > 0).all() for line in lines))
    return Figure("Error by horizon", body, caption)


def factor_figure(entries: Sequence[Mapping[str, Any]]) -> Figure | None:
    """R² of every true quantity, from imagined latents by horizon and from real frames; None without quantities."""
    lines = []
    for color, entry in enumerate(entries):
        notes, value = entry.get("notes") or {}, entry.get("value")
        if not isinstance(value, (int, float)) or not notes.get("imagined"):
            continue
        y = np.array([value, *notes["imagined"]], float).clip(-1)
        lines.append(Line(str(notes.get("factor")), np.arange(len(y), dtype=float), y, color=color))
    if not lines:
        return None
    caption = (
        "How well a linear probe reads each true quantity: at 0 from the latents of real frames, then from imagined "
        "ones. 1 is perfect, 0 no better than the mean; values below −1 are drawn there. A quantity that starts low is "
        "not in the latent; one that falls is lost by the predictor."
    )
    label = "R² of true quantities by horizon. " + " ".join(describe_line(line) for line in lines)
    return Figure("True quantities", line_chart(lines, label, x_label="steps imagined"), caption)


def _film_figure(imagined: Imagination) -> Figure:
    cell = '<figure class="half">{}<figcaption>{}</figcaption></figure>'
    cells = []
    for name, near, true in zip(imagined.names, imagined.nearest, imagined.true, strict=True):
        chosen = spread_evenly(len(true), MAX_SHOWN_FRAMES)
        real = [imagined.frames[int(true[t])] for t in chosen]
        made = [imagined.frames[int(true[0] if t == 0 else near[t - 1])] for t in chosen]
        alt = f"{name}: frames {', '.join(map(str, chosen))}, above as they are, below as they are imagined"
        cells.append(Markup(cell).format(img_tag(join_films([real, made]), alt, lossless=True), name))
    caption = (
        "Above what happened, below what the model imagines from the first frame and the actions alone. There is no "
        f"decoder: below stands the real frame, of {imagined.count:,} of these and other episodes, whose latent is "
        "nearest to the imagined one. "
        f"{_hits_sentence(imagined)} A picture shows what the latent is nearest to, not all that it holds."
    )
    body = Markup('<div class="halves">{}</div>').format(Markup("").join(cells))
    return Figure("Imagined and real", body, f"{caption}{_seen_words(imagined)}", wide=True)


def _value_figure(imagined: Imagination) -> Figure:
    """The first values of vectors over one window, as they are and as they are imagined."""
    near, true, lines = imagined.nearest[0], imagined.true[0], []
    for c, name in enumerate(imagined.columns[:MAX_VALUES_SHOWN]):
        real = np.array([imagined.frames[int(row)][c] for row in true], float)
        made = np.array([imagined.frames[int(row)][c] for row in [true[0], *near]], float)
        x = np.arange(len(true), dtype=float)
        lines += [Line(name, x, real, color=c), Line(f"{name}, imagined", x, made, color=c, dashed=True)]
    caption = (
        f"One window, {imagined.names[0]}: what happened, and what the model imagines from the first frame and the "
        f"actions alone. There is no decoder: imagined is the real frame, of {imagined.count:,}, whose latent is "
        f"nearest. {_hits_sentence(imagined)}{_seen_words(imagined)}"
    )
    label = "Values as they are and as they are imagined. " + " ".join(describe_line(line) for line in lines)
    return Figure("Imagined and real", line_chart(lines, label, x_label="frame"), caption)


def _energy_figure(imagined: Imagination) -> list[Figure]:
    paths = [path for path in imagined.paths if len(path[1]) > 1]
    if not paths:
        return []
    lines = [
        Line(name, -to_go.astype(float), energy / max(float(energy.max()), 1e-30), color=k)
        for k, (name, to_go, energy) in enumerate(paths)
    ]
    caption = (
        "The squared distance from the latent of each frame to that of the episode's last frame, divided by its "
        "largest value: what a planner with that frame as its goal sees. A curve that falls all the way leads there; "
        f"one that rises first, or is flat, does not, as in front of a wall.{_seen_words(imagined)}"
    )
    label = "Energy along episodes. " + " ".join(describe_line(line) for line in lines)
    return [Figure("Energy along an episode", line_chart(lines, label, x_label="steps before the end"), caption)]


def _hits_sentence(imagined: Imagination) -> str:
    """How often the nearest frame is the true one."""
    hits = (imagined.nearest == imagined.true[:, 1:]).mean()
    last = (imagined.nearest[:, -1] == imagined.true[:, -1]).mean()
    return f"It is the true frame in {hits:.0%} of all steps here and in {last:.0%} of the last ones."


def _seen_words(imagined: Imagination) -> str:
    return " Training saw these episodes." if imagined.seen else ""


def join_films(films: Sequence[Sequence[Array]], gap: int = 2) -> Array:
    """Films of pictures (H, W, 3) as one picture: a row per film, white gaps, small pictures enlarged."""
    height, width = films[0][0].shape[:2]
    scale = max(1, round(FRAME_SIDE / max(height, width)))
    blank = ((0, gap), (0, gap), (0, 0))
    rows = [
        np.concatenate([np.pad(p.repeat(scale, 0).repeat(scale, 1), blank, constant_values=255) for p in film], 1)
        for film in films
    ]
    return np.concatenate(rows)[:-gap, :-gap]
