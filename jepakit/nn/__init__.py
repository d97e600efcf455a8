"""Networks: encoders, predictors, and the moving average between encoder and target.

A new encoder is a file here: one frozen dataclass with `build(signal)`, named as the file is. A new predictor is one
with `build(dim, grid, out)`. A file that offers other names, or several, lists them in `ENCODERS` or `PREDICTORS`.
"""

from typing import TYPE_CHECKING, Any, Final

from ..core.lazy import lazy_names
from ..core.registry import Registry, default_settings, is_dataclass_with, one_class

if TYPE_CHECKING:
    from .conv import CNN
    from .encoder import Encoder, EncoderConfig, union
    from .frames import Frames
    from .mlp import MLP, Perceptron
    from .pixels import Pixels
    from .predictor import Predictor, PredictorConfig
    from .resnet import ResNet
    from .resnet50 import ResNet50
    from .transformer import ViT, vit

__all__ = [
    "CNN",
    "ENCODERS",
    "MLP",
    "PREDICTORS",
    "Encoder",
    "EncoderConfig",
    "Frames",
    "Perceptron",
    "Pixels",
    "Predictor",
    "PredictorConfig",
    "ResNet",
    "ResNet50",
    "ViT",
    "auto",
    "conv",
    "ema",
    "encoder",
    "frames",
    "heads",
    "mlp",
    "patch",
    "pixels",
    "position",
    "predictor",
    "resnet",
    "resnet50",
    "smallmap",
    "transformer",
    "union",
    "vit",
    "weights",
]


def encoder_of(value: Any) -> "EncoderConfig":
    """The settings of an encoder at their defaults, of what a file defines; ValueError where that is none."""
    from .encoder import EncoderConfig

    settings = default_settings(value)
    if not isinstance(settings, EncoderConfig):
        raise ValueError(f"{type(settings).__name__} has no method build(signal)")
    return settings


def predictor_of(value: Any) -> "PredictorConfig":
    """The settings of a predictor at their defaults, of what a file defines; ValueError where that is none."""
    from .predictor import PredictorConfig

    settings = default_settings(value)
    if not isinstance(settings, PredictorConfig):
        raise ValueError(f"{type(settings).__name__} has no method build(dim, grid, out)")
    return settings


# What a config may name as `encoder.name`.
ENCODERS: "Final[Registry[EncoderConfig]]" = Registry(
    __name__,
    "encoder",
    "one frozen dataclass with build(signal)",
    one_class(is_dataclass_with("build", "signal"), "ENCODERS"),
    encoder_of,
    group="jepakit.encoders",
)

# What a config may name as `predictor.name`, where a method leaves the choice.
PREDICTORS: "Final[Registry[PredictorConfig]]" = Registry(
    __name__,
    "predictor",
    "one frozen dataclass with build(dim, grid, out)",
    one_class(is_dataclass_with("build", "dim", "grid", "out"), "PREDICTORS"),
    predictor_of,
    group="jepakit.predictors",
)

__getattr__ = lazy_names(
    __name__,
    {
        "CNN": "conv",
        **dict.fromkeys(("Encoder", "EncoderConfig", "union"), "encoder"),
        "Frames": "frames",
        **dict.fromkeys(("MLP", "Perceptron"), "mlp"),
        "Pixels": "pixels",
        **dict.fromkeys(("Predictor", "PredictorConfig"), "predictor"),
        "ResNet": "resnet",
        "ResNet50": "resnet50",
        **dict.fromkeys(("ViT", "vit"), "transformer"),
    },
)
