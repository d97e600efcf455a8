"""What a world model knows of held-out episodes, for logs without a simulator: imagination, factors, actions, energy.

A window has T + 1 frames with latents s_0 … s_T and T actions; ŝ_h is what the model imagines of frame h from frame 0
and the actions a_0 … a_{h−1} alone. m is the mean latent of the part to fit on. The results, in this order:

    error        Σ |ŝ_h − s_h|² / Σ |s_h − m|², h = 1 … T: the share of the latents' variance that imagination misses.
                 `curves` has it by horizon, beside that of the last seen latent s_0 (`last_state`), of m (`mean`, 1 on
                 average) and of a linear model of (latent, action) unrolled from s_0 (`linear`)
    factor-NAME  R² of a true quantity, read by a ridge from the latents of real frames; `imagined` has it by horizon,
                 read by the same ridge from ŝ_h
    imagined     R² of the quantity that is read worst from ŝ_T; `each` has all of them. Below `least`, the model knows
                 too little of it for an unqualified finding
    rank         mean reciprocal rank of the true action among others (of the same data, `candidates` with the true one;
                 all choices of discrete ones), by the energy |ŝ(s_t, a) − s_{t+1}|²; `top1`, and chance of both
    planned      the action found by lowering that energy (Adam from the mean action or the best of the others, within
                 the bounds) against the logged one: R², or for discrete actions how often it is the same
    to-go        mean over episodes of Spearman's correlation between the energy |s_t − s_end|² and the steps to go to
                 the episode's last frame

The model of the raw input, the normalised frames as latents, is the linear one. Intervals are bootstraps over episodes.
What a number hides: variance that never changes within an episode, such as the layout of a room, is imagined for free,
so compare `error` with `last_state`; a low error went with a model that walks through walls, and a high R² of the
position with a door that is not represented. Factors that are constant in the scored episodes are left out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ...data.draws import spread_evenly
from ...types import Rng
from ..metrics.actions import Rows, Step, candidate_energies, draw_candidates, find_actions
from ..metrics.episodes import explained_with_interval, mean_with_interval, ratio_with_interval
from ..metrics.linear_dynamics import LinearDynamics, fit_linear_dynamics
from ..metrics.ranks import chance_ranks, first_candidate_ranks, spearman
from ..metrics.readers import L2_STRENGTHS, Reader, check_strengths, choose_reader
from ..metrics.result import Value, score_results
from ..transitions import Transitions

READS = "dynamics"
LEADING = "error"
SHARE_SCALE = "1 is perfect, 0 knows only the mean"
KNOWN_R2 = 0.5
"""A quantity counts as unknown to the model if a smaller share of its variance can be read after imagination."""
MIN_SPREAD = 1e-10
"""Latents, or values of a factor, whose variance is a smaller share of their mean square do not vary."""
FIT_VALUES, FIT_ROWS_RANGE = 2**23, (2000, 20_000)
"""The size of the table of latents that factors are read from."""


@dataclass(frozen=True)
class Config:
    """At most `windows` windows of each part are read, and from at most `transitions` frames actions are tried.

    `candidates` counts the actions among which the true one is ranked; `l2` lists the candidates for the ridges.
    """

    windows: int = 2000
    transitions: int = 500
    candidates: int = 32
    l2: tuple[float, ...] = L2_STRENGTHS

    def __post_init__(self) -> None:
        check_strengths(self.l2)
        for key, least in (("windows", 10), ("transitions", 1), ("candidates", 2)):
            if getattr(self, key) < least:
                raise ValueError(f"{key} is {getattr(self, key)}; give {least} or more")


def evaluate(train: Transitions, test: Transitions, cfg: Config) -> Iterator[tuple[str, Value]]:
    """Yield the results of the module's table, as far as the data allow them, on `test`."""
    train.check_values()
    test.check_scored()
    linear = fit_linear_dynamics(train.s, train.action, train.held, cfg.l2)
    by_linear = linear.roll_out(test.s[:, 0], test.action)
    pred = by_linear if test.pred is None else test.pred
    yield from error_results(train, test, pred, by_linear)
    yield "progress", 0.3
    yield from factor_results(train, test, pred, cfg)
    yield "progress", 0.5
    yield from action_results(train, test, linear_step(linear) if test.step is None else test.step, cfg)
    yield from to_go_results(test)


def linear_step(linear: LinearDynamics) -> Step:
    """The linear model as a function of states."""

    def step(states: Rows, action: Float[Tensor, "n a"]) -> Float[Tensor, "n d"]:
        return linear.step(states[0].flatten(1).cpu(), action.cpu()).to(action)

    return step


# --- imagination


def error_results(
    train: Transitions, test: Transitions, pred: Float[np.ndarray, "n t d"], by_linear: Float[np.ndarray, "n t d"]
) -> Iterator[tuple[str, Value]]:
    """Yield the open-loop error. Raises ValueError if the latents do not vary."""
    after, before = test.s[:, 1:], test.s[:, :1]
    mean = train.s.reshape(-1, train.s.shape[-1]).mean(0, dtype=np.float64)
    errors = {
        name: _squared_distance(guess, after)
        for name, guess in (("model", pred), ("last_state", before), ("mean", mean), ("linear", by_linear))
    }
    spread = errors["mean"]
    if not spread.mean() > MIN_SPREAD * float(np.square(after, dtype=np.float64).mean()):
        raise ValueError(
            "the latents of the scored frames are all the same: the representation has collapsed, and an error "
            "relative to their variance means nothing; look at the panel's verdict on the run"
        )
    value, interval = ratio_with_interval(errors["model"].sum(1), spread.sum(1), test.sequence)
    steps = after.shape[1]
    yield "name", "error"
    yield "lower_is_better", True
    yield from score_results(f"open-loop error over {steps} {'step' if steps == 1 else 'steps'}", value, interval)
    yield "curves", {name: (each.mean(0) / spread.mean()).tolist() for name, each in errors.items()}
    for name in ("last_state", "linear"):
        yield name, float(errors[name].sum() / spread.sum())


def _squared_distance(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "n t d"]) -> Float64[np.ndarray, "n t"]:
    """The mean squared difference over features, a few rows at a time."""
    a = np.broadcast_to(a, b.shape)
    rows = [np.square(a[i].astype(np.float64) - b[i]).mean(-1) for i in range(len(b))]
    distance: np.ndarray = np.stack(rows)
    return distance


# --- true quantities


def factor_results(
    train: Transitions, test: Transitions, pred: Float[np.ndarray, "n t d"], cfg: Config
) -> Iterator[tuple[str, Value]]:
    """Yield the R² of every factor that varies; nothing if the data know none."""
    if train.factors is None or test.factors is None:
        return
    names, kept = known_factors(train, test)
    if not names:
        return
    reader, truth = fit_factors(train, kept, cfg), test.factors[..., kept]
    seen = reader(test.s.reshape(-1, test.s.shape[-1])).reshape(truth.shape)
    read = reader(pred.reshape(-1, pred.shape[-1])).reshape(len(pred), -1, len(names))
    wrong, spread = np.square(seen - truth).sum(1), np.square(truth - truth.mean((0, 1))).sum(1)
    later = truth[:, 1:]
    missed, range_ = np.square(read - later), np.square(later - later.mean(0))
    curve = 1 - missed.sum(0) / np.maximum(range_.sum(0), np.finfo(np.float64).tiny)
    left_out = sorted(set(test.factor_names) - set(names))
    for k, name in enumerate(names):
        yield "name", "factor-" + re.sub(r"[^\w.-]+", "-", name)
        yield "plain", True
        yield from score_results(f"R² of {name}", *explained_with_interval(wrong[:, k], spread[:, k], test.sequence))
        yield "scale", SHARE_SCALE
        yield "factor", name
        yield "imagined", curve[:, k].tolist()
    worst = int(curve[-1].argmin())
    yield "name", "imagined"
    yield "plain", True
    last = explained_with_interval(missed[:, -1, worst], range_[:, -1, worst], test.sequence)
    yield from score_results("lowest R² of a factor, imagined", *last)
    yield "scale", SHARE_SCALE
    yield "factor", names[worst]
    yield "least", KNOWN_R2
    yield "each", dict(zip(names, curve[-1].tolist(), strict=True))
    if left_out:
        yield "constant", ", ".join(left_out)


def known_factors(train: Transitions, test: Transitions) -> tuple[list[str], list[int]]:
    """The names and columns of the factors that are finite everywhere and vary in the last frames that are scored."""
    assert train.factors is not None
    assert test.factors is not None
    kept = []
    for k in range(len(test.factor_names)):
        values = test.factors[:, -1, k]
        finite = np.isfinite(test.factors[..., k]).all() and np.isfinite(train.factors[..., k]).all()
        if finite and values.var() > MIN_SPREAD * max(float(np.square(values).mean()), np.finfo(np.float64).tiny):
            kept.append(k)
    return [test.factor_names[k] for k in kept], kept


def fit_factors(train: Transitions, kept: list[int], cfg: Config) -> Reader:
    """A ridge from the latent of a frame to these factors, fitted on frames spread over `train`."""
    assert train.factors is not None
    frames = train.s.shape[1]
    x = train.s.reshape(-1, train.s.shape[-1])
    y = train.factors[..., kept].reshape(-1, 1, len(kept))
    low, high = FIT_ROWS_RANGE
    rows = spread_evenly(len(x), min(high, max(low, FIT_VALUES // x.shape[1])))
    return choose_reader(x[rows], y[rows], np.repeat(train.held, frames)[rows], cfg.l2)[0]


# --- actions


class Tries(NamedTuple):
    """What was tried from n frames: whether the true action came first, its reciprocal rank, and the action found."""

    top: Float64[np.ndarray, " n"]
    reciprocal: Float64[np.ndarray, " n"]
    found: Float[np.ndarray, "n a"]
    wanted: Float[np.ndarray, "n a"]
    episode: Int64[np.ndarray, " n"]


def action_results(train: Transitions, test: Transitions, step: Step, cfg: Config) -> Iterator[tuple[str, Value]]:
    """Yield the rank of the true action and how well it is found; nothing if all actions are the same."""
    pool, spread = (torch.from_numpy(part.action.reshape(-1, part.action.shape[-1])) for part in (test, train))
    if not ((pool != pool[0]).any() and (spread != spread[0]).any()):
        return
    if test.spec.discrete:
        pool = torch.eye(test.spec.size)
    count = len(pool) if test.spec.discrete else min(cfg.candidates, len(torch.unique(pool, dim=0)))
    tries: list[Tries] = []
    for k in range(len(test.turns)):
        rows = spread_evenly(len(test), -(-cfg.transitions // len(test.turns)))
        tries.append(try_actions(test, step, k, rows, pool, count, spread))
        yield "progress", 0.5 + 0.5 * len(tries) / len(test.turns)
    every = Tries(*(np.concatenate(column) for column in zip(*tries, strict=True)))
    yield from rank_results(every, count)
    yield from recovery_results(every, test.spec.discrete)


def try_actions(
    test: Transitions,
    step: Step,
    turn: int,
    rows: Sequence[int],
    pool: Float[Tensor, "m a"],
    count: int,
    spread: Float[Tensor, "k a"],
) -> Tries:
    """Actions tried from the states of windows `rows` at one of the `turns`; `spread` are actions to fit scales on."""
    t, device = test.turns[turn], test.device
    states = tuple(part[rows].to(device) for part in test.states[turn])
    target = torch.from_numpy(test.s[rows, t + 1]).to(device)
    wanted = torch.from_numpy(test.action[rows, t])
    actions = draw_candidates(wanted, pool, count, Rng(0).fork("dynamics", "actions", t))
    energy = torch.cat(list(candidate_energies(step, states, actions.to(device), target))).cpu().double()
    top, reciprocal = first_candidate_ranks(energy.numpy())
    found = wanted
    if not test.spec.discrete:
        # The first start is the mean action, so that a model that ignores actions finds no others.
        best = actions[torch.arange(len(rows)), 1 + energy[:, 1:].argmin(1)]
        starts = torch.stack([spread.mean(0).expand_as(best), best], 1).to(device)
        found = find_actions(step, states, target, starts, test.spec, spread.std(0).to(device)).cpu()
    return Tries(top, reciprocal, found.numpy(), wanted.numpy(), test.sequence[rows])


def rank_results(tries: Tries, count: int) -> Iterator[tuple[str, Value]]:
    """Yield the mean reciprocal rank of the true action among `count`, with chance."""
    chance_top, chance = chance_ranks(count)
    yield "name", "rank"
    yield "plain", True
    score = mean_with_interval(tries.reciprocal, tries.episode)
    yield from score_results(f"reciprocal rank of the true action of {count}", *score)
    yield "scale", f"from 0 to 1, chance {chance:.2f}"
    yield "chance", chance
    yield "candidates", count
    yield "top1", float(tries.top.mean())
    yield "chance_top1", chance_top


def recovery_results(tries: Tries, discrete: bool) -> Iterator[tuple[str, Value]]:
    """Yield how often the action found is the logged one if discrete, else R², a mean over the numbers that vary."""
    wanted = tries.wanted.astype(np.float64)
    std = wanted.std(0)
    varies = std > 1e-6 * np.abs(wanted).max(0)
    if not varies.any():
        return
    yield "name", "planned"
    if discrete:
        yield from score_results("action found by planning", *mean_with_interval(tries.top, tries.episode))
        return
    wrong, spread = (
        np.square((wanted - guess)[:, varies] / std[varies]).sum(1) for guess in (tries.found, wanted.mean(0))
    )
    yield "plain", True
    score = explained_with_interval(wrong, spread, tries.episode)
    yield from score_results("R² of the action found by planning", *score)
    yield "scale", SHARE_SCALE


# --- energy


def to_go_results(test: Transitions) -> Iterator[tuple[str, Value]]:
    """Yield the correlation of energy and steps to go; nothing if no episode has three frames."""
    paths = episode_energies(test)
    scores = [(episode, spearman(energy, to_go)) for episode, (to_go, energy) in paths.items() if len(to_go) > 2]
    if not scores:
        return
    episodes, values = (np.array(column) for column in zip(*scores, strict=True))
    yield "name", "to-go"
    yield "plain", True
    yield from score_results("correlation of energy and steps to go", *mean_with_interval(values, episodes))
    yield "scale", "a correlation"
    yield "episodes", len(values)


def episode_energies(
    test: Transitions,
) -> dict[int, tuple[Int64[np.ndarray, " f"], Float64[np.ndarray, " f"]]]:
    """By episode, the steps to go at each of its frames but the last, and the energy to the latent of the last.

    A frame in several windows counts once, in the window that saw most frames before it.
    """
    found = {}
    for episode in np.unique(test.sequence):
        windows = np.flatnonzero(test.sequence == episode)
        window, column = (part.ravel() for part in np.indices((len(windows), test.frame.shape[1])))
        number = test.frame[windows].ravel()
        order = np.lexsort((-column, number))
        first = np.unique(number[order], return_index=True)[1]
        rows = order[first]
        s, at = test.s[windows[window[rows]], column[rows]].astype(np.float64), number[rows]
        found[int(episode)] = (at[-1] - at[:-1], np.square(s[:-1] - s[-1]).mean(1))
    return found
