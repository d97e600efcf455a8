"""Planning: energies of imagined paths, and searches for the actions whose path has the lowest.

Everything here is a pure function, batched over episodes and samples. The model is a callable, the source of randomness
and the start of a search are arguments. A new planner is a file here, with one frozen dataclass of its knobs that has
`__call__(cost, start, spec, rng)`, named as the file is. A file that offers other names, or several, lists them in
`PLANNERS`.
"""

from typing import TYPE_CHECKING, Final

from ..core.lazy import lazy_names
from ..core.registry import Registry, is_dataclass_with, one_class, settings_like

if TYPE_CHECKING:
    from .cem import CEM
    from .discrete import BeamSearch, CategoricalCEM
    from .energy import (
        Energy,
        action_cost,
        constraint,
        goal_distance,
        learned_distance,
        reduce_steps,
        reward_energy,
        weighted_sum,
    )
    from .gradient import Gradient
    from .greedy import Greedy
    from .icem import ICEM
    from .mppi import MPPI
    from .plan import Cost, Plan, Planner, project, shift, start_plan
    from .random import RandomShooting
    from .refined import RefinedCEM
    from .rollout import Step, expand_state, rollout_cost

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "PLANNERS",
    "BeamSearch",
    "CategoricalCEM",
    "Cost",
    "Energy",
    "Gradient",
    "Greedy",
    "Plan",
    "Planner",
    "RandomShooting",
    "RefinedCEM",
    "Step",
    "action_cost",
    "cem",
    "constraint",
    "discrete",
    "energy",
    "expand_state",
    "goal_distance",
    "gradient",
    "greedy",
    "icem",
    "learned_distance",
    "mppi",
    "plan",
    "project",
    "random",
    "reduce_steps",
    "refined",
    "reward_energy",
    "rollout",
    "rollout_cost",
    "search",
    "shift",
    "start_plan",
    "weighted_sum",
]


# What a command may name as a planner.
PLANNERS: "Final[Registry[Planner]]" = Registry(
    __name__,
    "planner",
    "one frozen dataclass with __call__(cost, start, spec, rng)",
    one_class(is_dataclass_with("__call__", "cost", "start", "spec", "rng"), "PLANNERS"),
    settings_like(f"{__name__}.plan", "Planner", "has no __call__(cost, start, spec, rng)"),
    group="jepakit.planners",
)

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("BeamSearch", "CategoricalCEM"), "discrete"),
        "CEM": "cem",
        "Gradient": "gradient",
        "Greedy": "greedy",
        "ICEM": "icem",
        "MPPI": "mppi",
        "RandomShooting": "random",
        "RefinedCEM": "refined",
        **dict.fromkeys(
            (
                "Energy",
                "action_cost",
                "constraint",
                "goal_distance",
                "learned_distance",
                "reduce_steps",
                "reward_energy",
                "weighted_sum",
            ),
            "energy",
        ),
        **dict.fromkeys(("Cost", "Plan", "Planner", "project", "shift", "start_plan"), "plan"),
        **dict.fromkeys(("Step", "expand_state", "rollout_cost"), "rollout"),
    },
)
