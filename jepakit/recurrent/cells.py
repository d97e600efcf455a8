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

from collections.abc import Sequence
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


class Run(NamedTuple):
    """Steps 1 … K with their derivatives, see Local; states are those after steps 0 … K."""

    states: Float[Tensor, "k1 n m b"]
    by_state: Float[Tensor, "k n m b b"]
    by_drive: Float[Tensor, "k n m b q"]


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
        weight, bias = self.weight, self.bias
        flat = torch.nn.functional.linear(x, weight.flatten(0, 1), bias.flatten())
        # Autocast makes the product bfloat16; a state that is carried on stays in the precision of the weights.
        return flat.view(*x.shape[:-1], *bias.shape).to(weight.dtype)

    def forward(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n m b"]:
        """The next state."""
        raise NotImplementedError

    def local(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Local:
        """The next state and its derivatives, to be called without a graph."""
        raise NotImplementedError

    def run(self, state: Float[Tensor, "n m b"], drives: Float[Tensor, "k n m q"]) -> Run:
        """K steps from `state`, to be called without a graph; `drives` may be written over."""
        if len(drives) == 1:
            new, by_state, by_drive = self.local(state, drives[0])
            return Run(torch.stack([state, new]), by_state[None], by_drive[None])
        states = [state]
        for drive in drives.unbind():
            states.append(self(states[-1], drive))
        path = torch.stack(states)
        return Run(path, *self.local(path[:-1], drives)[1:])

    def pull(self, g: Float[Tensor, "*n m k q"], state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n m k r"]:
        """From derivatives by all Q drives to those by `own`, at the state before."""
        raise NotImplementedError

    def out(self, state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n w"]:
        """What the circuit shows of its state."""
        return state.flatten(-2)

    def under(self, by_out: Float[Tensor, "*n w"]) -> Float[Tensor, "*n m b"]:
        """From a derivative by what the circuit shows to that by its state."""
        return by_out.reshape(*by_out.shape[:-1], self.blocks, self.block)

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
            one = self.block == 1
            drive = torch.addcmul(drive, self.own, state) if one else drive + (self._u() @ state[..., None])[..., 0]
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
        own = self.own[..., None].unbind(1) if self.block == 1 else ()
        return Local(torch.lerp(state, c, z), *self._by(state, c, z, own))

    def run(self, state: Float[Tensor, "n m b"], drives: Float[Tensor, "k n m q"]) -> Run:
        """See Cell; in place, and candidates and gates apart, so that neighbours in memory are alike."""
        if self.block > 1 or len(drives) == 1:
            return super().run(state, drives)
        pre, own = apart(drives), apart(self.own[None]) if self.coupled else None
        states = state.new_empty(len(drives) + 1, *state.shape)
        states[0] = state
        path, (c, z) = states.unbind(), pre.unbind(1)
        for now, new, both, a, g in zip(path, path[1:], pre.unbind(), c.unbind(), z.unbind(), strict=False):
            if own is not None:
                both.addcmul_(own, now)
            if not self.linear:
                a.tanh_()
            torch.lerp(now, a, g.sigmoid_(), out=new)
        return Run(states, *self._by(states[:-1], c, z, () if own is None else own.unbind()))

    def _by(self, state: Tensor, c: Tensor, z: Tensor, own: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The derivatives by the state before and by the drive; `own` are single units' weights, one by one."""
        each = z.new_empty(2, *z.shape)
        by_c, by_z = each.unbind()
        torch.addcmul(z, z * c, c, value=-1, out=by_c) if not self.linear else by_c.copy_(z)
        rest = torch.rsub(z, 1)
        torch.sub(c, state, out=by_z).mul_(z).mul_(rest)
        if self.block == 1:
            for by, u in zip((by_c, by_z), own, strict=False):
                rest.addcmul_(by, u)
            return rest[..., None], each.movedim(0, -1)
        # A drive enters its own unit alone: two diagonals side by side.
        by_drive = torch.cat([torch.diag_embed(by_c), torch.diag_embed(by_z)], -1)
        by_state = torch.diag_embed(rest)
        return by_state + by_drive @ self._u() if self.coupled else by_state, by_drive

    def pull(self, g: Float[Tensor, "*n m k q"], state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n m k r"]:
        """See Cell."""
        if not self.coupled:
            return g[..., :0]
        if self.block == 1:
            return g * state[..., None]
        return (g[..., None] * state[..., None, None, :]).flatten(-2)

    def gate(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n w"]:
        """The update gate z."""
        return torch.sigmoid(self._pre(state, drive)[1]).flatten(-2)


def apart(pairs: Float[Tensor, "*k n m 2"]) -> Float[Tensor, "*k 2 n m 1"]:
    """What belongs to candidates and what to gates, each together in memory."""
    return pairs.movedim(-1, -3).contiguous()[..., None]


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

    def under(self, by_out: Float[Tensor, "*n w"]) -> Float[Tensor, "*n m b"]:
        """See Cell."""
        return torch.nn.functional.pad(by_out[..., None], (0, 1))

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
