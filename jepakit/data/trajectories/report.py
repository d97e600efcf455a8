"""The `jepa check-data` report on trajectories: lengths, actions, still frames, rewards, the lag of effects."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ..report import MAX_PROBLEMS_LISTED, Problem, Progress, Report, finish_report, range_text
from .blocks import channels_first, plain_values
from .columns import as_rows
from .record import value_problems
from .store import Store

MIN_LAG, MAX_LAG = -2, 8
# A lag is named only if actions explain this share of the change, and this much more than at other lags.
MIN_SHARE, MIN_LEAD = 0.02, 1.1
MAX_LAG_STEPS = 200_000
MAX_NUMBERS_SHOWN = 6
MOSTLY = 0.5


class Seen(NamedTuple):
    """What one pass over an episode's frames finds: a summary per frame, which steps change nothing, a hash."""

    summary: Float[np.ndarray, "t k"]
    still: Bool[np.ndarray, " s"]
    digest: bytes


def report_store(store: Store, samples: str, progress: Progress = None) -> Report:
    """The facts of all episodes, and one problem per mistake; `samples` is what training would read."""
    problems, seen = list(store.problems), list[Seen]()
    for k, name in enumerate(store.names):
        frames = store.frames.of(k, int(store.steps[k]) + 1)
        if store.layout or store.frames.whole is None:
            problems += value_problems(name, "the frame", frames)
        seen.append(look_at(frames, store.layout))
        if progress:
            progress(k + 1, len(store.names))
    problems += _duplicate_problems(store.names, seen)
    problems += _still_problems(store.names, seen)
    lag, shifted = effect_lag(store, seen)
    still = np.concatenate([found.still for found in seen])
    size = " x ".join(map(str, store.size))
    rows = [
        ("episodes", str(len(store.names))),
        ("actions min / median / max", range_text(store.steps.tolist())),
        ("observations", f"{', '.join(store.chosen.keys)}: {f'{size} px, ' if size else ''}{store.channels} channels"),
        ("proprioception", _proprio_text(store)),
        *_action_rows(store),
        ("frames that do not change", f"{_percent(still.mean())} of {len(still):,} steps"),
        ("rewards", _reward_text(store)),
        ("episodes that terminate", _ends_text(store)),
        ("true quantities", ", ".join(store.factor_names) or "none"),
        ("lag of effects", lag),
        ("training would read", samples),
    ]
    problems += shifted
    return finish_report(rows, store.notes, problems[:MAX_PROBLEMS_LISTED], "--csv FILE lists them")


def look_at(frames: Shaped[np.ndarray, "t ..."], layout: str) -> Seen:
    """One pass over the frames of an episode.

    The summary of a vector is the vector; that of a picture is, per channel, its mean and the centre of its deviations
    from the episode's mean picture, which moves with what moves in it.
    """
    values = plain_values(np.asarray(frames))
    flat = as_rows(values)
    still = (flat[1:] == flat[:-1]).all(1)
    digest = hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=8).digest()
    if not layout:
        return Seen(flat.astype(np.float64), still, digest)
    pictures = channels_first(values, layout).astype(np.float32)
    weight = np.abs(pictures - pictures.mean(0))
    total = weight.sum((2, 3)) + 1e-6
    y = (weight.sum(3) * np.linspace(-1, 1, weight.shape[2], dtype=np.float32)).sum(2) / total
    x = (weight.sum(2) * np.linspace(-1, 1, weight.shape[3], dtype=np.float32)).sum(2) / total
    summary = np.concatenate([pictures.mean((2, 3)), y, x], axis=1).astype(np.float64)
    return Seen(summary, still, digest)


def effect_lag(store: Store, seen: Sequence[Seen]) -> tuple[str, list[Problem]]:
    """The lag at which actions explain most of the next change of the observation, and a problem if it is negative.

    The share explained at lag L is that of the change from step t + L to the next by a linear map of action t,
    averaged over the numbers of the summary. At lag 0 an action
    changes the frame that follows it; at a lag below 0 the change comes first.
    """
    rows = _lag_rows(store, seen)
    if rows is None:
        return "not measured: too few steps", []
    lags = _lags(store)
    shares = {lag: explained_share(*_pair_with_lag(rows, lags, lag)) for lag in lags}
    best = max(shares, key=lambda lag: shares[lag])
    others = max(share for lag, share in shares.items() if lag != best)
    chance = 8 * store.spec.size / sum(len(actions) for actions, _ in rows)
    if not max(MIN_SHARE, chance, MIN_LEAD * others) < shares[best] < float("inf"):
        most = _percent(max(0.0, shares[best]))
        return f"not measurable: actions explain at most {most} of the change, at no lag clearly most", []
    text = f"{best} steps: there, actions explain {_percent(shares[best])} of the change"
    if best >= 0:
        return text, []
    detail = f"observations change {-best} steps before the action that explains the change"
    return text, [Problem("all episodes", "alignment", detail, "action t must lead from observation t to t + 1")]


def _lag_rows(
    store: Store, seen: Sequence[Seen]
) -> list[tuple[Float[np.ndarray, "_ a"], Float[np.ndarray, "_ k"]]] | None:
    """The actions and the changes of the summary, for the first episodes that are longer than the lags."""
    found, total, lags = [], 0, _lags(store)
    for k, one in enumerate(seen):
        if store.steps[k] < 2 * len(lags) or total > MAX_LAG_STEPS:
            continue
        actions = store.episode_actions(k)
        if store.spec.discrete:
            actions = actions == np.arange(store.spec.size)
        change = np.diff(one.summary, axis=0)
        if np.isfinite(change).all() and np.isfinite(actions).all():
            found.append((actions.astype(np.float64), change))
            total += len(change)
    return found if total >= 4 * len(lags) else None


def _lags(store: Store) -> range:
    """The lags to try: fewer where episodes are short."""
    quarter = max(1, int(np.median(store.steps)) // 4)
    return range(max(MIN_LAG, 1 - quarter), min(MAX_LAG, quarter) + 1)


def _pair_with_lag(
    rows: Sequence[tuple[Float[np.ndarray, "_ a"], Float[np.ndarray, "_ k"]]], lags: range, lag: int
) -> tuple[Float[np.ndarray, "n a"], Float[np.ndarray, "n k"]]:
    """Actions, and the changes `lag` steps later, of equally many steps at every lag."""
    low, high = -lags[0], lags[-1]
    pairs = [(a[low : len(a) - high], c[low + lag : len(c) - high + lag]) for a, c in rows]
    return np.concatenate([a for a, _ in pairs]), np.concatenate([c for _, c in pairs])


def explained_share(actions: Float[np.ndarray, "n a"], change: Float[np.ndarray, "n k"]) -> float:
    """The mean share of the variance of each number's change that a linear map of the action explains."""
    centred = change - change.mean(0)
    power = (centred**2).sum(0)
    moving = power > 1e-12 * len(change)
    if not moving.any():
        return 0.0
    design = actions - actions.mean(0)
    weights = np.linalg.lstsq(design, centred[:, moving], rcond=None)[0]
    rest = ((centred[:, moving] - design @ weights) ** 2).sum(0) / power[moving]
    # Even random numbers explain a share; this is the share beyond theirs.
    spare = (len(change) - 1) / max(1, len(change) - 1 - actions.shape[1])
    return float((1 - rest * spare).mean())


def _action_rows(store: Store) -> Iterator[tuple[str, str]]:
    actions, spec = store.actions, store.spec
    same = np.concatenate([_repeats(store.episode_actions(k)) for k in range(len(store.names))] or [np.zeros(0)])
    if spec.discrete:
        counts = np.bincount(actions[:, 0].clip(0, spec.size - 1), minlength=spec.size)
        yield "actions", f"{spec.size} choices: " + ", ".join(map(_percent, (counts / max(1, len(actions))).tolist()))
    else:
        low, high = np.nanmin(actions, 0), np.nanmax(actions, 0)
        shown = range(min(len(low), MAX_NUMBERS_SHOWN))
        names = spec.names or tuple(map(str, range(spec.size)))
        more = f" and {len(low) - MAX_NUMBERS_SHOWN} more" if len(low) > MAX_NUMBERS_SHOWN else ""
        yield (
            "actions",
            f"{spec.size} numbers: " + ", ".join(f"{names[i]} {low[i]:.3g} … {high[i]:.3g}" for i in shown) + more,
        )
        still = [names[i] for i in np.flatnonzero(low == high)]
        yield "constant numbers of the action", ", ".join(still) or "none"
        yield "actions at a bound", _saturation(store)
    text = _percent(same.mean()) if len(same) else "none"
    held = held_steps(store)
    yield (
        "actions equal to the one before",
        text + (f": each is held for {held} steps (data.action_repeat)" if held > 1 else ""),
    )


def _saturation(store: Store) -> str:
    """The share of actions with a number at its bound, and those for which it is most of the time."""
    if not store.spec.low:
        return "no bounds"
    low, high = np.array(store.spec.low), np.array(store.spec.high)
    room = 1e-3 * (high - low)
    at = (store.actions <= low + room) | (store.actions >= high - room)
    names = store.spec.names or tuple(map(str, range(store.spec.size)))
    often = [f"{names[i]} {_percent(at[:, i].mean())}" for i in np.flatnonzero(at.mean(0) > MOSTLY)]
    return _percent(at.any(1).mean()) + (f" ({', '.join(often[:MAX_NUMBERS_SHOWN])})" if often else "")


def held_steps(store: Store) -> int:
    """The largest number of steps for which every action of every episode is held, from its first step on."""
    best = 0
    for k in range(len(store.names)):
        # An episode may end in the middle of the last action.
        changes = np.flatnonzero(~_repeats(store.episode_actions(k))) + 1
        best = int(np.gcd.reduce(np.append(changes, best)))
    return max(1, best)


def _repeats(actions: Shaped[np.ndarray, "t a"]) -> Bool[np.ndarray, " s"]:
    """Whether each action but the first equals the one before."""
    same: np.ndarray = (actions[1:] == actions[:-1]).all(1)
    return same


def _duplicate_problems(names: Sequence[str], seen: Sequence[Seen]) -> Iterator[Problem]:
    known: dict[bytes, str] = {}
    for name, found in zip(names, seen, strict=True):
        if found.digest in known:
            yield Problem(name, "duplicate", f"the same frames as {known[found.digest]}", "keep one of them")
        known.setdefault(found.digest, name)


def _still_problems(names: Sequence[str], seen: Sequence[Seen]) -> Iterator[Problem]:
    for name, found in zip(names, seen, strict=True):
        if len(found.still) and found.still.all():
            yield Problem(name, "still", "no observation changes", "leave the episode out, or look for a stuck camera")


def _proprio_text(store: Store) -> str:
    return "none" if store.proprio is None else f"{store.chosen.proprio}: {store.proprio.shape[1]} numbers"


def _reward_text(store: Store) -> str:
    if store.reward is None:
        return "none"
    totals = np.add.reduceat(store.reward, store.first)
    return (
        f"{np.nanmin(store.reward):.4g} … {np.nanmax(store.reward):.4g} per step, "
        f"{np.nanmin(totals):.4g} … {np.nanmax(totals):.4g} per episode"
    )


def _ends_text(store: Store) -> str:
    if store.done is None:
        return "unknown: no terminations are stored"
    return f"{int(np.logical_or.reduceat(store.done, store.first).sum())} of {len(store.names)}"


def _percent(share: float) -> str:
    return f"{100 * float(share):.3g} %"
