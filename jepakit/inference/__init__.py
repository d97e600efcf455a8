"""Uses of a trained run: embed data, score and forecast series, complete half-hidden samples; collect episodes."""

__all__ = [
    "collect",
    "complete",
    "complete_images",
    "embed",
    "forecast",
    "inputs",
    "plan",
    "rarity",
    "score",
    "windows",
    "world",
]
