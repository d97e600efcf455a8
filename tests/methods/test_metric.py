"""Distances to go on small worlds whose shortest paths are known, and values against value iteration."""

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.testing import assert_close

from jepakit import methods, testing
from jepakit.methods import metric, quasimetric, value, worldmodel
from jepakit.methods.metric import Metric
from jepakit.methods.value import Value, candidate_actions
from jepakit.methods.worldmodel import WorldModel
from jepakit.nn import CNN, MLP, AttentionReadout, ConvReadout, FlatMLP, Frames, ResidualMLP
from jepakit.types import ActionSpec, Batch, Rng, Signal

STEPS = 8


def world(states: int, actions: int = 4, **changes: Any) -> WorldModel:
    """A world model whose latent is the one-hot state itself."""
    signal = Signal(states, (STEPS + 1,), action=ActionSpec(actions, discrete=True))
    settings = worldmodel.Config(MLP((1,), width=states, depth=0), ResidualMLP(8, 1), norm=False, hidden=8)
    made = methods.build(replace(settings, **changes), signal)
    assert isinstance(made, WorldModel)
    with torch.no_grad():
        made.encoder.layers[0].weight.copy_(torch.eye(states))
        made.encoder.layers[0].bias.zero_()
    return made


def head_on(parent: WorldModel, cfg: Any) -> Any:
    return methods.build(cfg, parent.signal, parents=[parent])


def train(head: Any, draw: Any, steps: int, lr: float = 3e-3) -> None:
    optimizer = torch.optim.Adam(head.parameters(), lr)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        head(draw(step), Rng(0, step)).total.backward()
        optimizer.step()
        head.after_step(step / steps)


def successors(table: np.ndarray) -> Any:
    """Batches of random walks by a table (states, actions) of next states."""
    states, actions = table.shape

    def draw(step: int) -> Batch:
        rng = np.random.default_rng(step)
        path, taken = [rng.integers(states, size=32)], []
        for _ in range(STEPS):
            taken.append(rng.integers(actions, size=32))
            path.append(table[path[-1], taken[-1]])
        x = torch.eye(states)[torch.from_numpy(np.stack(path, 1))].transpose(1, 2)
        return Batch(x, action=torch.eye(actions)[torch.from_numpy(np.stack(taken, 1))])

    return draw


def shortest_paths(table: np.ndarray) -> np.ndarray:
    """The least number of steps between all pairs of states, by breadth-first search."""
    found = np.full((len(table), len(table)), np.inf)
    for start in range(len(table)):
        found[start, start], queue = 0, deque([start])
        while queue:
            now = queue.popleft()
            for after in table[now]:
                if found[start, after] == np.inf:
                    found[start, after] = found[start, now] + 1
                    queue.append(int(after))
    return found


def two_rooms() -> tuple[np.ndarray, np.ndarray]:
    """The steps of a 6 x 5 world with a wall in its middle that has a door in the first row; and straight distances."""
    cells = [(x, y) for x in range(6) for y in range(5)]
    where = {cell: k for k, cell in enumerate(cells)}
    table = np.zeros((30, 4), dtype=np.int64)
    for (x, y), k in where.items():
        for a, (dx, dy) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
            shut = {x, x + dx} == {2, 3} and y > 0
            table[k, a] = k if shut else where.get((x + dx, y + dy), k)
    place = np.array(cells)
    return table, np.linalg.norm(place[:, None] - place, axis=-1)


def distances(head: Metric | WorldModel, states: int) -> np.ndarray:
    tokens = torch.eye(states)[:, None]
    with torch.no_grad():
        return head.steps_to_go(tokens[:, None], tokens[None]).double().numpy()


def test_a_quasimetric_learns_the_way_around_a_wall() -> None:
    table, straight = two_rooms()
    true = shortest_paths(table)
    head = head_on(world(30), metric.Config(body=FlatMLP(64, 1), out=32, far=15.0))
    train(head, successors(table), 600)
    found, pairs = distances(head, 30), ~np.eye(30, dtype=bool)
    across = pairs & (np.arange(30)[:, None] < 15) & (np.arange(30) >= 15)
    assert spearmanr(found[pairs], true[pairs]).statistic > 0.95
    assert spearmanr(found[across], true[across]).statistic > spearmanr(straight[across], true[across]).statistic + 0.1
    assert np.diag(found).max() < 0.1
    neighbours = np.concatenate([found[np.arange(30), table[:, a]] for a in range(4)])
    assert 0.7 < neighbours[neighbours > 0.2].mean() < 1.3
    via = found[:, :, None] + found[None]
    assert (found[:, None] <= via + 1e-4).all(), "no detour is shorter"


def test_a_quasimetric_knows_that_time_goes_one_way() -> None:
    ring = ((np.arange(8) + 1) % 8)[:, None]
    true = shortest_paths(ring)
    head = head_on(world(8, 1), metric.Config(body=FlatMLP(64, 1), out=32, far=10.0))
    train(head, successors(ring), 600)
    found, pairs = distances(head, 8), ~np.eye(8, dtype=bool)
    assert spearmanr(found[pairs], true[pairs]).statistic > 0.8
    symmetric = head_on(world(8, 1), metric.Config(body=FlatMLP(64, 1), out=32, symmetric=True))
    assert_close(distances(symmetric, 8), distances(symmetric, 8).T, atol=1e-5, rtol=0)


def test_expectile_value_of_random_walks_is_the_shortest_path() -> None:
    chain = np.stack([np.minimum(np.arange(8) + 1, 7), np.maximum(np.arange(8) - 1, 0)], 1)
    true = shortest_paths(chain)
    head = head_on(world(8, 2), metric.Config(rule="expectile", body=FlatMLP(64, 1), expectile=0.95, decay=0.97))
    train(head, successors(chain), 800)
    found, pairs = distances(head, 8), ~np.eye(8, dtype=bool)
    assert spearmanr(found[pairs], true[pairs]).statistic > 0.97
    discounted = (1 - 0.98**true) / (1 - 0.98)
    assert np.abs(found[pairs] - discounted[pairs]).mean() < 0.8


def test_a_world_model_learns_the_way_around_a_wall_with_its_encoder() -> None:
    table, straight = two_rooms()
    true = shortest_paths(table)
    settings = quasimetric.QuasimetricConfig(FlatMLP(64, 1), out=32, far=15.0, symmetric=True)
    parent = world(30, metric=1.0, to_go=settings, std=0.0, cov=0.0, temporal=0.0, inverse=0.0)
    train(parent, successors(table), 600)
    found, across = distances(parent, 30), (np.arange(30)[:, None] < 15) & (np.arange(30) >= 15)
    assert spearmanr(found[across], true[across]).statistic > spearmanr(straight[across], true[across]).statistic + 0.1
    assert parent.encoder.layers[0].weight.grad.any()


def test_labels_are_asked_for_where_goals_have_the_same_label() -> None:
    settings = quasimetric.QuasimetricConfig(FlatMLP(8, 1), out=4, goals="label")
    with pytest.raises(ValueError, match="worldmodel needs label, which the data lack"):
        world(8, metric=1.0, to_go=settings)
    without = world(8, metric=0.0, to_go=settings)
    labelled = methods.build(replace(without.cfg, metric=1.0), replace(without.signal, classes=2))
    with pytest.raises(ValueError, match="but the batch has none; give labels"):
        labelled(successors(np.zeros((8, 4), dtype=np.int64))(0), Rng(0))


def test_the_multiplier_rises_while_steps_are_too_long_and_falls_after() -> None:
    parent = world(8, 2)
    head = head_on(parent, metric.Config(body=FlatMLP(16, 1), out=8))
    batch = successors(np.stack([np.minimum(np.arange(8) + 1, 7), np.maximum(np.arange(8) - 1, 0)], 1))(0)
    gradients = []
    for scale in (1e-3, 1e3):
        with torch.no_grad():
            head.body.layers[-1].weight.mul_(scale)
        head.zero_grad()
        head(batch, Rng(0)).total.backward()
        gradients.append(head.multiplier.grad.item())
    assert gradients[0] > 0 > gradients[1], "descent on a positive gradient lowers the multiplier"
    assert_close(torch.nn.functional.softplus(10 * head.multiplier).item(), quasimetric.START_MULTIPLIER)


@pytest.mark.parametrize("goals", ["batch", "label", "trajectory"])
def test_goals_come_from_the_samples_that_the_settings_allow(goals: Any) -> None:
    signal = replace(world(8, 2).signal, classes=2)
    parent = methods.build(world(8, 2).cfg, signal)
    head = methods.build(metric.Config(goals=goals, rule="expectile"), signal, parents=[parent])
    assert isinstance(head, Metric)
    batch = replace(successors(np.zeros((8, 2), dtype=np.int64))(0), label=torch.arange(32) % 2)
    rows = torch.stack([quasimetric.goal_rows(batch, STEPS + 1, goals, Rng(k)) for k in range(20)])
    sample, own = rows // (STEPS + 1), torch.arange(32)[:, None]
    if goals == "trajectory":
        assert bool((sample == own).all())
    if goals == "label":
        assert bool(((sample - own) % 2 == 0).all())
        unknown = replace(batch, label=torch.full((32,), -1))
        alone = quasimetric.goal_rows(unknown, STEPS + 1, goals, Rng(0)) // (STEPS + 1)
        assert bool((alone == own).all()), "samples without a label share none"
    if goals == "batch":
        assert len(sample.unique()) == 32
    rows = torch.stack([head._with_later_goals(batch, kept, Rng(k)) for k, kept in enumerate(rows)])
    later = (rows // (STEPS + 1) == own) & (rows % (STEPS + 1) > torch.arange(STEPS + 1))
    assert float(later[..., :-1].float().mean()) > 0.4


def test_a_distance_broadcasts_a_goal_over_paths() -> None:
    for rule in ("quasimetric", "expectile"):
        head = head_on(world(8, 2), metric.Config(rule=rule, body=FlatMLP(16, 1), out=8))  # type: ignore[arg-type]
        path, goal = torch.randn(3, 5, 4, 1, 8), torch.randn(3, 1, 1, 1, 8)
        found = head.steps_to_go(path, goal)
        assert found.shape == (3, 5, 4)
        assert_close(found[1, 2, 3], head.steps_to_go(path[1, 2, 3], goal[1, 0, 0]))


@pytest.mark.parametrize("body", [ConvReadout(8, 2, 16), AttentionReadout(8, 1, 2, hidden=16), FlatMLP(16, 1)])
def test_every_body_reads_grids_of_tokens(body: Any) -> None:
    signal = Signal(2, (STEPS + 1, 8, 8), action=ActionSpec(2))
    grid = Frames(CNN((2, 2), width=6, channels=(4,)), pool=False)
    parent = methods.build(worldmodel.Config(grid, ResidualMLP(8, 1), hidden=8), signal)
    head = methods.build(metric.Config(body=body, out=8), signal, parents=[parent])
    assert isinstance(head, Metric)
    x = torch.rand(3, 2, STEPS + 1, 8, 8)
    s = head.latents(Batch(x))
    assert s.shape == (3, STEPS + 1, 16, 6)
    head(Batch(x), Rng(0)).total.backward()
    assert all(p.grad is not None for p in head.parameters())


def test_convolutions_and_relative_attention_see_relations_not_places() -> None:
    maps = torch.zeros(2, 11, 11, 3)
    maps[0, 4, 4, 0] = maps[0, 4, 6, 1] = 1.0  # two things, two cells apart
    maps[1, 6, 4, 0] = maps[1, 6, 6, 1] = 1.0  # the same, two rows below
    tokens = maps.flatten(1, 2)
    for body in (ConvReadout(8, 2, 16), AttentionReadout(8, 2, 2, hidden=16)):
        network = body.build(3, 5, (11, 11)).double()
        one, other = network(tokens.double())
        near = ((one - other).abs().max() / one.abs().max()).item()
        assert near < (1e-9 if isinstance(body, ConvReadout) else 0.1)


# --- values


def reward_world(gamma: float = 0.8) -> tuple[WorldModel, np.ndarray]:
    """A chain of 6 states whose last one rewards, with a perfect model of it; and its values by value iteration."""
    chain = np.stack([np.minimum(np.arange(6) + 1, 5), np.maximum(np.arange(6) - 1, 0)], 1)
    parent = world(6, 2, reward=1.0)
    moves = torch.eye(6)[torch.from_numpy(chain)]  # (state, action, next state)

    class Chain(torch.nn.Module):
        remembers = False

        def start(self, tokens: Tensor) -> tuple[Tensor, ...]:
            return ()

        def forward(self, tokens: Tensor, action: Tensor, hidden: Any) -> Any:
            return torch.einsum("bns,ba,sat->bnt", tokens, action, moves), hidden

    class Last(torch.nn.Module):
        def forward(self, flat: Tensor) -> Tensor:
            return flat[..., 5:]

    parent.predictor, parent.reward_head = Chain(), Last()  # type: ignore[assignment]
    found = np.zeros(6)
    for _ in range(200):
        found = np.array([max(float(after == 5) + gamma * found[after] for after in chain[s]) for s in range(6)])
    return parent, found


def test_the_value_of_a_perfect_model_is_that_of_value_iteration() -> None:
    parent, true = reward_world()
    head = head_on(parent, value.Config(body=FlatMLP(32, 1), gamma=0.8, decay=0.9))
    assert isinstance(head, Value)
    chain = np.stack([np.minimum(np.arange(6) + 1, 5), np.maximum(np.arange(6) - 1, 0)], 1)
    train(head, successors(chain), 400)
    with torch.no_grad():
        found = head.value(torch.eye(6)[:, None]).double().numpy()
    assert np.abs(found - true).max() < 0.1 * true.max()


def test_a_value_stays_within_what_the_rewards_of_the_data_add_up_to() -> None:
    parent, _ = reward_world()
    head = head_on(parent, value.Config(body=FlatMLP(32, 1), gamma=0.8, decay=0.0))
    batch = successors(np.zeros((6, 1), dtype=np.int64))(0)
    head.calibrate(replace(batch, reward=torch.zeros(batch.action.shape[:2])))
    assert head.reward_high.isinf(), "rewards that are too rare to be seen bound nothing"
    head.calibrate(replace(batch, reward=torch.full(batch.action.shape[:2], 0.5)))
    with torch.no_grad():
        for weights in head.target_body.parameters():
            weights.fill_(50.0)
        _, target = head._targets_by_model(batch, Rng(0))
    assert float(target.max()) <= 1 + 0.8 * 0.5 / (1 - 0.8) + 1e-5


def test_the_value_of_logs_is_that_of_their_behaviour() -> None:
    parent, _ = reward_world()
    forward = np.minimum(np.arange(6) + 1, 5)[:, None]
    head = head_on(parent, value.Config(rule="logs", body=FlatMLP(32, 1), gamma=0.8, decay=0.9))

    def draw(step: int) -> Batch:
        batch = successors(forward)(step)
        arrived = batch.x[:, 5, 1:]
        return replace(batch, action=torch.eye(2)[torch.zeros(32, STEPS, dtype=torch.int64)], reward=arrived)

    train(head, draw, 400)
    with torch.no_grad():
        found = head.value(torch.eye(6)[:, None]).double().numpy()
    expected = 5 * 0.8 ** np.maximum(4 - np.arange(6), 0)  # 1 / (1 - gamma) from state 4 on
    assert np.abs(found - expected).max() < 0.5


def test_actions_to_try_are_within_the_bounds() -> None:
    u = torch.rand(5, 64, 4, generator=torch.Generator().manual_seed(0))
    torque = candidate_actions(ActionSpec(1, (-2.0,), (2.0,)), u[:, :9, :1])
    assert_close(torque[3, :, 0], torch.linspace(-2, 2, 9))
    assert_close(candidate_actions(ActionSpec(4, discrete=True), u)[2], torch.eye(4))
    blocks = candidate_actions(ActionSpec(4, max_norm=1.5, parts=2), u).reshape(5, 64, 2, 2)
    assert 1.4 < float(blocks.norm(dim=-1).max()) <= 1.5 + 1e-5


def test_a_value_needs_a_reward_head() -> None:
    with pytest.raises(ValueError, match=r"no reward head, .* train it with method\.reward 1, or set rule logs"):
        head_on(world(6, 2), value.Config())


def test_the_contract_holds_for_the_other_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    signal = Signal(3, (8,), action=ActionSpec(2), classes=2)
    for method, cfg in (
        (Metric, metric.Config(rule="expectile", goals="label", body=FlatMLP(32, 1))),
        (Value, value.Config(rule="logs", gamma=0.5, body=FlatMLP(32, 1))),
    ):
        monkeypatch.setattr(method.Config, "tiny", classmethod(lambda cls, signal, cfg=cfg: cfg))
        testing.contract(method, [signal])
