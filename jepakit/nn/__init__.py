"""Networks: encoders, the predictor, and the moving average between encoder and target."""

from .conv import CNN
from .encoder import Encoder, EncoderConfig, union
from .frames import Frames
from .mlp import MLP, Perceptron
from .pixels import Pixels
from .predictor import Predictor, PredictorConfig
from .resnet import ResNet
from .resnet50 import ResNet50
from .transformer import SIZES, ViT, vit

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
    "union",
    "vit",
]

# What a config may name as `encoder.name`.
ENCODERS: dict[str, EncoderConfig] = {
    "vit": ViT(),
    "mlp": MLP(),
    "cnn": CNN(),
    "resnet": ResNet(),
    "resnet50": ResNet50(),
    "frames": Frames(),
    "pixels": Pixels(),
    **{f"vit_{size}": config for size, config in SIZES.items()},
}

# What a config may name as `predictor.name`, where a method leaves the choice.
PREDICTORS: dict[str, PredictorConfig] = {"transformer": Predictor(), "mlp": Perceptron()}
