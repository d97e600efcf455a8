"""The actions that an environment allows: within their bounds, none too long, choices one-hot."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..types import ActionSpec


def project(actions: Float[Tensor, "*batch a"], spec: ActionSpec) -> Float[Tensor, "*batch a"]:
    """The allowed actions nearest to these: each part no longer than `max_norm`, every number within its bounds.

    One that is too long keeps its direction. NaN becomes zero and infinity a large number first. Choices become
    one-hot, at the largest entry. Raises ValueError if the action has another size, or if the bounds exclude zero where
    lengths are bounded: an action may then be both too long and too short.
    """
    if actions.shape[-1] != spec.size:
        raise ValueError(f"actions have {actions.shape[-1]} numbers where the environment takes {spec.size}")
    actions = actions.nan_to_num()
    if spec.discrete:
        return F.one_hot(actions.argmax(-1), spec.size).to(actions.dtype)
    if spec.max_norm is not None:
        if any(low > 0 for low in spec.low) or any(high < 0 for high in spec.high):
            raise ValueError(
                f"max_norm is {spec.max_norm} and the bounds exclude zero; give bounds around zero, or no norm"
            )
        actions = _shorten(actions, spec.parts, spec.max_norm)
    if spec.low:
        actions = torch.maximum(actions, actions.new_tensor(spec.low))
    if spec.high:
        actions = torch.minimum(actions, actions.new_tensor(spec.high))
    return actions


def _shorten(actions: Tensor, parts: int, most: float) -> Tensor:
    """Actions whose parts are at most `most` long."""
    each = actions.reshape(*actions.shape[:-1], parts, actions.shape[-1] // parts)
    # The largest number goes first, so that no square overflows; the sum in order does not depend on the batch.
    largest = each.abs().amax(-1, keepdim=True).clamp_min(most)
    length = largest * sum(a * a for a in (each / largest).unbind(-1)).sqrt()[..., None]  # type: ignore[union-attr]
    return (each * (most / length.clamp_min(most))).reshape(actions.shape)
