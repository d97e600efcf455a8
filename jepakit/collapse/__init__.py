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
    mean_cosine,
    norm,
    participation_ratio,
    position_share,
    rank_of,
    raw_rank,
    redundancy,
    spectrum,
    stable_rank,
    std,
    std_over_samples,
    std_to_mean,
)
from .judge import DIMENSIONAL, FULL, State, Verdict, advise, is_constant, judged, verdict
from .panel import Panel, drawn, panel, start
from .prediction import best_constant, energy_gap, normalized_loss, retrieval
from .views import agreement, consistency, lidar, lidar_corrected, noise_edge, signal_share

__all__ = [
    "DIMENSIONAL",
    "FULL",
    "Panel",
    "State",
    "Verdict",
    "advise",
    "agreement",
    "alpha_req",
    "best_constant",
    "consistency",
    "direction_std",
    "drawn",
    "effective_rank",
    "energy_gap",
    "entropy_rank",
    "features",
    "is_constant",
    "judge",
    "judged",
    "lidar",
    "lidar_corrected",
    "mean_cosine",
    "noise_edge",
    "norm",
    "normalized_loss",
    "panel",
    "participation_ratio",
    "position_share",
    "rank_of",
    "raw_rank",
    "redundancy",
    "retrieval",
    "signal_share",
    "spectrum",
    "stable_rank",
    "start",
    "std",
    "std_over_samples",
    "std_to_mean",
    "verdict",
]
