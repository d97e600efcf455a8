"""The words for the numbers of a panel row, for sentences, tables and pages."""

from typing import Final

MEASURE_NAMES: Final = {
    "normalized_loss": "normalised loss",
    "std_ratio": "std ratio",
    "norm_ratio": "norm ratio",
    "norm": "norm",
    "rank": "rank",
    "rank_share": "share of the possible rank",
    "stable_rank": "stable rank",
    "agreement": "cosine of the two encoders",
    "lidar_corrected": "LiDAR, corrected",
    "energy_gap": "energy gap",
    "retrieval": "retrieval",
}
SIDES: Final = ("target", "context")


def measure_name(key: str) -> str:
    """A column of the panel in words: "std ratio" for "std_ratio_target", "rank, context encoder" for "rank_context".

    The target encoder is the one that is meant where none is named. A column without a name here keeps its key, without
    underscores.
    """
    what, _, side = key.rpartition("_")
    if side not in SIDES:
        what, side = key, ""
    words = MEASURE_NAMES.get(what, what.replace("_", " "))
    return f"{words}, context encoder" if side == "context" else words
