"""Networks: encoders, predictors, and the moving average between encoder and target.

A new encoder is a file here: one frozen dataclass with `build(signal)`, named as the file is. A new predictor is one
with `build(dim, grid, out)`, one with actions has `build(dim, action, grid)`, and a readout `build(dim, out, grid)`.
A file that offers other names, or several, lists them in `ENCODERS`, `PREDICTORS`, `DYNAMICS` or `READOUTS`.
"""

from typing import TYPE_CHECKING, Final

from ..core.lazy import lazy_names
from ..core.registry import Registry, is_dataclass_with, one_class, settings_like

if TYPE_CHECKING:
    from .conv import CNN
    from .dynamics import GRU, CausalTransformer, Dynamics, DynamicsConfig, GridConv, ResidualMLP
    from .encoder import Encoder, EncoderConfig, union
    from .frames import Frames
    from .keypoints import Keypoints
    from .mlp import MLP, Perceptron
    from .pixels import Pixels
    from .predictor import Predictor, PredictorConfig
    from .readout import AttentionReadout, ConvReadout, FlatMLP, ReadoutConfig
    from .resnet import ResNet
    from .resnet50 import ResNet50
    from .transformer import ViT, vit

__all__ = [
    "CNN",
    "DYNAMICS",
    "ENCODERS",
    "GRU",
    "MLP",
    "PREDICTORS",
    "READOUTS",
    "AttentionReadout",
    "CausalTransformer",
    "ConvReadout",
    "Dynamics",
    "DynamicsConfig",
    "Encoder",
    "EncoderConfig",
    "FlatMLP",
    "Frames",
    "GridConv",
    "Keypoints",
    "Perceptron",
    "Pixels",
    "Predictor",
    "PredictorConfig",
    "ReadoutConfig",
    "ResNet",
    "ResNet50",
    "ResidualMLP",
    "ViT",
    "auto",
    "conv",
    "dynamics",
    "ema",
    "encoder",
    "frames",
    "heads",
    "keypoints",
    "mlp",
    "patch",
    "pixels",
    "position",
    "predictor",
    "readout",
    "resnet",
    "resnet50",
    "smallmap",
    "transformer",
    "union",
    "vit",
    "weights",
]


# What a config may name as `encoder.name`.
ENCODERS: "Final[Registry[EncoderConfig]]" = Registry(
    __name__,
    "encoder",
    "one frozen dataclass with build(signal)",
    one_class(is_dataclass_with("build", "signal"), "ENCODERS"),
    settings_like(f"{__name__}.encoder", "EncoderConfig", "has no method build(signal)"),
    group="jepakit.encoders",
)

# What a config may name as `predictor.name`, where a method leaves the choice.
PREDICTORS: "Final[Registry[PredictorConfig]]" = Registry(
    __name__,
    "predictor",
    "one frozen dataclass with build(dim, grid, out)",
    one_class(is_dataclass_with("build", "dim", "grid", "out"), "PREDICTORS"),
    settings_like(f"{__name__}.predictor", "PredictorConfig", "has no method build(dim, grid, out)"),
    group="jepakit.predictors",
)

# What a config may name as `predictor.name` in a method whose predictor reads actions.
DYNAMICS: "Final[Registry[DynamicsConfig]]" = Registry(
    __name__,
    "dynamics predictor",
    "one frozen dataclass with build(dim, action, grid)",
    one_class(is_dataclass_with("build", "dim", "action", "grid"), "DYNAMICS"),
    settings_like(f"{__name__}.dynamics", "DynamicsConfig", "has no method build(dim, action, grid)"),
    group="jepakit.dynamics",
)

# What a config may name as `body.name`: how a head reads the tokens of a frame.
READOUTS: "Final[Registry[ReadoutConfig]]" = Registry(
    __name__,
    "readout",
    "one frozen dataclass with build(dim, out, grid)",
    one_class(is_dataclass_with("build", "dim", "out", "grid"), "READOUTS"),
    settings_like(f"{__name__}.readout", "ReadoutConfig", "has no method build(dim, out, grid)"),
    group="jepakit.readouts",
)

__getattr__ = lazy_names(
    __name__,
    {
        "CNN": "conv",
        **dict.fromkeys(
            ("GRU", "CausalTransformer", "Dynamics", "DynamicsConfig", "GridConv", "ResidualMLP"), "dynamics"
        ),
        **dict.fromkeys(("Encoder", "EncoderConfig", "union"), "encoder"),
        "Frames": "frames",
        "Keypoints": "keypoints",
        **dict.fromkeys(("MLP", "Perceptron"), "mlp"),
        "Pixels": "pixels",
        **dict.fromkeys(("Predictor", "PredictorConfig"), "predictor"),
        **dict.fromkeys(("AttentionReadout", "ConvReadout", "FlatMLP", "ReadoutConfig"), "readout"),
        "ResNet": "resnet",
        "ResNet50": "resnet50",
        **dict.fromkeys(("ViT", "vit"), "transformer"),
    },
)
