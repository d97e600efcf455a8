"""Where planning fails: walls that a model lets through."""

from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor


class Ghosting(NamedTuple):
    """How many of P movements push against the wall after each of T steps, and the share of these that go through.

    The share is NaN where nothing pushes.
    """

    share: Float[Tensor, " t"]
    pushes: Int64[Tensor, " t"]


def ghosting(
    position: Float[Tensor, "p t1 k"],
    predicted: Float[Tensor, "p t1 k"],
    action: Float[Tensor, "p t k"],
    wall: Float[Tensor, " p"],
    axis: int = 0,
    margin: float = 0.0,
) -> Ghosting:
    """The share of pushes against a wall that a model lets through.

    `position` holds the true positions of P movements over T steps and `predicted` those read from a model's latents,
    from the start on; `action` are the displacements that were asked for, and a wall crosses `axis` at `wall`. A
    movement pushes at a step if it would be `margin` beyond the wall, had nothing stopped it, and has truly stayed on
    its side.
    The model lets it through if it predicts a position on the other side.
    """
    side = (position[:, :1, axis] - wall[:, None]).sign()
    free = position[:, :1, axis] + action[..., axis].cumsum(1)
    stays = ((position[:, 1:, axis] - wall[:, None]) * side > 0).long().cumprod(1).bool()
    pushes = stays & ((free - wall[:, None]) * side < -margin)
    through = pushes & ((predicted[:, 1:, axis] - wall[:, None]) * side < 0)
    return Ghosting(through.sum(0) / pushes.sum(0), pushes.sum(0))
