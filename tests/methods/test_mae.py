"""MAE: the pixels of hidden patches, normalised patch by patch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from jepakit import methods, testing
from jepakit.masks.random import Random
from jepakit.methods import mae
from jepakit.types import Rng, Signal, take

SIGNAL = Signal(3, (16, 16), (0.4, 0.5, 0.6), (0.3, 0.25, 0.2))
TINY = replace(mae.Config.tiny(SIGNAL), masks=(Random(ratio=0.75),))
BATCH = testing.example(SIGNAL)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_is_the_squared_error_on_the_hidden_patches(normalize: bool) -> None:
    method = methods.build(replace(TINY, normalize=normalize), SIGNAL)
    assert isinstance(method, mae.MAE)
    masks = Random(ratio=0.75)(method.encoder.grid, len(BATCH), Rng(3).fork("masks", 0))
    assert masks.targets.shape == (8, 1, 12)
    x = method.normalize(BATCH.x)
    cut = F.unfold(x, 4, stride=4).transpose(1, 2)
    target = take(cut, masks.targets)
    if normalize:
        target = F.layer_norm(target, (48,))
    found = method.loss(BATCH, Rng(3))
    torch.testing.assert_close(found.total, F.mse_loss(method.predict(BATCH.x, masks), target))
    assert found.compared is not None
    assert [rows.shape for rows in found.compared] == [(96, 48), (96, 48)]
    torch.testing.assert_close(found.compared[1], target.flatten(0, 2))


def test_brightness_and_contrast_of_a_target_patch_change_nothing() -> None:
    method = methods.build(TINY, SIGNAL)
    target = torch.rand(96, 48, generator=torch.Generator().manual_seed(0))
    shifted = 3 * target + torch.arange(len(target))[:, None]
    normalized = method.normalize_target(target)
    torch.testing.assert_close(method.normalize_target(shifted), normalized, atol=1e-3, rtol=0)


def test_the_encoder_reads_visible_patches_only_in_training_and_all_of_them_afterwards() -> None:
    method = methods.build(TINY, SIGNAL)
    assert isinstance(method, mae.MAE)
    masks = Random(ratio=0.75)(method.encoder.grid, len(BATCH), Rng(3))
    assert method.context(BATCH.x, masks).shape == (8, 4, 48)
    assert method.encode(BATCH.x).shape == (8, 16, 48)


def test_without_masks_nothing_would_be_learnt() -> None:
    with pytest.raises(ValueError, match="masks is empty"):
        mae.Config(masks=())
