"""World models: Two Rooms, LeWorldModel, Pendulum, CartPole, and one for trajectories of your own."""

from dataclasses import replace
from typing import Any, cast

from ..data.trajectories import settings
from ..methods import metric, value, worldmodel
from ..methods.quasimetric import QuasimetricConfig
from ..nn import CNN, MLP, CausalTransformer, FlatMLP, Keypoints, ResidualMLP
from ..run.optim import Optim
from ..run.settings import Evals, HeadStage, Length, Loop, Run

# The optimiser of all recipes here.
WORLD_OPTIM = Optim(
    lr=1e-3, start_lr=1e-4, final_lr=1e-5, warmup=0.05, weight_decay=1e-5, final_weight_decay=1e-5, clip=2.0
)
# A roll-out adds up what bfloat16 rounds away.
EXACT = Loop(amp=False, log_every=50)
# One vector for a picture of 33 x 33: a convolution of stride 4 and a linear on its map.
SMALL_PICTURES = CNN(patch=None, width=128, channels=(32,), norm="none", kernel=5, stride=4)


def two_rooms_fixed() -> Run:
    """A world model of Two Rooms with a fixed wall, and a metric: `jepa train two-rooms-fixed`; ten minutes.

    Each action is held for two steps, and roll-outs have 8 of them. The terms are EB-JEPA's (arXiv:2602.03604). After 8
    predicted steps, a linear probe of the latent finds the dot to 1.1 units of 65 (1,000 other trajectories, 1 seed).
    """
    return Run(
        method=worldmodel.Config(
            encoder=SMALL_PICTURES,
            predictor=ResidualMLP(hidden=512, depth=3),
            std=16.0,
            cov=0.0625,
            temporal=12.0,
            inverse=1.0,
        ),
        data=settings.Config(path="two-rooms-fixed", count=100_000, action_repeat=2, split="train"),
        optim=WORLD_OPTIM,
        length=Length(steps=4000, batch=64),
        loop=EXACT,
        evals=Evals(kinds=("dynamics",)),
        heads=(HeadStage(metric.Config()),),
    )


def two_rooms_random() -> Run:
    """A world model of Two Rooms whose wall and door differ in every episode: `jepa train two-rooms-random`.

    The latent is 8 places on the picture. A distance to go, learned with the model, makes the encoder find the wall and
    its door; differences of places tell predictor and distance on which side of them the dot is. 16 trajectories share
    a layout, for the distance is learned between states of one layout. 29 minutes of one core; plans arrive in 68, 78
    and 66 % of 50 episodes (3 seeds).
    """
    return Run(
        method=worldmodel.Config(
            encoder=Keypoints(points=8),
            predictor=ResidualMLP(hidden=512, depth=3, differences=True),
            rollout=20.0,
            std=1.0,
            cov=0.0,
            temporal=0.0,
            inverse=1.0,
            metric=1.0,
            to_go=QuasimetricConfig(
                FlatMLP(hidden=256, depth=3, norm="none", differences=True), symmetric=True, goals="label"
            ),
            norm=False,
        ),
        data=settings.Config(path="two-rooms-random", count=400_000, action_repeat=2, group=16, split="train"),
        optim=replace(WORLD_OPTIM, lr=2e-3, clip=5.0),
        length=Length(steps=8000, batch=128),
        loop=EXACT,
        evals=Evals(kinds=("dynamics",)),
    )


def lewm() -> Run:
    """LeWorldModel, with SIGReg as the only term beside the prediction, and a metric: `jepa train lewm`; minutes.

    A transformer predicts each next latent from the last three. The data are those of `two-rooms-fixed`, where the
    published model reads pictures of 224 x 224 by a ViT; give `--data` and `--method.encoder` for others. We state no
    expected score.
    """
    return Run(
        method=worldmodel.Config(
            encoder=SMALL_PICTURES,
            predictor=CausalTransformer(width=128, depth=2, heads=4, history=3),
            rollout=0.0,
            forcing=1.0,
            std=0.0,
            cov=0.0,
            temporal=0.0,
            inverse=0.0,
            sigreg=0.09,
            norm=False,
        ),
        data=settings.Config(path="two-rooms-fixed", count=100_000, window=4, action_repeat=2, split="train"),
        optim=WORLD_OPTIM,
        length=Length(steps=4000, batch=128),
        loop=EXACT,
        evals=Evals(kinds=("dynamics",)),
        # As many states in a batch as in `two-rooms-fixed`.
        heads=(HeadStage(metric.Config(), data=("window=9",)),),
    )


def pendulum() -> Run:
    """A world model of Pendulum from its state, with a reward head: `jepa train pendulum`; minutes on one core.

    Each torque is held for two steps, and roll-outs have 5 of them. Then the head `value` learns what lies beyond a
    plan's horizon.
    """
    return Run(
        method=worldmodel.Config(
            encoder=MLP(patch=None, width=32, hidden=128, depth=2),
            predictor=ResidualMLP(hidden=256, depth=2),
            steps=5,
            std=16.0,
            cov=0.25,
            temporal=0.0,
            inverse=1.0,
            reward=1.0,
        ),
        data=settings.Config(path="pendulum", count=200, window=6, action_repeat=2, split="train"),
        optim=WORLD_OPTIM,
        length=Length(steps=3000, batch=256),
        loop=EXACT,
        evals=Evals(kinds=("dynamics",)),
        heads=(HeadStage(value.Config(), length=Length(steps=1500, batch=96)),),
    )


def pendulum_pixels() -> Run:
    """A world model of Pendulum from two stacked grey pictures: `jepa train pendulum-pixels`; minutes on one core.

    One picture does not show how fast the rod turns, two that are two steps apart do. Otherwise as `pendulum`. We state
    no expected score.
    """
    run = pendulum()
    return replace(
        run,
        method=replace(cast(Any, run.method), encoder=SMALL_PICTURES, predictor=ResidualMLP(hidden=512, depth=2)),
        data=replace(cast(Any, run.data), path="pendulum-pixels", size=(33, 33), stack=2),
        length=Length(steps=4000, batch=64),
    )


def cartpole() -> Run:
    """A world model of CartPole from its state, with heads for reward and end: `jepa train cartpole`; minutes.

    Random episodes stay in the middle of the track: for long episodes, collect further rounds by plans.
    """
    return Run(
        method=worldmodel.Config(
            encoder=MLP(patch=None, width=32, hidden=128, depth=2),
            predictor=ResidualMLP(hidden=256, depth=2),
            steps=5,
            # From 16 and 0.25, latent errors after 5 steps fell from .10 to .06 of the variance (1 seed each).
            std=1.0,
            cov=0.02,
            temporal=0.0,
            inverse=1.0,
            reward=1.0,
            done=1.0,
        ),
        data=settings.Config(path="cartpole", count=1000, window=6, split="train"),
        optim=replace(WORLD_OPTIM, lr=2e-3),
        length=Length(steps=2500, batch=128),
        loop=EXACT,
        evals=Evals(kinds=("dynamics",)),
        heads=(HeadStage(value.Config(gamma=0.98, decay=0.9), length=Length(steps=3000, batch=128)),),
    )


def world_model() -> Run:
    """A world model of your own trajectories: `jepa train world-model --data LOGS`; vectors or pictures with actions.

    The encoder suits the observations: convolutions for pictures, a perceptron for vectors. With rewards in the data,
    `--method.reward 1` adds a reward head.
    """
    return Run(
        method=worldmodel.Config(predictor=ResidualMLP(hidden=512, depth=2)),
        data=settings.Config(split="train"),
        optim=WORLD_OPTIM,
        length=Length(epochs=30.0, batch=64),
        loop=EXACT,
        evals=Evals(kinds=("dynamics",)),
    )
