"""Encoders for tables of numbers and for labelled series, trained in minutes on two CPU cores."""

from ..data.series.settings import Config
from ..masks.halves import Halves
from ..methods import bijepa, cjepa
from ..nn import MLP, ViT
from ..nn.predictor import Predictor
from ..run.optim import Optim
from ..run.settings import Evals, Length, Run
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


def series_classes() -> Run:
    """C-JEPA for whole labelled series; seconds a set.

    `jepa train series-classes --data X_train.npz --data.split all --out RUN`, then
    `jepa probe RUN --test X_test.npz --kind linear`. On seven UCR and UEA sets, seeds 0 to 2, the probe reaches a
    mean of 86.2 ± 1.3 % (`--weights context`: 85.9 ± 1.3 %) in 5 s a set on one core of a Xeon; untrained 84.5 ± 0.7 %,
    1-NN by DTW 83.6 %, raw values 80.2 %, but MiniRocket 95.3 ± 0.1 %. The settings, those of the probes too, are
    those of the study `cjepa-series`, chosen on training parts. Without `--data.split all`, a tenth of the series is
    kept from training.
    """
    return Run(
        method=cjepa.Config(
            encoder=MLP(patch=None, width=256, hidden=128),
            predictor=Predictor(width=32, depth=1, heads=1, mlp_ratio=2.0, init="xavier"),
            masks=(Halves(context="either"),),
            ema=(0.98, 0.9995),
            pairs="context-target",
        ),
        data=Config(split="train", window=0, unequal="stretch"),
        optim=Optim(lr=1e-3, start_lr=1e-5, final_lr=1e-5, warmup=0.08, weight_decay=0.04, final_weight_decay=0.1),
        length=Length(steps=500, batch=32),
        evals=Evals(settings=("knn.k=1", "linear.pool=flat", "linear.l2=[0.01]")),
    )
