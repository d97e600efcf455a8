"""Rolling a model out over candidate actions: the only glue between a model and a planner."""

from collections.abc import Callable
from typing import Final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..types import State
from .energy import Energy
from .plan import Cost

Step = Callable[[State, Tensor], State]
"""A state of R rows and an action (R, A) to the state that follows."""

CACHE_LIMIT: Final = 2**19
"""Bytes of tokens that a processor steps at once: about what leaves the activations of a step in its cache."""

MEMORY_LIMIT: Final = 2**30
"""Bytes of path that an accelerator computes at once."""


def expand_state(state: State, samples: int) -> State:
    """The state (B, …) with each row `samples` times (B · samples, …), those of one episode beside each other."""
    return State(expand_rows(state.tokens, samples), tuple(expand_rows(part, samples) for part in state.hidden))


def rollout(step: Step, state0: State, actions: Float[Tensor, "b s h a"]) -> Float[Tensor, "b s t n d"]:
    """The path (B, S, H + 1, N, D) of tokens from the state of each episode (B rows), under S rows of H actions each.

    It begins with the tokens of `state0`. Differentiable with respect to the actions.
    """
    batch, samples, horizon, _ = actions.shape
    state = expand_state(state0, samples)
    tokens = [state.tokens]
    for h in range(horizon):
        state = step(state, actions[:, :, h].flatten(0, 1))
        tokens.append(state.tokens)
    return torch.stack(tokens).reshape(horizon + 1, batch, samples, *tokens[0].shape[1:]).movedim(0, 2)


def rollout_cost(step: Step, energy: Energy, state0: State, memory_limit: int | None = None) -> Cost:
    """What the energy says of actions (B, S, H, A), rolled out from the states of B episodes.

    The states are encoded, once for all iterations of a search. Samples are rolled out in chunks whose paths take about
    `memory_limit` bytes, at least one sample per episode. None is MEMORY_LIMIT; on a processor, where small chunks are
    faster, it is what CACHE_LIMIT says. Gradients recompute a chunk instead of keeping it, so without a limit they use
    MEMORY_LIMIT. How samples are cut changes results by rounding alone.
    """
    per_row = state0.tokens[0].numel() * state0.tokens.element_size()

    def whole(actions: Tensor) -> Tensor:
        return energy(rollout(step, state0, actions), actions)

    def cost(actions: Tensor) -> Tensor:
        return cost_in_chunks(whole, actions, per_row, memory_limit)

    return cost


def expand_rows(value: Shaped[Tensor, "b ..."], samples: int) -> Shaped[Tensor, "_ ..."]:
    """Each row `samples` times, copies beside each other."""
    return value[:, None].expand(-1, samples, *value.shape[1:]).flatten(0, 1)


def cost_in_chunks(
    whole: Cost, actions: Float[Tensor, "b s h a"], per_row: int, memory_limit: int | None
) -> Float[Tensor, "b s"]:
    """The cost of all samples, in chunks; the state of one row takes `per_row` bytes."""
    batch, _, horizon, _ = actions.shape
    with torch.set_grad_enabled(actions.requires_grad and torch.is_grad_enabled()):
        chunk = (memory_limit or MEMORY_LIMIT) // (batch * (horizon + 1) * per_row)
        if memory_limit is None and actions.device.type == "cpu" and not torch.is_grad_enabled():
            chunk = min(chunk, CACHE_LIMIT // (batch * per_row))
        chunks = torch.split(actions, max(chunk, 1), 1)
        if len(chunks) == 1:
            return whole(actions)
        if not torch.is_grad_enabled():
            return torch.cat([whole(part) for part in chunks], 1)
        parts = [checkpoint(whole, part, use_reentrant=False, preserve_rng_state=False) for part in chunks]
        return torch.cat(parts, 1)
