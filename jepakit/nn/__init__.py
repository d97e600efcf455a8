"""Networks: encoders, the predictor, and the moving average between encoder and target."""

from .conv import CNN
from .encoder import Encoder, EncoderConfig, union
from .mlp import MLP
from .predictor import Predictor
from .transformer import SIZES, ViT, vit

__all__ = ["CNN", "ENCODERS", "MLP", "Encoder", "EncoderConfig", "Predictor", "ViT", "union", "vit"]

# What a config may name as `encoder.name`.
ENCODERS: dict[str, EncoderConfig] = {
    "vit": ViT(),
    "mlp": MLP(),
    "cnn": CNN(),
    **{f"vit_{size}": config for size, config in SIZES.items()},
}
