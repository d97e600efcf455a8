"""Declares the curves of the page: the columns of metrics.jsonl, how to read each curve, and what it cannot show."""

from dataclasses import dataclass

from ..collapse import FULL_STD_RATIO
from ..core.words import percent
from ..training.monitor.measure import MAX_CANDIDATES, NUM_QUERIES


@dataclass(frozen=True)
class Curve:
    """One chart over steps: the columns of metrics.jsonl that it draws, and how to read it."""

    title: str
    columns: tuple[tuple[str, tuple[str, ...]], ...]
    caption: str
    log: bool = False
    marks: tuple[tuple[float, str], ...] = ()
    more: bool = True  # whether it stands behind "more"


METRIC_CURVES = (
    Curve(
        "Loss",
        (("", ("loss",)),),
        "What the optimiser minimises. On its own it proves little: a JEPA's loss also falls when the targets shrink.",
        more=False,
    ),
    Curve(
        "Normalised loss",
        (("", ("metrics", "normalized_loss")),),
        "The prediction loss divided by what it is without knowing the sample: that of the best constant or, where "
        "views are compared, of a view of another sample. It does not fall when targets merely shrink, but near 0 with "
        "a tiny std ratio it is collapse.",
        marks=((1.0, "without knowing the sample"),),
        more=False,
    ),
    Curve(
        "kNN while training",
        (("", ("metrics", "knn")),),
        "The share of held-out labels that the nearest neighbours tell, at every checkpoint (evals.online). It is of "
        "few samples: compare it with itself over time, not with a probe.",
        more=False,
    ),
    Curve(
        "Std ratio",
        (("target", ("metrics", "std_ratio_target")), ("context", ("metrics", "std_ratio_context"))),
        f"Spread of the features per dimension, relative to step 0. Below {percent(FULL_STD_RATIO)} all samples get "
        "nearly one vector: full collapse. It cannot see features that keep their spread along a few directions only; "
        "the rank does.",
        log=True,
        marks=((FULL_STD_RATIO, "full collapse"),),
        more=False,
    ),
    Curve(
        "Effective rank",
        (("target", ("metrics", "rank_target")), ("context", ("metrics", "rank_context"))),
        "How many directions the centred features use. A steady fall is dimensional collapse. Comparable only "
        "between "
        "runs with the same width and the same number of panel samples; blind to scale, so read it with the std ratio.",
        more=False,
    ),
    Curve(
        "Effective rank of patches",
        (("target", ("metrics", "patch_rank_target")), ("context", ("metrics", "patch_rank_context"))),
        "The same over single patches instead of whole samples: it may hold up while the samples' own rank falls, when "
        "patches differ by their position only.",
    ),
    Curve(
        "Position share",
        (("target", ("metrics", "position_share_target")), ("context", ("metrics", "position_share_context"))),
        "How much of the patches' variance their place in the sample explains. Near 1 the representation says where a "
        "patch is and nothing about what it shows. Low proves nothing: noise and a single direction read low, too.",
        marks=((1.0, "position only"),),
    ),
    Curve(
        "Spread of patches",
        (("target", ("metrics", "patch_std_ratio_target")), ("context", ("metrics", "patch_std_ratio_context"))),
        "Spread of single patches over samples, at each position by itself, relative to step 0. Where it falls and the "
        "rank of patches does not, patches differ by their position only.",
        log=True,
        marks=((FULL_STD_RATIO, "full collapse"),),
    ),
    Curve(
        "Token norm",
        (("target", ("metrics", "norm_target")), ("context", ("metrics", "norm_context"))),
        "The mean length of a patch's representation. It may grow in health, and it stays where a LayerNorm or a "
        "sphere holds it; growth that does not slow down asks for weight decay or a penalty on the norm.",
        log=True,
    ),
    Curve(
        "Rank, measured otherwise",
        (
            ("means kept", ("metrics", "rank_raw_target")),
            ("by variance", ("metrics", "entropy_rank_target")),
            ("participation ratio", ("metrics", "participation_target")),
            ("stable rank", ("metrics", "stable_rank_target")),
        ),
        "Of the target encoder. With the means kept (RankMe as published) a large mean looks like one direction. The "
        "others weigh strong directions more, the stable rank most: one strong direction takes it to 1.",
    ),
    Curve(
        "Decay of the spectrum",
        (("target", ("metrics", "alpha_target")), ("context", ("metrics", "alpha_context"))),
        "The exponent of the power law through the middle of the eigenspectrum (α-ReQ). About 1 is said to be good; "
        "far above it few directions matter, near 0 it is noise. Missing where too few directions are left.",
    ),
    Curve(
        "Redundancy",
        (("target", ("metrics", "redundancy_target")), ("context", ("metrics", "redundancy_context"))),
        "The mean correlation, without its sign, between two features: 1 when all say the same. Independent features "
        "still read a little above 0 where samples are few.",
    ),
    Curve(
        "LiDAR",
        (("corrected", ("metrics", "lidar_corrected")), ("as published", ("metrics", "lidar"))),
        "Directions in which samples differ by more than the masks or crops of one sample do. As published it is near "
        "its largest value for pure noise; corrected it counts only what noise does not reach, and noise reads 0.",
    ),
    Curve(
        "What views share",
        (("consistency", ("metrics", "consistency")), ("share of signal", ("metrics", "signal_share"))),
        "How alike masks or crops of one sample are compared with those of others, and how much of the variance is the "
        "sample's own. 0: a view says nothing of its sample. High values may come from a single direction.",
    ),
    Curve(
        "Agreement of the encoders",
        (("", ("metrics", "agreement")),),
        "Cosine between the target's and the context encoder's representations, means removed. It tells how far the "
        "moving average lags behind, not which is better.",
    ),
    Curve(
        "Energy gap",
        (("", ("metrics", "energy_gap")),),
        "Mean energy with another sample's target less that with the right one, in units of the loss: above 0 the "
        "prediction belongs to its sample. It falls when the targets shrink.",
    ),
    Curve(
        "Retrieval",
        (("", ("metrics", "retrieval")),),
        f"How often the right target has the lowest energy of {MAX_CANDIDATES}, asked of {NUM_QUERIES} samples: "
        f"a step of {percent(1 / NUM_QUERIES, 1)} is one of them, so only large changes tell. Chance is "
        f"{percent(1 / MAX_CANDIDATES, 1)}, a full collapse 0. A few directions are enough for a high rate.",
    ),
    Curve(
        "Learning rate",
        (("", ("lr",)),),
        "The schedule as it was applied: a peak after warm-up, then the decay to its final value.",
    ),
    Curve(
        "Gradient norm",
        (("", ("metrics", "grad_norm")),),
        "Before clipping. Growing spikes ask for a lower learning rate or for clipping; near 0 nothing is learnt.",
        log=True,
    ),
    Curve(
        "Throughput",
        (("", ("metrics", "throughput")),),
        "Samples per second, loading included. Dips are checkpoints, probes or a loader that cannot keep up.",
    ),
)
