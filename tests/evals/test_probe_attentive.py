"""The attentive probe: what it computes, what it chooses, and that its tokens stay on the disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jepakit import evals
from jepakit.evals import tokens
from jepakit.evals.kinds import attentive
from jepakit.evals.kinds.attentive import Config, Job
from jepakit.evals.tokens import Tokens
from jepakit.types import Batch

CFG = Config(lr=(1e-3,), epochs=8, batch=32, seeds=(0,))


def marked(n: int, classes: int = 3, count: int = 24, dim: int = 6, seed: int = 0) -> Tokens:
    """Tokens of noise, of which one, anywhere and loud, tells the class: its mean over the tokens says little."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, count, dim)), rng.integers(classes, size=n)
    marks = np.eye(dim)[:classes] * 2 + np.eye(dim)[-1] * 6
    x[np.arange(n), rng.integers(count, size=n)] = marks[y] + 0.3 * rng.normal(size=(n, dim))
    return Tokens(x.astype(np.float16), np.arange(n), y.astype(np.int64), np.arange(n))


def score(train: Tokens, test: Tokens, cfg: Config = CFG) -> dict[str, object]:
    return {k: v for k, v in attentive.evaluate(train, test, cfg) if k != "progress"}


def test_the_shortcut_for_one_query_is_attention_as_torch_computes_it() -> None:
    rng = torch.Generator().manual_seed(0)
    mean, std = torch.randn(12, generator=rng), torch.rand(12, generator=rng) + 0.5
    probe = attentive.build_probe(3, mean, std, heads=3, ratio=2.0, classes=4)
    with torch.no_grad():
        for p in probe.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.5)
    x = torch.randn(5, 7, 12, generator=rng)
    tokens = (x - mean) / std
    dim, kv = 12, probe.kv
    s = probe.query.expand(5, 1, dim)
    weights = torch.cat([probe.q.weight, kv.weight])
    y, _ = F.multi_head_attention_forward(
        s.transpose(0, 1),
        tokens.transpose(0, 1),
        tokens.transpose(0, 1),
        dim,
        3,
        weights,
        torch.cat([probe.q.bias, kv.bias]),
        None,
        None,
        False,
        0.0,
        torch.eye(dim),
        torch.zeros(dim),
    )
    s = probe.query + y[0]
    want = probe.head(s + probe.mlp(F.layer_norm(s, (dim,), probe.norm.weight, probe.norm.bias, 1e-6)))
    (got,) = attentive.joint_scores([probe], x)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_probes_fitted_together_are_the_probes_fitted_alone() -> None:
    train = marked(90)
    jobs = [Job(1e-3, 0.01, 0), Job(1e-2, 0.0, 5)]

    def fitted(jobs: list[Job]) -> list[attentive.Attentive]:
        steps = attentive.fit_probes(train, jobs, CFG, 1, 3)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return done.value

    for one, job in zip(fitted(jobs), jobs, strict=True):
        (alone,) = fitted([job])
        for a, b in zip(one.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_it_finds_the_token_that_tells_where_the_mean_over_tokens_does_not() -> None:
    train, test = marked(600), marked(300, seed=1)
    found = score(train, test, Config(lr=(1e-2,), epochs=20, batch=64, seeds=(0,)))
    means = [evals.features.Features(t.store.astype(np.float32).mean(1), t.y, t.id) for t in (train, test)]
    linear = dict(evals.load_kind("linear").evaluate(*means, evals.load_kind("linear").Config()))
    assert found["value"] > 0.97
    assert found["value"] > linear["value"] + 0.05
    assert found["low"] < found["value"] <= found["high"]


def test_the_same_settings_give_the_same_score_and_leave_the_global_random_state() -> None:
    before = torch.get_rng_state()
    assert score(marked(60), marked(40, seed=1)) == score(marked(60), marked(40, seed=1))
    assert torch.equal(before, torch.get_rng_state())


def test_the_rates_are_chosen_without_the_test_set() -> None:
    train, test = marked(150), marked(60, seed=1)
    foul = Tokens(np.full_like(test.store, 50.0), test.rows, (test.y + 1) % 3, test.id)
    cfg = Config(lr=(1e-5, 3e-3), epochs=10, batch=32, seeds=(0,))
    assert score(train, test, cfg)["lr"] == score(train, foul, cfg)["lr"] == 3e-3


def test_the_score_is_the_mean_over_the_seeds_and_says_how_they_differ() -> None:
    found = score(marked(90), marked(60, seed=1), Config(lr=(1e-3,), epochs=3, batch=32, seeds=(0, 1, 2)))
    assert len(set(found["each"])) > 1
    assert found["value"] == pytest.approx(np.mean(found["each"]))
    assert found["std"] == pytest.approx(np.std(found["each"], ddof=1))


def test_progress_rises_from_the_first_step_to_one() -> None:
    cfg = Config(lr=(1e-3, 1e-2), epochs=2, batch=32, seeds=(0,))
    done = [v for k, v in attentive.evaluate(marked(60), marked(20, seed=1), cfg) if k == "progress"]
    assert done == sorted(done)
    assert 0 < done[0] < 0.5
    assert done[-1] == 1.0


def test_what_cannot_work_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="lr cannot be chosen: no class has two training samples"):
        score(marked(60).where(np.arange(60) < 1), marked(9), Config())
    with pytest.raises(ValueError, match="epochs=0"):
        Config(epochs=0)


@pytest.mark.parametrize(("dim", "heads"), [(192, 3), (768, 12), (32, 1), (48, 1), (200, 2)])
def test_without_a_number_there_is_a_head_per_64_features_that_divides_them(dim: int, heads: int) -> None:
    assert attentive.choose_heads(None, dim) == heads


@pytest.mark.parametrize(("asked", "dim", "heads"), [(4, 192, 4), (4, 6, 3), (16, 6, 6), (12, 75, 5)])
def test_a_number_of_heads_gives_way_to_the_next_that_divides_the_features(asked: int, dim: int, heads: int) -> None:
    assert attentive.choose_heads(asked, dim) == heads


# --- tokens on the disk


def batches(n: int) -> list[Batch]:
    x = torch.rand(n, 3, 4, generator=torch.Generator().manual_seed(0))
    return [Batch(x=x[i : i + 4], id=torch.arange(n)[i : i + 4], label=torch.arange(n)[i : i + 4] % 2) for i in (0, 4)]


def test_tokens_come_back_in_order_from_a_file_to_float16_precision(tmp_path: Path) -> None:
    encoders = {"value": lambda batch: batch.x * 2, "raw": lambda batch: batch.x}
    found = tokens.extract_tokens(encoders, batches(7), tmp_path, 9, {"value": (3, 4), "raw": (3, 4)})
    x = torch.cat([b.x for b in batches(7)])
    assert len(found["value"]) == 7  # two of nine could not be read
    assert isinstance(found["value"].store, np.memmap)
    torch.testing.assert_close(found["value"].read(np.arange(7)), 2 * x, rtol=1e-3, atol=1e-3)
    half = found["raw"].where(np.arange(7) % 2 == 1)
    assert half.id.tolist() == [1, 3, 5]
    torch.testing.assert_close(half.read(np.array([2])), x[5:6], rtol=1e-3, atol=1e-3)
    assert half.same(half)
    assert not half.same(found["raw"].where(np.arange(7) % 2 == 0))


def test_tokens_beyond_the_limit_or_the_disk_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"1,281,167 samples take .* GiB .*; raise the kind's disk_gib to \d+, or give"
    ):
        tokens.check_room({"value": (196, 768)}, 1_281_167, 16.0, tmp_path)
    with pytest.raises(ValueError, match="set TMPDIR"):
        tokens.check_room({"value": (196, 768)}, 10**12, 1e12, tmp_path)


def test_tokens_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tokens of 4 of 4 samples are not finite, or beyond float16"):
        tokens.extract_tokens({"value": lambda batch: batch.x * 1e6}, batches(8), tmp_path, 8, {"value": (3, 4)})


def test_moments_are_those_of_all_tokens() -> None:
    part = marked(700)
    mean, std = tokens.token_moments(part)
    flat = part.store.reshape(-1, 6).astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), flat.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std.numpy(), flat.std(0), rtol=1e-5)
