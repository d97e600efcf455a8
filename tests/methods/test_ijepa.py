"""I-JEPA: what the paper's equations say, on tensors small enough to check by hand."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from jepakit import methods
from jepakit.methods import ijepa
from jepakit.types import Batch, Rng, Signal, take

SIGNAL = Signal(3, (16, 16), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
CFG = ijepa.Config.tiny(SIGNAL)


@pytest.fixture
def method():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ijepa.IJEPA(CFG, SIGNAL)


@pytest.fixture
def batch():
    return Batch(torch.rand(4, 3, 16, 16, generator=Rng(1).generator()))


def test_the_loss_is_the_mean_over_blocks_of_the_distance_to_the_normalised_target_tokens(method, batch):
    with torch.no_grad():  # without these, the encoder's own last norm has normalised its tokens already
        method.target_encoder.norm.weight.uniform_(0.5, 3.0, generator=Rng(2).generator())
        method.target_encoder.norm.bias.fill_(0.7)
    drawn = method.draw(4, Rng(3))
    whole = method.encode(batch.x)
    expected, targets = [], []
    for masks in drawn:
        pred = method.predictor(method.context(batch.x, masks), masks)
        target = F.layer_norm(take(whole, masks.targets), (48,))
        targets.append(target.flatten(0, 2))
        expected.append(F.smooth_l1_loss(pred, target))
    terms = method.loss(batch, Rng(3))
    torch.testing.assert_close(terms.total, torch.stack(expected).mean())
    assert terms.compared[0].shape == terms.compared[1].shape
    torch.testing.assert_close(terms.compared[1], torch.cat(targets))
    torch.testing.assert_close(
        torch.cat([t.flatten(0, 2) for t in method.expected_by(batch.x, drawn)]), terms.compared[1]
    )


def test_no_gradient_reaches_the_target_encoder(method, batch):
    method.loss(batch, Rng(0)).total.backward()
    assert all(p.grad is None for p in method.target_encoder.parameters())
    assert all(p.grad is not None for p in method.encoder.parameters())


def test_the_decay_moves_in_a_straight_line_and_the_last_step_leaves_the_target_alone(method):
    with torch.no_grad():
        method.encoder.norm.weight.fill_(3.0)
    before = method.target_encoder.norm.weight.clone()
    method.after_step(1.0)
    assert torch.equal(method.target_encoder.norm.weight, before)
    method.after_step(0.5)
    torch.testing.assert_close(method.target_encoder.norm.weight, before * 0.998 + 3.0 * 0.002)


def test_targets_over_several_blocks_are_the_mean_of_their_normalised_outputs(batch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = ijepa.IJEPA(dataclasses.replace(CFG, target_blocks=2), SIGNAL)
    outputs = []
    for block in method.target_encoder.blocks:
        block.register_forward_hook(lambda module, args, out: outputs.append(F.layer_norm(out, (48,))))
    method.target_encoder(method.normalize(batch.x))
    mean = torch.stack(outputs).mean(0).detach()
    drawn = method.draw(4, Rng(3))
    for masks, target in zip(drawn, method.targets(batch.x, drawn), strict=True):
        torch.testing.assert_close(target, take(mean, masks.targets))


def test_a_method_is_built_from_its_settings_by_name():
    assert methods.name_of(CFG) == "ijepa"
    assert isinstance(methods.build(CFG, SIGNAL), ijepa.IJEPA)
