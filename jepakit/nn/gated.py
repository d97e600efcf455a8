"""Recurrent gated circuits: units whose own past enters only themselves, or only the block that they belong to.

Every circuit has m blocks of b numbers, its state (…, m, b). What drives a block are Q numbers, linear in the input x
of d features and in the block's own past:

    drive = W x + bias (the first of the Q) and own · past            state' = F(state, drive), the same F in each block

gated       c = φ(a), z = σ(g), h' = (1 − z) h + z c; a, g = W x + bias + U h, two drives per unit
            block 1 is the gated unit with elementwise U, block n the dense one (a GRU without reset gate), φ = tanh
mingru      the same with U = 0 and φ = id: Feng et al. 2024, arXiv:2410.01201
reciprocal  h' = f((1 − σ(w_ch c)) x' + (1 − σ(w_hh h)) h), c' = f((1 − σ(w_hc h)) x' + (1 − σ(w_cc c)) c), x' = W x +
            bias, f = tanh: after Nayebi et al. 2018, arXiv:1807.00053, with gates one to one
memoryless  h' = tanh(W x + bias): what the gated unit is for z = 1

z = 1 lets the input pass in the same step, z = 0 keeps the past. `Local` holds the derivatives, written out, that
recurrent forward propagation needs (rfp.py); `forward` is what back-propagation through time differentiates.
Which circuit the R-JEPA paper (arXiv:2411.16695) uses is not known to us: these have the properties that it names.
"""

from math import sqrt
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

Kind = Literal["gated", "mingru", "reciprocal", "dense", "memoryless"]


class Local(NamedTuple):
    """The next state and its derivatives: by the state before (through the block's own drives too), by the drive."""

    state: Float[Tensor, "*n m b"]
    by_state: Float[Tensor, "*n m b b"]
    by_drive: Float[Tensor, "*n m b q"]


class Cell(nn.Module):
    """A circuit with weight (m, q, d) and bias (m, q) on its input, own (m, r) on its past, of `width` outputs.

    `blocks` and `block` are m and b; the first q of the Q drives receive the input. Leading axes are rows: samples, and
    positions of a map.
    """

    blocks: int
    block: int
    remembers: ClassVar[bool] = True

    def __init__(self, inputs: int, blocks: int, q: int, r: int, scale: float, recurrent: float) -> None:
        super().__init__()
        self.blocks = blocks
        bound = scale / sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(blocks, q, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(blocks, q))
        # Kept as a parameter where it is empty too, so that every circuit has the same three.
        self.own = nn.Parameter(torch.empty(blocks, r).uniform_(-recurrent, recurrent), requires_grad=r > 0)

    @property
    def width(self) -> int:
        """How many outputs."""
        raise NotImplementedError

    def start(self, rows: int) -> Float[Tensor, "rows m b"]:
        """The state before any input: zeros."""
        return self.weight.new_zeros(rows, self.blocks, self.block)

    def drive(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n m q"]:
        """What the input gives to the drives."""
        flat = torch.nn.functional.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
        # Autocast makes the product bfloat16; a state that is carried on stays in the precision of the weights.
        return flat.reshape(*x.shape[:-1], *self.bias.shape).to(self.weight.dtype)

    def forward(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n m b"]:
        """The next state."""
        raise NotImplementedError

    def local(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Local:
        """The next state and its derivatives."""
        raise NotImplementedError

    def pull(self, g: Float[Tensor, "*n m k q"], state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n m k r"]:
        """From derivatives by all Q drives to those by `own`, at the state before."""
        raise NotImplementedError

    def out(self, state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n w"]:
        """What the circuit shows of its state."""
        return state.flatten(-2)

    def gate(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n w"]:
        """How open each unit is to its input: 1 passes it, 0 keeps the past."""
        raise NotImplementedError


class Gated(Cell):
    """h' = (1 − z) h + z φ(a): see the module. Raises ValueError where blocks do not tile the width."""

    def __init__(
        self,
        inputs: int,
        width: int,
        block: int = 1,
        own: bool = True,
        scale: float = 1.0,
        recurrent: float = 1.0,
        linear: bool = False,
    ) -> None:
        if width % block:
            raise ValueError(f"block is {block}, which does not divide the width {width}; give a divisor")
        self.block, self.linear, self.coupled = block, linear, own
        # Half the drives are for the candidate a, half for the gate g.
        r = 2 * block * block if own else 0
        super().__init__(inputs, width // block, 2 * block, r, scale, recurrent / sqrt(block))

    @property
    def width(self) -> int:
        """See Cell."""
        return self.blocks * self.block

    def _pre(self, state: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        if self.coupled:
            if self.block == 1:
                drive = torch.addcmul(drive, self.own, state)
            else:
                drive = drive + (self._u() @ state[..., None])[..., 0]
        a, g = drive.chunk(2, -1)
        return a, g

    def _u(self) -> Float[Tensor, "m q b"]:
        return self.own.reshape(self.blocks, 2 * self.block, self.block)

    def forward(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n m b"]:
        """See Cell."""
        a, g = self._pre(state, drive)
        return torch.lerp(state, a if self.linear else torch.tanh(a), torch.sigmoid(g))

    def local(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Local:
        """See Cell."""
        a, g = self._pre(state, drive)
        c, z = a if self.linear else torch.tanh(a), torch.sigmoid(g)
        new, rest = torch.lerp(state, c, z), 1 - z
        by_c = z if self.linear else torch.addcmul(z, z * c, c, value=-1)
        by_z = (c - state) * z * rest
        by_drive = torch.stack([by_c, by_z], -1)
        if self.block == 1:
            own = (by_drive[..., 0, :] * self.own).sum(-1, keepdim=True) if self.coupled else 0
            return Local(new, (rest + own)[..., None], by_drive)
        # A drive enters its own unit alone: two diagonals side by side.
        by_drive = torch.cat([torch.diag_embed(by_c), torch.diag_embed(by_z)], -1)
        by_state = torch.diag_embed(rest)
        return Local(new, by_state + by_drive @ self._u() if self.coupled else by_state, by_drive)

    def pull(self, g: Float[Tensor, "*n m k q"], state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n m k r"]:
        """See Cell."""
        if not self.coupled:
            return g[..., :0]
        return (g[..., None] * state[..., None, None, :]).flatten(-2)

    def gate(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n w"]:
        """The update gate z."""
        return torch.sigmoid(self._pre(state, drive)[1]).flatten(-2)


class Reciprocal(Cell):
    """Two numbers per unit, h which is shown and c which is not, each of which gates the other: see the module."""

    block = 2

    def __init__(self, inputs: int, width: int, scale: float = 1.0, recurrent: float = 1.0) -> None:
        super().__init__(inputs, width, 1, 4, scale, recurrent)

    @property
    def width(self) -> int:
        """See Cell."""
        return self.blocks

    def out(self, state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n w"]:
        """See Cell."""
        return state[..., 0]

    def _past(self, state: Tensor) -> Tensor:
        """What each of the four gates w_ch, w_hh, w_hc, w_cc reads: c, h, h, c."""
        return state[..., [1, 0, 0, 1]]

    def forward(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n m b"]:
        """See Cell."""
        keep = torch.sigmoid(-self.own * self._past(state))
        return torch.tanh(keep[..., [0, 2]] * drive + keep[..., [1, 3]] * state)

    def local(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Local:
        """See Cell."""
        keep = torch.sigmoid(-self.own * self._past(state))
        new = torch.tanh(keep[..., [0, 2]] * drive + keep[..., [1, 3]] * state)
        slope = 1 - new * new
        # A gate's drive w · past lowers what it scales: x' for the first and third, h or c for the others.
        bent = -keep * (1 - keep) * torch.stack([drive[..., 0], state[..., 0], drive[..., 0], state[..., 1]], -1)
        zero = torch.zeros_like(drive[..., 0])
        of_h = torch.stack([keep[..., 0], bent[..., 0], bent[..., 1], zero, zero], -1)
        of_c = torch.stack([keep[..., 2], zero, zero, bent[..., 2], bent[..., 3]], -1)
        by_drive = slope[..., None] * torch.stack([of_h, of_c], -2)
        gates = by_drive[..., 1:] * self.own[:, None]
        by_state = torch.stack([gates[..., 1] + gates[..., 2], gates[..., 0] + gates[..., 3]], -1)
        return Local(new, by_state + torch.diag_embed(slope * keep[..., [1, 3]]), by_drive)

    def pull(self, g: Float[Tensor, "*n m k q"], state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n m k r"]:
        """See Cell."""
        return g[..., 1:] * self._past(state)[..., None, :]

    def gate(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n w"]:
        """How much of the input h lets in."""
        return torch.sigmoid(-self.own[:, 0] * state[..., 1])


class Memoryless(Cell):
    """h' = tanh(W x + bias): no past, for comparison."""

    block = 1
    remembers = False

    def __init__(self, inputs: int, width: int, scale: float = 1.0) -> None:
        super().__init__(inputs, width, 1, 0, scale, 0.0)

    @property
    def width(self) -> int:
        """See Cell."""
        return self.blocks

    def forward(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n m b"]:
        """See Cell."""
        return torch.tanh(drive)

    def local(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Local:
        """See Cell."""
        new = torch.tanh(drive)
        return Local(new, torch.zeros_like(new)[..., None], (1 - new * new)[..., None])

    def pull(self, g: Float[Tensor, "*n m k q"], state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n m k r"]:
        """See Cell."""
        return g[..., :0]

    def gate(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n w"]:
        """Always open."""
        return torch.ones_like(drive).flatten(-2)
