"""Encoders for tables of numbers and other series, trained in minutes on two CPU cores."""

from ..data.series.settings import Config
from ..methods import bijepa
from ..nn import ViT
from ..nn.predictor import Predictor
from ..run.settings import Length, Run
from .small import SMALL_OPTIM


def series_bijepa() -> Run:
    """BiJEPA for forecasts, scores and completions of series; 2 minutes: `jepa train series-bijepa --data table.csv`.

    Past and future predict each other. We state no expected score: `jepa forecast` compares the encoder with the last
    value and with linear models, on a part of the table that training left out.
    """
    return Run(
        method=bijepa.Config(
            encoder=ViT(width=96, depth=3, heads=3, mlp_ratio=2.0, init="xavier"),
            predictor=Predictor(width=48, depth=2, heads=2, mlp_ratio=2.0, init="xavier"),
        ),
        data=Config(split="train"),
        optim=SMALL_OPTIM,
        length=Length(steps=1000, batch=64),
    )
