"""What a trained world model plans by: the form of its frames and actions, and the energies of its paths."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from ..methods.base import method_name
from ..methods.metric import Metric
from ..methods.predictive import Predictive
from ..methods.value import Value
from ..methods.worldmodel import WorldModel
from ..planning.energy import Energy, Kind, Reduce, goal_distance, learned_distance, reward_energy
from ..run import checkpoint
from ..run.checkpoint import LoadedRun
from ..types import ActionSpec

Source = Literal["auto", "latent", "metric", "reward"]
SOURCES: Final[tuple[Source, ...]] = ("auto", "latent", "metric", "reward")


@dataclass(frozen=True)
class Form:
    """How the model's steps relate to the environment's, as in the data that it was trained on.

    An action of the model is `block` actions of the environment, each held for `repeat` steps; a frame of the model is
    the last `stack` frames that it saw.
    """

    repeat: int = 1
    block: int = 1
    stack: int = 1

    @property
    def every(self) -> int:
        """The environment's steps in one of the model's."""
        return self.repeat * self.block

    def unfold(self, actions: Float[Tensor, "*b a"]) -> Float[Tensor, "*b e"]:
        """The environment's actions (…, every · size) in actions of the model (…, block · size)."""
        parts = actions.reshape(*actions.shape[:-1], self.block, actions.shape[-1] // self.block)
        return parts.repeat_interleave(self.repeat, -2).flatten(-2)

    def fold(self, actions: Float[Tensor, "*b e"]) -> Float[Tensor, "*b a"]:
        """The model's actions in those that `unfold` makes of them."""
        parts = actions.reshape(*actions.shape[:-1], self.every, actions.shape[-1] // self.every)
        return parts[..., :: self.repeat, :].flatten(-2)

    def stack_frames(self, frames: Float[Tensor, "b f c ..."]) -> Float[Tensor, "b _ ..."]:
        """The model's frame made of the last ones that were seen; the first one stands for those before it."""
        short = self.stack - frames.shape[1]
        if short > 0:
            frames = torch.cat([frames[:, :1].expand(-1, short, *frames.shape[2:]), frames], 1)
        return frames[:, -self.stack :].flatten(1, 2)


@dataclass(frozen=True, eq=False)
class Energies:
    """A world model, and the energies of the paths that it imagines.

    `source` says what the energy is made of: the `distance` of latents to the goal's, the distance to go learned by the
    `metric` over this model or by the model itself, or the rewards that the model predicts, with the `value` of the
    last latent. "auto" takes the metric if there is one, and rewards where there is no goal. `reduce` says how the
    steps of a path count.
    """

    method: Predictive
    form: Form = Form()
    metric: Metric | None = None
    value: Value | None = None
    source: Source = "auto"
    distance: Kind = "l2"
    reduce: Reduce = "sum"
    gamma: float = 0.97

    @property
    def spec(self) -> ActionSpec:
        """The form of the model's actions."""
        return cast(ActionSpec, self.method.signal.action)

    @property
    def steps_to_go(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The learned distance to go, of the metric over this model or of the model itself; None if there is none."""
        if self.metric is not None:
            return self.metric.steps_to_go
        world = cast(WorldModel, self.method)
        return world.steps_to_go if getattr(world.cfg, "metric", 0) else None

    def choose(self, has_goal: bool) -> Source:
        """What the energy is made of. Raises ValueError, with the remedy, if the model lacks it."""
        source = self.source
        if source == "auto":
            source = ("latent" if self.steps_to_go is None else "metric") if has_goal else "reward"
        if source == "reward" and getattr(self.method, "reward_head", None) is None:
            what = "this model predicts no rewards; train it with method.reward 1"
            raise ValueError(what if has_goal else f"there is no goal here, and {what}")
        if source != "reward" and not has_goal:
            raise ValueError(f"the energy {source} needs a goal, and there is none here; use reward")
        if source == "metric" and self.steps_to_go is None:
            raise ValueError(
                "this run has no learned distance to go; train one by jepa train --resume --out RUN --heads metric"
            )
        return source

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "r c ..."]) -> Float[Tensor, "r n d"]:
        """The tokens of single frames, each seen at rest."""
        return self.method.start(self.form.stack_frames(frames[:, None]).to(self.method.mean)).tokens

    def of_goal(self, goal: Float[Tensor, "b n d"] | None) -> Energy:
        """The energy of paths to the tokens of B goals; of rewards, where that is the source or there are none."""
        source = self.choose(goal is not None)
        if source == "reward" or goal is None:
            world = cast(WorldModel, self.method)
            value = None if self.value is None else self.value.value
            done = None if world.done_head is None else world.done_logit
            return reward_energy(world.predict_reward, value, done, self.gamma)
        if source == "metric" and self.steps_to_go is not None:
            return learned_distance(self.steps_to_go, goal, self.reduce)
        return goal_distance(goal, self.distance, self.reduce)

    def name_energy(self, has_goal: bool) -> str:
        """What the energy of a single latent is made of, in words."""
        words: dict[Source, str] = {
            "metric": "learned distance to go",
            "latent": f"latent distance ({self.distance})",
            "reward": "predicted rewards" + ("" if self.value is None else " and value"),
        }
        return words[self.choose(has_goal)]

    def describe(self, has_goal: bool) -> str:
        """What the energy of a path is made of, in words."""
        name = self.name_energy(has_goal)
        return name if self.choose(has_goal) == "reward" else f"{name}, {self.reduce} over the path"


def open_energies(
    loaded: LoadedRun,
    run: Path | None,
    source: Source = "auto",
    distance: Kind = "l2",
    reduce: Reduce = "sum",
) -> Energies:
    """The energies of a run, with the heads in its folder, if it is given.

    Raises ValueError, with the remedy, if the run is no world model, or if a head stands on other weights.
    """
    method = loaded.method
    if not isinstance(method, Predictive) or method.signal.action is None:
        name = method_name(type(method))
        raise ValueError(
            f"{run or 'this'} is a run of {name} without actions, so it cannot plan; train world-model on actions"
        )
    data: Any = loaded.run.data
    form = Form(*(getattr(data, key, 1) for key in ("action_repeat", "action_block", "stack")))
    metric, value = (None if run is None else load_head(run / "heads" / name, method) for name in ("metric", "value"))
    gamma = 0.97 if value is None else value.cfg.gamma
    return Energies(method, form, metric, value, source, distance, reduce, gamma)


def load_head(folder: Path, method: Predictive) -> Any:
    """The head in `folder` on this model, in eval mode; None if there is none.

    Raises ValueError if it stands on other weights.
    """
    if not (folder / "config.yaml").is_file():
        return None
    return checkpoint.load_run(folder, parents=[method]).method
