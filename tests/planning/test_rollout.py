import pytest
import torch
from costs import Point
from support import gaussian_noise
from torch import Tensor, nn
from torch.testing import assert_close

from jepakit.planning import expand_state, goal_distance, reward_energy, rollout_cost
from jepakit.planning.rollout import rollout
from jepakit.types import State


def noise(*shape: int, seed: int = 0) -> Tensor:
    return gaussian_noise(*shape, seed=seed).float()


class GRU(nn.Module):
    """A model with a hidden state: a GRU cell over actions, and a read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(2, 5), nn.Linear(5, 3)
        generator = torch.Generator().manual_seed(3)
        for p in self.parameters():
            nn.init.normal_(p, std=0.5, generator=generator)

    def step(self, state: State, action: Tensor) -> State:
        hidden = self.cell(action, state.hidden[0])
        return State(state.tokens + self.out(hidden)[:, None], (hidden,))


def test_a_path_begins_at_the_state_and_follows_the_model_row_by_row() -> None:
    model, actions = GRU(), noise(2, 4, 6, 2)
    start = State(noise(2, 1, 3, seed=1), (noise(2, 5, seed=2),))
    path = rollout(model.step, start, actions)
    assert path.shape == (2, 4, 7, 1, 3)
    for b in range(2):
        for s in range(4):
            state = State(start.tokens[b : b + 1], (start.hidden[0][b : b + 1],))
            assert_close(path[b, s, 0], state.tokens[0])
            for h in range(6):
                state = model.step(state, actions[b, s, h][None])
                assert_close(path[b, s, h + 1], state.tokens[0])


def test_an_expanded_state_holds_the_rows_of_an_episode_beside_each_other() -> None:
    state = expand_state(State(noise(2, 3, 4), (noise(2, 5),)), 3)
    assert state.tokens.shape == (6, 3, 4)
    assert_close(state.tokens[:3], state.tokens[:1].expand(3, 3, 4))
    assert_close(state.hidden[0][3:], state.hidden[0][3:4].expand(3, 5))


@pytest.mark.parametrize("limit", [1, 500, 3000])
def test_a_cost_in_chunks_is_the_cost_at_once_and_so_is_its_gradient(limit: int) -> None:
    model, actions = GRU(), noise(2, 7, 4, 2).requires_grad_()
    start = State(noise(2, 1, 3, seed=1), (noise(2, 5, seed=2).requires_grad_(),))
    energy = goal_distance(noise(2, 1, 3, seed=4))
    rows: list[int] = []

    def step(state: State, action: Tensor) -> State:
        rows.append(len(action))
        return model.step(state, action)

    at_once = rollout_cost(model.step, energy, start)(actions)
    in_chunks = rollout_cost(step, energy, start, memory_limit=limit)(actions)
    assert max(rows) <= max(2, limit // (5 * 3 * 4))
    assert_close(in_chunks, at_once)
    leaves = (actions, start.hidden[0])
    for a, b in zip(
        torch.autograd.grad(in_chunks.sum(), leaves), torch.autograd.grad(at_once.sum(), leaves), strict=True
    ):
        assert_close(a, b)
        assert a.abs().min() > 0


def test_the_gradient_through_a_rollout_is_that_of_finite_differences() -> None:
    model = GRU().double()
    start = State(noise(1, 1, 3, seed=1).double(), (noise(1, 5, seed=2).double(),))
    cost = rollout_cost(model.step, goal_distance(noise(1, 1, 3, seed=4).double(), "cosine"), start)
    assert torch.autograd.gradcheck(cost, noise(1, 2, 3, 2).double().requires_grad_())


def test_a_cost_builds_no_graph_where_nobody_asks_for_gradients() -> None:
    cost = rollout_cost(GRU().step, goal_distance(noise(2, 1, 3)), State(noise(2, 1, 3), (noise(2, 5),)))
    assert not cost(noise(2, 4, 3, 2)).requires_grad
    assert cost(noise(2, 4, 3, 2).requires_grad_()).requires_grad


def test_the_cost_of_a_linear_model_at_its_optimum_is_riccatis() -> None:
    x0 = torch.tensor([[1.0, -0.5], [0.3, 2.0]])
    cost = rollout_cost(Point.step, Point.energy, State(x0[:, None]))
    best = [Point.best(x, 6) for x in x0]
    found = cost(torch.stack([actions for actions, _ in best])[:, None])[:, 0]
    # The recursion's cost counts the present state once, the rollout's does not.
    wanted = torch.stack([value for _, value in best])
    assert_close(found, wanted)
    for nudge in (0.05, -0.05):
        assert (cost(torch.stack([actions + nudge for actions, _ in best])[:, None])[:, 0] > found).all()


def test_a_return_counts_the_rewards_until_an_episode_is_over() -> None:
    path = torch.arange(5.0).reshape(1, 1, 5, 1, 1)
    actions = torch.zeros(1, 1, 4, 1)

    def reward(tokens: Tensor) -> Tensor:
        return tokens.sum((-2, -1))

    assert_close(reward_energy(reward, gamma=1.0)(path, actions), torch.tensor([[-10.0]]))
    assert_close(reward_energy(reward, gamma=0.5)(path, actions), torch.tensor([[-(1 + 1 + 0.75 + 0.5)]]))
    assert_close(reward_energy(reward, reward, gamma=0.5)(path, actions), torch.tensor([[-(3.25 + 4 / 16)]]))

    def ends_at_two(tokens: Tensor) -> Tensor:
        return torch.where(tokens.sum((-2, -1)) == 2, 100.0, -100.0)

    assert_close(reward_energy(reward, reward, ends_at_two, gamma=1.0)(path, actions), torch.tensor([[-3.0]]))
