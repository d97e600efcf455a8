"""Builds tiny trainings, about ten seconds each on one core, of every method family for studies that need many."""

from dataclasses import replace
from typing import Any

from ...data.images import arrays, files
from ...data.images.augment import Augment
from ...masks.multiblock import MultiBlock
from ...masks.random import Random
from ...methods import cjepa, ijepa, lejepa, mae, simclr, vicreg
from ...nn import ViT
from ...nn.heads import Projector
from ...nn.predictor import Predictor
from ...recipes.small import SMALL_OPTIM
from ...run.settings import Length, Loop, Run

ROW_EVERY = 25  # panel measurements per run, not counting step 0: one per 4 % of the run
NUM_SAMPLES = 5000
COLOUR_CROPS = Augment(crop=(0.6, 1.0), flip=0.5)
GREY_CROPS = Augment(crop=(0.6, 1.0))
DATA_SETS = {
    "CIFAR-10": ("cifar10/train.parquet", "cifar10/test.parquet"),
    "Fashion-MNIST": ("fashion_mnist/train-images-idx3-ubyte.gz", "fashion_mnist/t10k-images-idx3-ubyte.gz"),
    "MNIST": ("mnist/train-images-idx3-ubyte.gz", "mnist/t10k-images-idx3-ubyte.gz"),
}


def small_method(name: str, data: str, **changes: Any) -> Any:
    """Small settings of a family's method for one of DATA_SETS: 16 tokens of 96 features, three blocks."""
    side = 8 if data == "CIFAR-10" else 7
    encoder = ViT(patch=(side, side), width=96, depth=3, heads=3, mlp_ratio=2.0, init="xavier")
    head = Predictor(width=48, depth=2, heads=2, mlp_ratio=2.0, init="xavier")
    masked: dict[str, Any] = {"predictor": head, "masks": (MultiBlock(),), "target_blocks": 3, "ema": (0.98, 0.9995)}
    settings: dict[str, Any] = {
        "I-JEPA": lambda: ijepa.Config(encoder, **masked),
        "C-JEPA": lambda: cjepa.Config(encoder, **masked, b_vic=0.01),
        "VICReg": lambda: vicreg.Config(encoder, Projector(layers=2, hidden=256, out=128)),
        "LeJEPA": lambda: lejepa.Config(encoder, Projector(layers=2, hidden=256, out=32), weight=0.05),
        "SimCLR": lambda: simclr.Config(encoder, Projector(layers=2, hidden=256, out=64), temperature=0.2),
        "MAE": lambda: mae.Config(encoder, head, (Random(ratio=0.75),)),
    }
    return replace(settings[name](), **changes)


def training_run(settings: Any, data: str, steps: int, batch: int = 32, seed: int = 0, optim: Any = None) -> Run:
    """A Run on NUM_SAMPLES pictures of one of DATA_SETS, without held-out ones; a panel row every 4 % of `steps`."""
    colour, path = data == "CIFAR-10", DATA_SETS[data][0]
    # Without an augmentation setting, the trainer makes the views.
    augment = (COLOUR_CROPS if colour else GREY_CROPS) if hasattr(settings, "masks") else Augment()
    kind = files.Config if colour else arrays.Config
    source = kind(path, (32, 32) if colour else (28, 28), split="train", limit=NUM_SAMPLES, augment=augment)
    every = max(1, steps // ROW_EVERY)
    loop = Loop(
        None, False, workers=0, log_every=every, save_every=every, keep=ROW_EVERY + 2, panel_every=every, panel_size=96
    )
    return Run(settings, source, optim or SMALL_OPTIM, Length(steps, batch=batch), loop, seed=seed)
