"""Label-free quality of representations, and a verdict that names the setting to change: pure functions of features.

No single number shows collapse: the centred rank is blind to a representation that shrinks to a point, a large mean
misleads the raw rank, and the loss falls when its target shrinks. So the panel reads several numbers and compares the
spread with its value at step 0. A rank depends on the number of samples: keep the panel's samples fixed during a run.
"""

from .features import (
    alpha_req,
    direction_std,
    effective_rank,
    entropy_rank,
    feature_std,
    mean_cosine,
    participation_ratio,
    position_share,
    rank_of,
    raw_rank,
    redundancy,
    spectrum,
    stable_rank,
    std_over_samples,
    std_to_mean,
    token_norm,
)
from .judge import (
    DIMENSIONAL_RANK_SHARE,
    DYNAMICS_KEYS,
    FULL_STD_RATIO,
    State,
    Verdict,
    advise,
    is_constant,
    verdict,
    verdict_inputs,
)
from .names import measure_name
from .panel import Panel, panel_row, row_sample, start_panel
from .prediction import best_constant, energy_gap, normalized_loss, retrieval_rate
from .views import encoder_agreement, lidar, lidar_corrected, noise_edge, signal_share, view_consistency

__all__ = [
    "DIMENSIONAL_RANK_SHARE",
    "DYNAMICS_KEYS",
    "FULL_STD_RATIO",
    "Panel",
    "State",
    "Verdict",
    "advise",
    "alpha_req",
    "best_constant",
    "direction_std",
    "effective_rank",
    "encoder_agreement",
    "energy_gap",
    "entropy_rank",
    "feature_std",
    "features",
    "is_constant",
    "judge",
    "lidar",
    "lidar_corrected",
    "mean_cosine",
    "measure_name",
    "names",
    "noise_edge",
    "normalized_loss",
    "panel_row",
    "participation_ratio",
    "position_share",
    "rank_of",
    "raw_rank",
    "redundancy",
    "retrieval_rate",
    "row_sample",
    "signal_share",
    "spectrum",
    "stable_rank",
    "start_panel",
    "std_over_samples",
    "std_to_mean",
    "token_norm",
    "verdict",
    "verdict_inputs",
    "view_consistency",
]
