"""The ResNet-50: its numbers, the files that its weights come from, what is frozen, and runs that begin with a file."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import support
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

import jepakit as jk
from jepakit import methods, testing
from jepakit.cli.__main__ import main
from jepakit.masks.halves import Halves
from jepakit.methods import bijepa, simclr
from jepakit.nn import Perceptron, ResNet50
from jepakit.nn.encoder import read_weights
from jepakit.nn.heads import Projector
from jepakit.run import checkpoint
from jepakit.types import Rng, Signal

BLOCKS, WIDTH = (1, 2), 4
PICTURE = Signal(3, (20, 24), mean=(0.3, 0.5, 0.2), std=(0.3, 0.1, 0.2), views=2)
IMAGENET = (torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))


def weights(blocks: tuple[int, ...] = BLOCKS, width: int = WIDTH, fill: Callable[..., Tensor] | None = None) -> dict:
    """A state dict as torchvision writes it, with statistics that are not those of a fresh network."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(conv: str, norm: str, before: int, after: int, kernel: int) -> None:
        shapes[f"{conv}.weight"] = (after, before, kernel, kernel)
        shapes.update({f"{norm}.{leaf}": (after,) for leaf in ("weight", "bias", "running_mean", "running_var")})

    add("conv1", "bn1", 3, width, 7)
    before = width
    for s, count in enumerate(blocks):
        inner = width * 2**s
        for k in range(count):
            at = f"layer{s + 1}.{k}"
            for i, side in enumerate([(before, inner, 1), (inner, inner, 3), (inner, 4 * inner, 1)], 1):
                add(f"{at}.conv{i}", f"{at}.bn{i}", *side)
            if k == 0:
                add(f"{at}.downsample.0", f"{at}.downsample.1", before, 4 * inner, 1)
            before = 4 * inner
    generator = torch.Generator().manual_seed(0)
    drawn = fill or (lambda name, shape: torch.randn(shape, generator=generator))
    made = {name: scaled(name, drawn(name, shape)) for name, shape in shapes.items()}
    tracked = {f"{name[:-12]}num_batches_tracked": torch.tensor(7) for name in made if name.endswith("running_mean")}
    return made | tracked | {"fc.weight": torch.zeros(5, before), "fc.bias": torch.zeros(5)}


def scaled(name: str, noise: Tensor) -> Tensor:
    if noise.ndim == 4:
        return noise * (2 / noise[0].numel()) ** 0.5
    return 1 + 0.3 * noise.clamp(-2, 2) if name.endswith(("norm.weight", "running_var", "weight")) else 0.2 * noise


def plain(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network once more, by torchvision's names, from what the paper says; its last map."""

    def unit(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        w, (scale, bias, mean, var) = (
            state[f"{conv}.weight"],
            (state[f"{norm}.{leaf}"][:, None, None] for leaf in LEAVES),
        )
        x = F.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2)
        return (x - mean) / (var + 1e-5).sqrt() * scale + bias

    x = F.max_pool2d(unit(x, "conv1", "bn1", 2).relu(), 3, stride=2, padding=1)
    for at in dict.fromkeys(name.rsplit(".conv", 1)[0] for name in state if name.startswith("layer")):
        if "downsample" in at or ".bn" in at:
            continue
        stride = 2 if at.endswith(".0") and at != "layer1.0" else 1
        h = unit(x, f"{at}.conv1", f"{at}.bn1").relu()
        h = unit(h, f"{at}.conv2", f"{at}.bn2", stride).relu()
        h = unit(h, f"{at}.conv3", f"{at}.bn3")
        side = (
            unit(x, f"{at}.downsample.0", f"{at}.downsample.1", stride) if f"{at}.downsample.0.weight" in state else x
        )
        x = (h + side).relu()
    return x


LEAVES = ("weight", "bias", "running_mean", "running_var")


def faces(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by the names of Hugging Face's ResNetModel."""
    rules = [
        (r"^conv1", "embedder.embedder.convolution"),
        (r"^bn1", "embedder.embedder.normalization"),
        (r"^layer(\d)\.(\d)", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}"),
        (r"conv(\d)", lambda m: f"layer.{int(m[1]) - 1}.convolution"),
        (r"bn(\d)", lambda m: f"layer.{int(m[1]) - 1}.normalization"),
        (r"downsample\.0", "shortcut.convolution"),
        (r"downsample\.1", "shortcut.normalization"),
        (r"^fc", "classifier.1"),
    ]
    for old, new in rules:
        state = {re.sub(old, new, name): value for name, value in state.items()}
    return state


def classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As ResNetForImageClassification has them."""
    return {k if k.startswith("classifier") else f"resnet.{k}": v for k, v in faces(state).items()}


def torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state


def saved(state: dict[str, Any], path: Path) -> str:
    safetensors.torch.save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return saved(weights(), tmp_path / "weights.pth")


def tiny(path: str = "", **changes: Any) -> ResNet50:
    return ResNet50(blocks=BLOCKS, width=WIDTH, weights=path, **changes)


def read(path: str, signal: Signal = PICTURE, **changes: Any) -> Any:
    encoder = tiny(path, **changes).build(signal)
    encoder.read_weights()
    return encoder.eval()


@pytest.mark.parametrize("names", [torchvision, faces, classifier])
@pytest.mark.parametrize("ending", ["pth", "bin", "safetensors"])
def test_a_file_under_any_names_gives_the_numbers_of_a_plain_second_network(
    names: Callable[..., Any], ending: str, tmp_path: Path
) -> None:
    state = weights()
    encoder = read(saved(names(state), tmp_path / f"weights.{ending}"))
    x = torch.rand(3, 3, *PICTURE.size, generator=torch.Generator().manual_seed(1))
    expected = plain(state, (x - IMAGENET[0]) / IMAGENET[1]).mean((2, 3))
    assert encoder.dim == 32 == expected.shape[1]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PICTURE.mean, PICTURE.std))
    assert_close(encoder((x - mean) / std)[:, 0], expected, atol=1e-5, rtol=1e-5)


def waves(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers that any machine makes: a sine that begins where the name says."""
    start = sum(name.encode())
    return torch.sin(0.7 * torch.arange(start, start + torch.Size(shape).numel()).double()).float().reshape(shape)


def test_the_numbers_are_those_of_hugging_faces_resnet_model() -> None:
    # Recorded with transformers 5.23.0: ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[16, 32],
    # depths=[1, 2])) with faces(weights(fill=waves)) in evaluation mode, on waves("x", (1, 3, 33, 40)).
    pooled = [
        *(0.459023, 0.126945, 0.0, 0.076702, 2.285104, 2.527974, 0.740199, 0.280204),
        *(0.054817, 0.537749, 0.222536, 0.0, 0.077056, 1.804281, 2.614273, 0.875203),
        *(0.281229, 0.06688, 0.519036, 0.335606, 0.0, 0.078668, 1.267052, 2.594786),
        *(1.080676, 0.276183, 0.078294, 0.406425, 0.682738, 0.034946, 0.080686, 0.757218),
    ]
    encoder = tiny().build(Signal(3, (33, 40))).eval()
    encoder.load(weights(fill=waves), "waves")
    encoder.scale.fill_(1)
    encoder.shift.zero_()
    assert_close(encoder(waves("x", (1, 3, 33, 40)))[0, 0], torch.tensor(pooled), atol=1e-5, rtol=1e-5)


def test_pixels_reach_the_weights_as_they_were_trained_on_whatever_the_data_are_like(file: str) -> None:
    x = torch.rand(2, 3, *PICTURE.size, generator=torch.Generator().manual_seed(1))
    found = []
    for signal in (PICTURE, Signal(3, PICTURE.size, (0.9, 0.1, 0.4), (0.01, 2.0, 0.5), views=2)):
        method = methods.build(simclr.Config(tiny(file), Projector(out=4)), signal)
        method.encoder.read_weights()
        found.append(method.eval().encode(x))
    assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)
    assert_close(found[0][:, 0], plain(weights(), (x - IMAGENET[0]) / IMAGENET[1]).mean((2, 3)), atol=1e-4, rtol=1e-4)


def without(name: str) -> dict[str, Tensor]:
    return {k: v for k, v in weights().items() if k != name}


WRONG = {
    "missing layer2.1.bn2.running_var": without("layer2.1.bn2.running_var"),
    "unexpected layer1.0.se.fc1.weight": weights() | {"layer1.0.se.fc1.weight": torch.zeros(4)},
    "unexpected model": weights() | {"model": torch.zeros(4)},
    r"conv1.weight is \(4, 1, 7, 7\), not \(4, 3, 7, 7\)": weights() | {"conv1.weight": torch.zeros(4, 1, 7, 7)},
    r"unexpected layer2.2.bn1.bias.* and \d+ more; it has encoder.blocks \[1, 2\]": weights((1, 3)),
    "missing embedder.embedder.convolution.weight": {
        k: v for k, v in faces(weights()).items() if k != "embedder.embedder.convolution.weight"
    },
    "holds state_dict, epoch, not a plain state dict": {"state_dict": weights(), "epoch": 3},
    "holds more than tensors": {"conv1.weight": Path("x")},
    "holds list, not a plain state dict": [torch.zeros(3)],
}


@pytest.mark.parametrize("sentence", WRONG)
def test_a_file_that_does_not_fit_is_one_sentence_with_its_name_and_its_keys(sentence: str, tmp_path: Path) -> None:
    path = saved(WRONG[sentence], tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=f"{re.escape(path)}.*{sentence}"):
        read(path)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_file_cut_short_is_one_sentence(ending: str, keep: float, tmp_path: Path) -> None:
    path = Path(saved(weights(), tmp_path / f"weights.{ending}"))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(ValueError, match=r"weights\.\w+ is not .*save one with torch.save"):
        read(str(path))
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match=r"weights\.\w+ is not "):
        read(str(path))


def test_data_that_the_weights_were_not_trained_on_are_refused(file: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(4, 3, 7, 7\), not \(4, 1, 7, 7\).*1 channels"):
        read(file, Signal(1, (16, 16)))
    with pytest.raises(ValueError, match=r"pixels in \[0, 1\].*128"):
        read(file, Signal(3, (16, 16), (120.0, 128.0, 110.0), (50.0, 50.0, 50.0)))
    with pytest.raises(ValueError, match=r"no weights file at .*none\.pth"):
        read(str(tmp_path / "none.pth"))


def test_the_default_is_a_resnet_50() -> None:
    with torch.device("meta"):
        encoder = ResNet50().build(Signal(3, (64, 64)))
    assert sum(p.numel() for p in encoder.parameters()) == 25_557_032 - 1000 * 2049
    assert (encoder.dim, encoder.grid, encoder.patch) == (2048, (1, 1), (64, 64))


def test_no_frame_sees_another_and_masks_choose_frames(file: str) -> None:
    video = Signal(3, (5, 20, 24), PICTURE.mean, PICTURE.std)
    encoder = read(file, video)
    x = torch.randn(2, 3, *video.size)
    assert (encoder.grid, encoder.patch) == ((5, 1, 1), (1, 20, 24))
    whole = encoder(x)
    alone = read(file)
    assert_close(whole, torch.stack([alone(x[:, :, t])[:, 0] for t in range(5)], 1), atol=1e-5, rtol=1e-5)
    keep, some = torch.tensor([[4, 0, 2], [1, 3, 0]]), torch.tensor([[2, 0], [1, 1]])
    other = x.clone()
    other[0, :, [1, 3]], other[1, :, [2, 4]] = 0, 0
    kept = encoder(other, keep=keep)
    assert_close(kept, torch.stack([whole[b, keep[b]] for b in range(2)]), atol=1e-5, rtol=1e-5)
    assert_close(encoder(other, keep, some), torch.stack([kept[b, some[b]] for b in range(2)]), atol=1e-5, rtol=1e-5)
    assert encoder(x[:, :, :3, :9, :9]).shape == (2, 3, 32)
    assert encoder.grid_of(x[:, :, :3, :9, :9]) == (3, 1, 1)


def test_without_pool_a_token_is_a_cell_of_the_last_map(file: str) -> None:
    video = Signal(3, (2, 16, 24))
    encoder, mean = read(file, video, pool=False), read(file, video)
    x = torch.randn(3, 3, *video.size)
    assert (encoder.grid, encoder.patch, encoder.leaves_out) == ((2, 2, 3), (1, 8, 8), False)
    cells = encoder(x)
    assert_close(cells.reshape(3, 2, 6, 32).mean(2), mean(x), atol=1e-5, rtol=1e-5)
    frame = (x[0, :, 1, :, :] - IMAGENET[0][..., 0, 0, None, None]) / IMAGENET[1]
    assert_close(cells[0, 6:].T.reshape(32, 2, 3), plain(weights(), frame[None])[0], atol=1e-4, rtol=1e-4)
    read_ = torch.tensor([[7, 0]] * 3)
    assert_close(encoder(x, read=read_), cells[:, [7, 0]])
    with pytest.raises(ValueError, match=r"set encoder\.pool to true"):
        encoder(x, keep=read_)
    with pytest.raises(ValueError, match="does not divide size"):
        encoder(x[..., :20])


def test_a_masked_method_learns_on_frames_and_hidden_ones_change_nothing() -> None:
    video = Signal(3, (2, 12, 12), PICTURE.mean, PICTURE.std)
    cfg = bijepa.Config(tiny(frozen=True), Perceptron(16), (Halves(axis=0),))
    method: Any = methods.build(cfg, video)
    batch = testing.example(video)
    method.loss(batch, Rng(0)).total.backward()
    masks = method.draw(len(batch), Rng(0))[0]
    later = batch.x.clone()
    later[:, :, masks.targets[0, 0]] = 0
    assert torch.equal(method.context(batch.x, masks), method.context(later, masks))
    assert not torch.equal(method.context(batch.x, masks), method.context(batch.x.flip(2), masks))


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_weights_and_statistics_stay_and_trained_ones_all_move(frozen: bool, file: str) -> None:
    method: Any = methods.build(simclr.Config(tiny(file, frozen=frozen), Projector(out=4), 0.2), PICTURE)
    method.encoder.read_weights()
    before = {k: v.clone() for k, v in method.encoder.state_dict().items()}
    batch = testing.example(PICTURE)
    optimizer = torch.optim.SGD([p for p in method.train().parameters() if p.requires_grad], 0.1)
    for step in range(2):
        optimizer.zero_grad()
        assert method.encode(batch.x).requires_grad is not frozen
        method(batch, Rng(0, step)).total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)
        optimizer.step()
    moved = {k for k, v in method.encoder.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == (set() if frozen else before.keys() - {"scale", "shift"})
    assert all(p.grad is None for p in method.encoder.parameters()) is frozen


def settings(folder: Path, file: str, **encoder: Any) -> Path:
    parts = {"name": "resnet50", "blocks": list(BLOCKS), "width": WIDTH, "weights": file, **encoder}
    method = {"name": "simclr", "encoder": parts, "projector": {"hidden": 16, "out": 8}}
    data = {"name": "synthetic", "path": "shapes", "count": 40, "size": [16, 16]}
    path = support.write_settings(folder, "shapes", data=data, length={"steps": 4}, loop={"save_every": 2})
    content = yaml.safe_load(path.read_text()) | {"method": method}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("frozen", [True, False])
def test_a_run_begins_with_the_file_and_needs_it_no_more(frozen: bool, file: str, tmp_path: Path) -> None:
    recipe, out = str(settings(tmp_path, file, frozen=frozen)), tmp_path / "run"
    jk.train(out=out, recipe=recipe)
    whole, s = support.logged_losses(out), encoded(out)
    assert (
        torch.equal(checkpoint.load_checkpoint(out).model["encoder.stem.weight"], weights()["conv1.weight"]) is frozen
    )
    Path(file).unlink()
    assert torch.equal(encoded(out), s)
    checkpoint.go_back(out, 2, {})
    jk.train(out=out, recipe=recipe, resume=True)
    assert support.logged_losses(out) == whole
    assert torch.equal(encoded(out), s)
    written = yaml.safe_load((out / "config.yaml").read_text())["method"]["encoder"]
    assert written["weights"] == file
    assert re.fullmatch(r"[0-9a-f]{32}", written["weights_hash"])


def encoded(run: Path) -> Tensor:
    return checkpoint.load_run(run).method.encode(waves("x", (2, 3, 16, 16)).abs())


def test_a_run_repeated_from_its_settings_wants_the_same_file(file: str, tmp_path: Path) -> None:
    jk.train(out=tmp_path / "run", recipe=str(settings(tmp_path, file)), steps=1)
    repeat = {"recipe": str(tmp_path / "run" / "config.yaml"), "steps": 1}
    jk.train(out=tmp_path / "again", **repeat)
    assert torch.equal(encoded(tmp_path / "again"), encoded(tmp_path / "run"))
    saved({k: 2 * v for k, v in weights().items()}, Path(file))
    with pytest.raises(ValueError, match=r"weights\.pth is not the file that the settings were written for"):
        jk.train(out=tmp_path / "other", **repeat)
    assert not (tmp_path / "other").exists()


def test_a_target_encoder_begins_with_the_file_too(file: str) -> None:
    method: Any = methods.build(bijepa.Config(tiny(file), Perceptron(16), (Halves(axis=0),)), Signal(3, (2, 12, 12)))
    read_weights(method)
    assert torch.equal(method.target_encoder.stem.weight, weights()["conv1.weight"])
    assert torch.equal(method.encoder.stem.weight, weights()["conv1.weight"])


def test_on_the_command_line_a_mistake_ends_with_2_before_anything_is_written(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = settings(tmp_path, file), tmp_path / "run"
    saved(without("bn1.bias"), tmp_path / "broken.pth")
    for words in ([], ["--dry-run"]):
        with pytest.raises(SystemExit) as ended:
            main(
                ["train", str(recipe), "--out", str(out), "--method.encoder.weights", f"{tmp_path}/broken.pth", *words]
            )
        said = capsys.readouterr().err
        assert (ended.value.code, said.count("\n")) == (2, 1)
        assert "broken.pth do not fit this model: missing bn1.bias" in said
        assert not out.exists()


def test_weights_come_from_a_file_or_from_a_run_not_from_both(file: str, tmp_path: Path) -> None:
    recipe, first = str(settings(tmp_path, file)), tmp_path / "first"
    jk.train(out=first, recipe=recipe, steps=1)
    with pytest.raises(ValueError, match=r"weights names .*weights\.pth; give one of them"):
        jk.train(out=tmp_path / "run", recipe=recipe, steps=1, init=first)
    jk.train(out=tmp_path / "run", recipe=recipe, steps=1, init=first, settings={"method.encoder.weights": ""})
    begun = checkpoint.load_checkpoint(tmp_path / "run", 0).model
    assert torch.equal(begun["encoder.scale"], checkpoint.load_checkpoint(first).model["encoder.scale"])


def test_bad_settings_are_refused_with_their_values() -> None:
    with pytest.raises(ValueError, match=r"blocks \(\)"):
        ResNet50(blocks=())
    with pytest.raises(ValueError, match=r"size \(32,\); give encoder.name vit"):
        tiny().build(Signal(1, (32,)))
    with pytest.raises(ValueError, match="does not divide size"):
        tiny(pool=False).build(Signal(3, (20, 20)))
