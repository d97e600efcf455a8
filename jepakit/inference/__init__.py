"""Uses of a trained run: embed data, score and forecast series, complete half-hidden samples."""
