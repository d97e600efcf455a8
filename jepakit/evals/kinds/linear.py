r"""A linear classifier on frozen features: how much of the labels is linearly readable.

Features are standardised with the mean and standard deviation of the training part. Two solvers:

    lbfgs    min_W,b  mean cross-entropy(x W + b, y) + l2 / 2 |W|^2           multinomial logistic regression
    ridge    min_W    mean |x W + b - onehot(y)|^2   + l2 |W|^2               closed form, for large problems

`l2` is chosen on a fifth of the training samples (by the hash of their id, stratified), fitting on the rest; then the
classifier is fitted again on all of them. Test samples are never used for this. For equal accuracies, the larger l2
wins.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from ..features import Features, Pool, count_classes
from ..heldout import held_for_choice
from ..metrics.readers import check_strengths
from ..metrics.result import Value, accuracy_results

ResolvedSolver = Literal["lbfgs", "ridge"]
Solver = Literal["auto", "lbfgs", "ridge"]

LBFGS_LIMIT = 1_000_000
"""The most training samples x classes for L-BFGS; features do not count, so that a probe and its baselines agree."""

ROWS_AT_ONCE = 8192
"""How many samples are converted to float64, or scored, at a time."""


@dataclass(frozen=True)
class Config:
    """`l2` lists the candidates; a single value needs no search. `iterations` limits L-BFGS; 60 are nearly optimal."""

    solver: Solver = "auto"
    l2: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    iterations: int = 60
    pool: Pool = "mean"

    def __post_init__(self) -> None:
        check_strengths(self.l2)


@dataclass(frozen=True, eq=False)
class Linear:
    """Scores = ((x - mean) / std) weight + bias."""

    mean: Float[Tensor, " d"]
    std: Float[Tensor, " d"]
    weight: Float[Tensor, "d k"]
    bias: Float[Tensor, " k"]

    def predict(self, x: Float32[np.ndarray, "n d"]) -> Int64[np.ndarray, " n"]:
        """The class with the highest score, for each row."""
        parts = torch.split(torch.from_numpy(x), ROWS_AT_ONCE)
        return torch.cat([(self.standard(p) @ self.weight + self.bias).argmax(1) for p in parts]).numpy()

    def standard(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The features, standardised to zero mean and unit variance over the training part."""
        return (x - self.mean) / self.std


def evaluate(train: Features, test: Features, cfg: Config) -> Iterator[tuple[str, Value]]:
    """Yield the accuracy on `test` of a classifier fitted on `train`, the `solver` with its reason, and the `l2`."""
    classes = count_classes(train.y, test.y)
    solver, reason = choose_solver(cfg.solver, len(train), classes)
    l2 = choose_l2(train, solver, cfg, classes)
    yield "solver", f"{solver}: {reason}"
    yield "l2", l2
    (model,) = fit_classifiers(train, solver, (l2,), cfg.iterations, classes)
    yield from accuracy_results(model.predict(test.x), test.y, classes)


def choose_solver(solver: Solver, n: int, classes: int) -> tuple[ResolvedSolver, str]:
    """The solver for `n` samples, and why."""
    if solver != "auto":
        return solver, "as configured"
    size = f"{n} samples x {classes} classes"
    if n * classes <= LBFGS_LIMIT:
        return "lbfgs", f"{size} are at most {LBFGS_LIMIT}"
    return "ridge", f"{size} are more than {LBFGS_LIMIT}, so the closed form is used"


def choose_l2(train: Features, solver: ResolvedSolver, cfg: Config, classes: int) -> float:
    """The candidate with the best accuracy on a held-out fifth of `train`; for ties, the largest.

    Raises ValueError if no class has two samples, so that nothing can be held out.
    """
    if len(cfg.l2) == 1:
        return cfg.l2[0]
    held = held_for_choice(train.id.tolist(), train.y, "l2", "l2", f", e.g. l2=({cfg.l2[0]},)")
    judge, candidates = train.where(held), sorted(cfg.l2, reverse=True)
    models = fit_classifiers(train.where(~held), solver, tuple(candidates), cfg.iterations, classes)
    scores = [float((m.predict(judge.x) == judge.y).mean()) for m in models]
    return candidates[int(np.argmax(scores))]


def fit_classifiers(
    train: Features, solver: ResolvedSolver, l2: tuple[float, ...], iterations: int, classes: int
) -> list[Linear]:
    """One classifier per entry of `l2`; L-BFGS starts each from the previous one, so large values come first."""
    mean, std = _feature_moments(torch.from_numpy(train.x))
    start = Linear(mean.float(), std.float(), torch.zeros(len(mean), classes), torch.zeros(classes))
    if solver == "ridge":
        return _fit_ridge(train, start, l2)
    x, y = start.standard(torch.from_numpy(train.x)), torch.from_numpy(train.y)
    return [Linear(start.mean, start.std, *found) for found in minimize_logistic(x, y, classes, l2, iterations)]


def _feature_moments(x: Float32[Tensor, "n d"]) -> tuple[Float64[Tensor, " d"], Float64[Tensor, " d"]]:
    """The mean and standard deviation per feature; the deviation of a constant feature is set to 1."""
    mean = torch.stack([part.double().sum(0) for part in torch.split(x, ROWS_AT_ONCE)]).sum(0) / len(x)
    variance = torch.stack([(part.double() - mean).square().sum(0) for part in torch.split(x, ROWS_AT_ONCE)]).sum(
        0
    ) / len(x)
    std = variance.sqrt()
    # A feature that varies less than float32 resolves is constant: dividing by that would only amplify rounding.
    return mean, torch.where(std > 1e-6 * mean.abs(), std, 1.0)


def minimize_logistic(
    x: Float[Tensor, "n d"],
    y: Int64[Tensor, " n"] | Float[Tensor, "n k"],
    classes: int,
    l2: tuple[float, ...],
    iterations: int,
) -> list[tuple[Float[Tensor, "d k"], Float[Tensor, " k"]]]:
    """The optimal weight (D, K) and bias (K,) for each entry of `l2`; `y` are labels, or class shares per row.

    The search runs along the principal axes, each scaled to a curvature of about 1, which takes tens of steps, not
    hundreds.
    """
    axes, power = _principal_axes(x)
    weight, bias = x.new_zeros(x.shape[1], classes), x.new_zeros(classes).requires_grad_()
    models = []
    for strength in l2:
        # A quarter of the power is the curvature of a two-class logistic loss at its steepest.
        scale = (power / 4 + strength).sqrt()
        basis, free = axes / scale, ((axes * scale).T @ weight).requires_grad_()
        search = torch.optim.LBFGS(
            [free, bias], max_iter=iterations, tolerance_grad=1e-4, tolerance_change=1e-6, line_search_fn="strong_wolfe"
        )

        def closure(
            search: torch.optim.LBFGS = search, basis: Tensor = basis, free: Tensor = free, strength: float = strength
        ) -> Tensor:
            search.zero_grad()
            weight = basis @ free
            loss = F.cross_entropy(x @ weight + bias, y) + strength / 2 * weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        search.step(closure)  # type: ignore[no-untyped-call]
        weight = basis @ free.detach()
        models.append((weight, bias.detach().clone()))
    return models


def _principal_axes(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "d r"], Float[Tensor, " r"]]:
    """Orthonormal axes that span the rows of x, r = min(n, d), and the mean square of x along each."""
    if len(x) < x.shape[1]:
        _, singular, rows = torch.linalg.svd(x, full_matrices=False)
        return rows.T, singular.square() / len(x)
    power, axes = torch.linalg.eigh(x.T @ x / len(x))
    return axes, power.clamp(min=0)


def _fit_ridge(train: Features, start: Linear, l2: tuple[float, ...]) -> list[Linear]:
    n, (dim, classes) = len(train), start.weight.shape
    gram, cross = torch.zeros(dim, dim, dtype=torch.float64), torch.zeros(dim, classes, dtype=torch.float64)
    for x, y in zip(
        torch.split(torch.from_numpy(train.x), ROWS_AT_ONCE),
        torch.split(torch.from_numpy(train.y), ROWS_AT_ONCE),
        strict=True,
    ):
        rows = start.standard(x).double()
        gram += rows.T @ rows / n
        cross += rows.T @ F.one_hot(y, classes).double() / n
    bias = torch.from_numpy(np.bincount(train.y, minlength=classes) / n)
    solved = [torch.cholesky_solve(cross, torch.linalg.cholesky(gram + s * torch.eye(dim))) for s in l2]
    return [Linear(start.mean, start.std, weight.float(), bias.float()) for weight in solved]
