"""Uses of a trained run: embed data, score and forecast series, complete half-hidden samples."""

__all__ = ["complete", "complete_images", "embed", "forecast", "inputs", "rarity", "score", "windows"]
