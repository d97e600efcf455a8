"""ResNet-50 and other bottleneck ResNets, applied to every frame by itself, with optional pretrained weights.

Source: He et al. 2016, arXiv:1512.03385, with the stride in the convolution of kernel 3, as in torchvision, timm and
Hugging Face ("v1.5"). Normalisation is the same as there: eps 1e-5, momentum 0.1.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import Grid, Signal, take
from . import weights
from .conv import MapNorm
from .encoder import Encoder, cells_to_compute
from .patch import grid_of, patches
from .resnet import conv_layer, shortcut_layers

# The mean and std of pixels in [0, 1] that the weights of torchvision, timm and Hugging Face expect.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What a file may hold beside the network: a classifier, and the number of batches behind its statistics.
IGNORED_KEYS = re.compile(r"^(fc|classifier)\.|\.num_batches_tracked$")


@dataclass(frozen=True)
class ResNet50:
    """ResNet-50, or another depth and width of it, for pictures (H, W) and, frame by frame, for videos (T, H, W).

    A token is a frame: the mean over its last map, 4 · `width` · 2^(stages − 1) features. No frame sees another, so
    masks choose frames. Without `pool`, a token is a cell of the last map, 32 px wide, and masks cannot be used.

    `weights` names a file: a state dict of torchvision or timm (.pth), or of Hugging Face's ResNetModel or
    ResNetForImageClassification (.safetensors, .bin). `Encoder.read_weights` reads it once, when a run begins; from
    then on the checkpoints hold the weights. `weights_hash` is the file's hash; if it is given, the file must match.
    Frames are brought from the normalisation of the data to ImageNet's. Hugging Face files with
    `downsample_in_bottleneck` have the stride elsewhere, which their tensors do not show: do not use them.

    `frozen` keeps the weights and the statistics of the normalisation fixed.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    pool: bool = True
    weights: str = ""
    weights_hash: str = ""
    frozen: bool = False

    def __post_init__(self) -> None:
        if min(self.width, *self.blocks, len(self.blocks)) < 1:
            raise ValueError(
                f"width is {self.width} and blocks {self.blocks}; give a width of 1 or more and one stage or more, "
                "each of 1 block or more"
            )

    def build(self, signal: Signal) -> "ResNet50Encoder":
        """The encoder, before its weights file is read.

        Raises ValueError if the signal has no pictures, or if cells do not tile them.
        """
        return ResNet50Encoder(self, signal)


class ResNet50Encoder(Encoder):
    """The network that `ResNet50` describes."""

    scale: Tensor
    shift: Tensor

    def __init__(self, cfg: ResNet50, signal: Signal) -> None:
        super().__init__()
        if len(signal.size) not in (2, 3):
            raise ValueError(
                f"resnet50 takes pictures (H, W) and videos (T, H, W), not a signal of size {tuple(signal.size)}; "
                "give encoder.name vit, mlp, cnn or resnet"
            )
        self.cfg, self.signal, self.leaves_out = cfg, signal, cfg.pool
        self.dim = 4 * cfg.width * 2 ** (len(cfg.blocks) - 1)
        side = (2 ** (len(cfg.blocks) + 1),) * 2
        self.patch = (*[1] * (len(signal.size) - 2), *(signal.size[-2:] if cfg.pool else side))
        self.grid = grid_of(signal.size, self.patch)
        # The identity unless weights are read; buffers, so that they are saved with the weights.
        self.register_buffer("scale", torch.ones(signal.channels, 1, 1))
        self.register_buffer("shift", torch.zeros(signal.channels, 1, 1))
        self.stem, self.norm = conv_layer(2, signal.channels, cfg.width, 7, 2), MapNorm(cfg.width)
        stages, before = [], cfg.width
        for stage, count in enumerate(cfg.blocks):
            width = cfg.width * 2**stage
            first = Bottleneck(before, width, stride=2 if stage else 1)
            stages.append(nn.Sequential(first, *[Bottleneck(4 * width, width, 1) for _ in range(count - 1)]))
            before = 4 * width
        self.stages = nn.Sequential(*stages)
        self.requires_grad_(not cfg.frozen).train()

    def train(self, mode: bool = True) -> "ResNet50Encoder":
        """Switch to training or evaluation mode; always to evaluation if frozen, so that statistics do not change."""
        super().train(mode and not self.cfg.frozen)
        return self

    def grid_of(self, x: Shaped[Tensor, "b c ..."]) -> Grid:
        """One cell per frame of any size, or the cells of its last map."""
        return (*x.shape[2:-2], 1, 1) if self.cfg.pool else super().grid_of(x)

    def forward(
        self,
        x: Float[Tensor, "b c ..."],
        keep: Int[Tensor, "b k"] | None = None,
        read: Int[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b _ d"]:
        """One token per frame, or per cell of its last map; see `Encoder.forward`.

        Raises ValueError if `keep` is given without `pool`.
        """
        if keep is not None and not self.cfg.pool:
            raise ValueError("the cells of a map see one another, so none can be left out; set encoder.pool to true")
        self.grid_of(x)  # raises where cells do not tile the frames
        frame = (*[1] * (x.ndim - 4), *x.shape[-2:])
        frames = patches(x, frame, cells_to_compute(keep, read) if self.cfg.pool else None)
        maps = self.maps(frames.reshape(-1, x.shape[1], *frame[-2:]))
        if self.cfg.pool:
            return maps.mean((2, 3)).reshape(*frames.shape[:2], self.dim)
        tokens = maps.flatten(2).transpose(1, 2).reshape(len(x), -1, self.dim)
        return tokens if read is None else take(tokens, read)

    def maps(self, frames: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d _ _"]:
        """The last map of every frame."""
        # Before the first convolution pads with zeros, so that padding is a mean pixel, as in pretraining.
        x = (frames * self.scale + self.shift).to(memory_format=torch.channels_last)
        h = F.max_pool2d(F.relu(self.norm(self.stem(x))), 3, 2, 1)
        return self.stages(h)  # type: ignore[no-any-return]

    def read_weights(self) -> str:
        """Load the weights file, and return its hash, or "" if none is named; see `Encoder.read_weights`.

        Raises ValueError if the file's hash is not `weights_hash`, or when `load` does.
        """
        if not self.cfg.weights:
            return ""
        path = Path(self.cfg.weights)
        tensors, found = weights.read_tensors(path), weights.file_digest(path)
        if self.cfg.weights_hash not in ("", found):
            raise ValueError(
                f"{path} is not the file that the settings were written for (its hash is {found}, not "
                f"{self.cfg.weights_hash}); give that file, or omit weights_hash"
            )
        self.load(tensors, str(path))
        return found

    def load(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Copy a state dict of torchvision, timm or Hugging Face; every tensor except a classifier's must fit.

        Raises ValueError, naming `source`, for any tensor that is missing, unexpected or of another shape, and if the
        data are not pixels in [0, 1].
        """
        given = {k.removeprefix("resnet."): v for k, v in tensors.items() if not IGNORED_KEYS.search(k)}
        state, column = self.state_dict(), 2 if any(k.startswith("embedder.") for k in given) else 1
        own = {
            f"{names[column]}.{leaf}": state[f"{names[0]}.{leaf}"]
            for names in weight_names(self.cfg.blocks)
            for leaf in ("weight", "bias", "running_mean", "running_var")
            if f"{names[0]}.{leaf}" in state
        }
        cfg, signal = self.cfg, self.signal
        has = f"it has encoder.blocks {list(cfg.blocks)}, encoder.width {cfg.width} and {signal.channels} channels"
        weights.copy_into(own, given, source, has)
        mean, std = signal.mean or (0.0,) * signal.channels, signal.std or (1.0,) * signal.channels
        if not all(0 <= value <= 1 for value in mean):
            raise ValueError(f"the weights of {source} expect pixels in [0, 1], but the data have means of {mean}")
        here, spread, there, unit = (
            torch.tensor(v).reshape(-1, 1, 1) for v in (mean, std, IMAGENET_MEAN, IMAGENET_STD)
        )
        self.scale.copy_(spread / unit)
        self.shift.copy_((here - there) / unit)


class Bottleneck(nn.Module):
    """x + convolutions of kernel 1, 3 and 1, each normalised; the middle one has a quarter of the width and the stride.

    Where the shape changes, the shortcut is a linear.
    """

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        sides = [(before, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
        self.convs = nn.ModuleList(conv_layer(2, *side) for side in sides)
        self.norms = nn.ModuleList(MapNorm(after) for _, after, *_ in sides)
        self.shortcut = shortcut_layers(2, before, 4 * width, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d _ _"]:
        """The next map."""
        h = F.relu(self.norms[0](self.convs[0](x)))
        h = F.relu(self.norms[1](self.convs[1](h)))
        return F.relu(self.norms[2](self.convs[2](h)) + self.shortcut(x))


def weight_names(blocks: tuple[int, ...]) -> Iterator[tuple[str, str, str]]:
    """The name of every convolution and normalisation here, in torchvision and timm, and in Hugging Face."""
    yield "stem", "conv1", "embedder.embedder.convolution"
    yield "norm.norm", "bn1", "embedder.embedder.normalization"
    for stage, count in enumerate(blocks):
        for k in range(count):
            here, there, face = f"stages.{stage}.{k}", f"layer{stage + 1}.{k}", f"encoder.stages.{stage}.layers.{k}"
            for i in range(3):
                yield f"{here}.convs.{i}", f"{there}.conv{i + 1}", f"{face}.layer.{i}.convolution"
                yield f"{here}.norms.{i}.norm", f"{there}.bn{i + 1}", f"{face}.layer.{i}.normalization"
            yield f"{here}.shortcut.0", f"{there}.downsample.0", f"{face}.shortcut.convolution"
            yield f"{here}.shortcut.1.norm", f"{there}.downsample.1", f"{face}.shortcut.normalization"
