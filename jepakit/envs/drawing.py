"""Shapes as the share of every pixel that they cover, drawn for a whole batch at once."""

import torch
from jaxtyping import Float
from torch import Tensor


def thick_lines(
    start: Float[Tensor, "b 2"], end: Float[Tensor, "b 2"], radius: float, size: int, extent: float
) -> Float[Tensor, "b h w"]:
    """Lines with round ends, as pictures (B, size, size) in [0, 1].

    Points are (x, y), with y upward, in units; the picture shows [-extent, extent] on both axes. A pixel's value falls
    from 1 to 0 over one pixel at the edge.
    """
    pixel = 2 * extent / size
    centres = (torch.arange(size, device=start.device) + 0.5) * pixel - extent
    x, y = centres[None, None, :], -centres[None, :, None]
    (ax, ay), (bx, by) = (p.float()[:, :, None, None].unbind(1) for p in (start, end))
    dx, dy = bx - ax, by - ay
    along = ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy).clamp(min=1e-12)
    along = along.clamp(0, 1)
    across = ((x - ax - along * dx).square() + (y - ay - along * dy).square()).sqrt()
    return ((radius - across) / pixel + 0.5).clamp(0, 1)


def paint(shapes: list[Float[Tensor, "b h w"]], colours: list[tuple[float, float, float]]) -> Float[Tensor, "b 3 h w"]:
    """Shapes in their colours on white, the later over the earlier."""
    picture = torch.ones_like(shapes[0])[:, None].expand(-1, 3, -1, -1)
    for shape, colour in zip(shapes, colours, strict=True):
        cover = shape[:, None]
        picture = picture * (1 - cover) + cover * picture.new_tensor(colour)[:, None, None]
    return picture
