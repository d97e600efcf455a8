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
    from .diagnose import Ghosting, ghosting
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
    from .landscape import downhill, energy_map, open_moves
    from .mpc import Act, Episode, Seen, model_perception, planning_agent, random_agent, true_state
    from .mppi import MPPI
    from .oracle import TrueEnergy, encoded_energy, true_cost, true_distance, true_return
    from .plan import Cost, Plan, Planner, shift, start_plan
    from .protocol import (
        Outcome,
        Paired,
        Protocol,
        Tasks,
        compare_paired,
        draw_tasks,
        evaluate,
        results,
    )
    from .random import RandomShooting
    from .refined import RefinedCEM
    from .rollout import Step, expand_state, rollout_cost

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "PLANNERS",
    "Act",
    "BeamSearch",
    "CategoricalCEM",
    "Cost",
    "Energy",
    "Episode",
    "Ghosting",
    "Gradient",
    "Greedy",
    "Outcome",
    "Paired",
    "Plan",
    "Planner",
    "Protocol",
    "RandomShooting",
    "RefinedCEM",
    "Seen",
    "Step",
    "Tasks",
    "TrueEnergy",
    "action_cost",
    "cem",
    "compare_paired",
    "constraint",
    "diagnose",
    "discrete",
    "downhill",
    "draw_tasks",
    "encoded_energy",
    "energy",
    "energy_map",
    "evaluate",
    "expand_state",
    "ghosting",
    "goal_distance",
    "gradient",
    "greedy",
    "icem",
    "landscape",
    "learned_distance",
    "model_perception",
    "mpc",
    "mppi",
    "open_moves",
    "oracle",
    "plan",
    "planning_agent",
    "protocol",
    "random",
    "random_agent",
    "reduce_steps",
    "refined",
    "results",
    "reward_energy",
    "rollout",
    "rollout_cost",
    "search",
    "shift",
    "start_plan",
    "true_cost",
    "true_distance",
    "true_return",
    "true_state",
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
        **dict.fromkeys(("Ghosting", "ghosting"), "diagnose"),
        "Gradient": "gradient",
        "Greedy": "greedy",
        "ICEM": "icem",
        **dict.fromkeys(("downhill", "energy_map", "open_moves"), "landscape"),
        "MPPI": "mppi",
        **dict.fromkeys(
            ("Act", "Episode", "Seen", "model_perception", "planning_agent", "random_agent", "true_state"), "mpc"
        ),
        **dict.fromkeys(("TrueEnergy", "encoded_energy", "true_cost", "true_distance", "true_return"), "oracle"),
        **dict.fromkeys(
            (
                "Outcome",
                "Paired",
                "Protocol",
                "Tasks",
                "compare_paired",
                "draw_tasks",
                "evaluate",
                "results",
            ),
            "protocol",
        ),
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
        **dict.fromkeys(("Cost", "Plan", "Planner", "shift", "start_plan"), "plan"),
        **dict.fromkeys(("Step", "expand_state", "rollout_cost"), "rollout"),
    },
)
