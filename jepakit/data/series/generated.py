"""Generated series: noisy sines and the Lorenz system. Each sample is a pure function of (seed, index).

Source: BiJEPA, arXiv:2603.00049, whose published settings are the defaults. A sine's grid is linspace(0, 4 pi, T).
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float64, Int64

from ...core.draws import normal_draws, uniform_draws
from ...types import Rng
from ..config import DataConfig, shared_last
from ..report import Progress, Report
from ..rows import generated_part
from . import settings
from .augment import SeriesAugment
from .dataset import Series, Steps
from .record import Found, SeriesRecord
from .report import report_series
from .windows import Cut

System = Literal["sines", "lorenz"]
SYSTEM_NAMES: tuple[System, ...] = ("sines", "lorenz")
DEFAULT_LENGTHS = {"sines": 20, "lorenz": 40}
DEFAULT_NOISE = {"sines": 0.05, "lorenz": 0.0}
CHANNEL_NAMES = {"sines": ("value",), "lorenz": ("x", "y", "z")}
LORENZ_SIGMA, LORENZ_BETA = 10.0, 8 / 3


@shared_last()
@dataclass(frozen=True)
class Config(DataConfig):
    """`count` generated series of `length` steps (None: 20 for sines, 40 for Lorenz).

    `path` names the system. "sines": sin(w t + phase) + noise on t from 0 to 4 pi, w uniform in `frequency`, phase
    uniform in [0, 2 pi). "lorenz": the state from a start uniform in [-15, 15)^3, sigma 10, beta 8/3 and `rho`, every
    `dt`, by explicit Euler steps of `dt` or by SciPy's RK45. `noise` is the deviation of the normal noise on every
    value (None: 0.05 for sines, none for Lorenz). Part "train" and part "test" are disjoint; a part keeps its
    first `limit` series.
    """

    path: str = "sines"
    count: int = 2000
    seed: int = 0
    length: int | None = None
    noise: float | None = None
    frequency: tuple[float, float] = (0.8, 1.2)
    rho: float = 28.0
    dt: float = 0.01
    integrator: Literal["euler", "rk45"] = "euler"
    held_out: float = field(default=0.2, kw_only=True)
    augment: SeriesAugment = field(default_factory=SeriesAugment, kw_only=True)

    axes: ClassVar[tuple[int, ...]] = (1,)
    holds: ClassVar[str] = "series"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1 or (self.length is not None and self.length < 2):
            raise ValueError(
                f"count is {self.count} and length {self.length}; give 1 series or more, of 2 steps or more"
            )
        if not (self.noise is None or 0 <= self.noise < float("inf")):
            raise ValueError(f"noise is {self.noise}; give a standard deviation of 0 or more")
        if not 0 <= self.frequency[0] <= self.frequency[1] < float("inf"):
            raise ValueError(f"frequency is {self.frequency}; give a rising range, e.g. (0.8, 1.2)")
        if not 0 < self.dt <= 1:
            raise ValueError(f"dt is {self.dt:g}; give a step above 0 and at most 1, e.g. 0.01")

    @property
    def is_generated(self) -> bool:
        """Always true: the path names what is drawn."""
        return True

    @classmethod
    def recognises(cls, path: str) -> str:
        """The reason to read `path`: it names a system."""
        return f"{path!r} names a generated system" if path in SYSTEM_NAMES else ""

    def open(self) -> Series:
        """Draw the series. Raises ValueError for an unknown system, an empty part, or a system that diverges."""
        if self.path not in SYSTEM_NAMES:
            raise ValueError(f"no generated system {self.path!r}; set data.path to one of {', '.join(SYSTEM_NAMES)}")
        ids, _ = generated_part(self.count, self.split, self.held_out, self.limit, "series")
        return _as_series(generate_series(self, ids), int(ids[0]), self)

    def report(self, progress: Progress = None) -> Report:
        """The report on data generated with the default settings."""
        x = generate_series(self, np.arange(self.count, dtype=np.int64))
        records = [SeriesRecord(f"{self.path}[{i}]", values, CHANNEL_NAMES[self.path]) for i, values in enumerate(x)]
        found, cfg = Found(records, many=True), settings.Config(path=self.path)
        return report_series(found, cfg.fill, settings.what_training_reads(found, cfg))


def generate_series(cfg: Config, ids: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n c t"]:
    """Series number `ids` of the system that `cfg.path` names. Raises ValueError if one diverges."""
    length = cfg.length or DEFAULT_LENGTHS[cfg.path]
    channels = len(CHANNEL_NAMES[cfg.path])
    noise = DEFAULT_NOISE[cfg.path] if cfg.noise is None else cfg.noise
    u = uniform_draws(Rng(cfg.seed).fork("dynamics", cfg.path), ids, 3 + 2 * -(-channels * length // 2))
    if cfg.path == "sines":
        time = np.linspace(0, 4 * np.pi, length)
        speed = cfg.frequency[0] + (cfg.frequency[1] - cfg.frequency[0]) * u[:, :1]
        x = np.sin(speed * time + 2 * np.pi * u[:, 1:2])[:, None]
    else:
        x = lorenz_states(30 * u[:, :3] - 15, length, cfg.dt, cfg.rho, cfg.integrator)
    if not np.isfinite(x).all():
        raise ValueError(f"the system leaves all bounds with dt {cfg.dt:g} and rho {cfg.rho:g}; give a smaller dt")
    return x + noise * normal_draws(u[:, 3:]).numpy()[:, : channels * length].reshape(x.shape) if noise else x


def lorenz_states(
    start: Float64[np.ndarray, "n 3"], length: int, dt: float, rho: float, integrator: str
) -> Float64[np.ndarray, "n 3 t"]:
    """The states at times 0, dt, … from each start; "rk45" is SciPy's, at relative error 1e-8, one start at a time."""
    if integrator == "euler":
        states = [start]
        # A step too long for the system overflows; the caller detects it.
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(length - 1):
                states.append(states[-1] + dt * lorenz_derivative(states[-1], rho))
        return np.stack(states, axis=2)
    from scipy.integrate import solve_ivp

    times = dt * np.arange(length)
    # Solved together, the step size that one start needs would change the numbers of another.
    paths = [
        solve_ivp(lambda _, s: lorenz_derivative(s, rho), (0, times[-1]), s, "RK45", times, rtol=1e-8, atol=1e-8).y
        for s in start
    ]
    return np.stack(paths)


def lorenz_derivative(state: Float64[np.ndarray, "*n 3"], rho: float) -> Float64[np.ndarray, "*n 3"]:
    """(sigma (y - x), x (rho - z) - y, x y - beta z). Source: Lorenz, Deterministic nonperiodic flow, 1963."""
    x, y, z = state[..., 0], state[..., 1], state[..., 2]
    return np.stack([LORENZ_SIGMA * (y - x), x * (rho - z) - y, x * y - LORENZ_BETA * z], axis=-1)


def _as_series(x: Float64[np.ndarray, "n c t"], first: int, cfg: Config) -> Series:
    n, channels, length = x.shape
    values = np.ascontiguousarray(x.transpose(1, 0, 2).reshape(channels, -1)).astype(np.float32)
    steps = Steps(
        values=values,
        missing=np.zeros(values.shape, dtype=bool),
        label=np.full(n * length, -1, dtype=np.int64),
        row=np.tile(np.arange(length, dtype=np.int64), n),
        time=None,
        first=np.arange(n, dtype=np.int64) * length,
        name=tuple(f"{cfg.path}[{first + i}]" for i in range(n)),
        place="step",
    )
    whole = Cut(np.zeros(n, dtype=np.int64), np.full(n, length, dtype=np.int64), np.arange(n, dtype=np.int64))
    note = f"{n} generated series, system {cfg.path!r}, seed {cfg.seed}"
    unlabelled = np.full(n, -1, dtype=np.int64)
    return Series(steps, whole, unlabelled, (), CHANNEL_NAMES[cfg.path], 0, 1, "pad", (note,), cfg=cfg)
