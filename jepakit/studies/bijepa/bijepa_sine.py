"""Study: BiJEPA and the one-directional JEPA predict the future of sines, the paper's first experiment.

`series_forms.py` defines trainings and measurements. Every training sample is seen once, as in the paper.

Our own settings were chosen from 23 on other seeds: no LayerNorms, 64 features instead of 16, and 128 hidden features
instead of 64.
"""

from functools import partial
from typing import Final

from ...data.series import generated
from ..study import Own, Study
from . import series_forms as forms
from .series_claims import conclusions, series_claims
from .series_figures import draw_figures
from .series_map import map_norms, tabulate

TASK: Final = forms.Task(
    data=generated.Config("sines"),
    steps=2000,
    patch=10,
    width=16,
    hidden=64,
    lr=1e-3,
    probe_steps=100,
    fresh=True,
    pooled=False,
    shifts={
        "slower (0.6 to 0.8)": {"frequency": (0.6, 0.8)},
        "faster (1.2 to 1.4)": {"frequency": (1.2, 1.4)},
        "noise 0.1": {"noise": 0.1},
    },
    ours=forms.Form(norm=False, width=64, hidden=128),
)
PAPER_ERRORS: Final = {
    "classic": (0.0143, 0.0279, 0.0517),
    "bijepa": (0.0090, 0.0093, 0.0132),
    "sphere": (0.0004, 0.1460, 0.0779),
    "unconstrained": (0.0190, 0.0148, 0.0068),
}
STUDY = Study(
    title="BiJEPA on sines",
    source="Huang 2026, arXiv:2603.00049, experiment 1, table 3 and figures 2, 5 and 6 (one seed)",
    claim=(
        "Also predicting the past from the future makes predictions of the future more useful: the error of a linear "
        "probe on them falls from 0.0517 to 0.0132. The unit sphere hurts (0.0779); without norm control the loss "
        "finally rises, although the probe's error is the lowest (0.0068)."
    ),
    arms=(),
    claims=series_claims(TASK.shifts),
    conclusions=conclusions,
    kinds=(),
    own=Own(
        partial(forms.measure_seeds, TASK, map_norms),
        tabulate,
        draw_figures,
        forms.paper_figures(PAPER_ERRORS),
        version=2,
    ),
    seeds=5,
)
