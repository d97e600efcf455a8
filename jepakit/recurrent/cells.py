"""Recurrent gated circuits, in which the past of a unit reaches only the unit itself, or only its own block.

Every circuit has m blocks of b numbers, its state (…, m, b). Q numbers drive a block, linear in the input x of d
features and in the block's own past:

    drive = W x + bias (the first of the Q) and own · past            state' = F(state, drive), the same F in each block

gated       c = φ(a), z = σ(g), h' = (1 − z) h + z c; a, g = W x + bias + U h, two drives per unit
            block 1 is the gated unit with elementwise U, block n the dense one (a GRU without reset gate), φ = tanh
mingru      the same with U = 0 and φ = id: Feng et al. 2024, arXiv:2410.01201
reciprocal  h' = f((1 − σ(w_ch c)) x' + (1 − σ(w_hh h)) h), c' = f((1 − σ(w_hc h)) x' + (1 − σ(w_cc c)) c), x' = W x +
            bias, f = tanh: after Nayebi et al. 2018, arXiv:1807.00053, with gates one to one
memoryless  h' = tanh(W x + bias): what the gated unit is for z = 1

z = 1 lets the input pass in the same step, z = 0 keeps the past. `Local` holds the explicit derivatives that recurrent
forward propagation needs (rfp.py); back-propagation through time differentiates `forward`. We do not know which circuit
the R-JEPA paper (arXiv:2411.16695) uses: these have the properties that it names.
"""

from collections.abc import Sequence
from math import sqrt
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

Kind = Literal["gated", "mingru", "reciprocal", "dense", "memoryless"]


class Local(NamedTuple):
    """The next state, and its derivatives by the previous state (through the block's drives too) and by the drive."""

    state: Float[Tensor, "*n m b"]
    by_state: Float[Tensor, "*n m b b"]
    by_drive: Float[Tensor, "*n m b q"]


class Run(NamedTuple):
    """The states after steps 0 … K, and the derivatives of steps 1 … K, as in `Local`."""

    states: Float[Tensor, "k1 n m b"]
    by_state: Float[Tensor, "k n m b b"]
    by_drive: Float[Tensor, "k n m b q"]


class Cell(nn.Module):
    """A circuit with `width` outputs: weight (m, q, d) and bias (m, q) act on its input, own (m, r) on its past.

    `blocks` and `block` are m and b; the first q of the Q drives receive the input. Leading axes are rows: samples and
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
        # A parameter even if it is empty, so that every circuit has the same three.
        self.own = nn.Parameter(torch.empty(blocks, r).uniform_(-recurrent, recurrent), requires_grad=r > 0)

    @property
    def width(self) -> int:
        """The number of outputs."""
        raise NotImplementedError

    def start(self, rows: int) -> Float[Tensor, "rows m b"]:
        """The state before any input, zeros (rows, m, b)."""
        return self.weight.new_zeros(rows, self.blocks, self.block)

    def drive(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n m q"]:
        """The input's part of the drives."""
        weight, bias = self.weight, self.bias
        flat = torch.nn.functional.linear(x, weight.flatten(0, 1), bias.flatten())
        # Autocast makes the product bfloat16; a state that is carried along keeps the precision of the weights.
        return flat.view(*x.shape[:-1], *bias.shape).to(weight.dtype)

    def forward(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n m b"]:
        """The next state."""
        raise NotImplementedError

    def local(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Local:
        """The next state and its derivatives; call it without a graph."""
        raise NotImplementedError

    def run(self, state: Float[Tensor, "n m b"], drives: Float[Tensor, "k n m q"]) -> Run:
        """K steps from `state`; call it without a graph. `drives` may be overwritten."""
        if len(drives) == 1:
            new, by_state, by_drive = self.local(state, drives[0])
            return Run(torch.stack([state, new]), by_state[None], by_drive[None])
        states = [state]
        for drive in drives.unbind():
            states.append(self(states[-1], drive))
        path = torch.stack(states)
        return Run(path, *self.local(path[:-1], drives)[1:])

    def pull(self, g: Float[Tensor, "*n m k q"], state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n m k r"]:
        """The derivatives by `own`, from those by all Q drives, at the previous state."""
        raise NotImplementedError

    def out(self, state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n w"]:
        """The visible output of a state."""
        return state.flatten(-2)

    def state_gradient(self, by_out: Float[Tensor, "*n w"]) -> Float[Tensor, "*n m b"]:
        """The derivative by the state, from the derivative by the output."""
        return by_out.reshape(*by_out.shape[:-1], self.blocks, self.block)

    def gate(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n w"]:
        """How open each unit is to its input: 1 passes the input, 0 keeps the past."""
        raise NotImplementedError


class Gated(Cell):
    """h' = (1 − z) h + z φ(a), as in the module's docstring. Raises ValueError if blocks do not tile the width."""

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
        """The number of outputs."""
        return self.blocks * self.block

    def _pre_activations(self, state: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        if self.coupled:
            one = self.block == 1
            drive = (
                torch.addcmul(drive, self.own, state)
                if one
                else drive + (self._own_matrix() @ state[..., None])[..., 0]
            )
        a, g = drive.chunk(2, -1)
        return a, g

    def _own_matrix(self) -> Float[Tensor, "m q b"]:
        return self.own.reshape(self.blocks, 2 * self.block, self.block)

    def forward(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n m b"]:
        """The next state."""
        a, g = self._pre_activations(state, drive)
        return torch.lerp(state, a if self.linear else torch.tanh(a), torch.sigmoid(g))

    def local(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Local:
        """The next state and its derivatives; call it without a graph."""
        a, g = self._pre_activations(state, drive)
        c, z = a if self.linear else torch.tanh(a), torch.sigmoid(g)
        own = self.own[..., None].unbind(1) if self.block == 1 else ()
        return Local(torch.lerp(state, c, z), *self._derivatives(state, c, z, own))

    def run(self, state: Float[Tensor, "n m b"], drives: Float[Tensor, "k n m q"]) -> Run:
        """K steps in place, see `Cell.run`; candidates and gates are stored apart, so that memory is contiguous."""
        if self.block > 1 or len(drives) == 1:
            return super().run(state, drives)
        pre, own = split_pairs(drives), split_pairs(self.own[None]) if self.coupled else None
        states = state.new_empty(len(drives) + 1, *state.shape)
        states[0] = state
        path, (c, z) = states.unbind(), pre.unbind(1)
        for now, new, both, a, g in zip(path, path[1:], pre.unbind(), c.unbind(), z.unbind(), strict=False):
            if own is not None:
                both.addcmul_(own, now)
            if not self.linear:
                a.tanh_()
            torch.lerp(now, a, g.sigmoid_(), out=new)
        return Run(states, *self._derivatives(states[:-1], c, z, () if own is None else own.unbind()))

    def _derivatives(self, state: Tensor, c: Tensor, z: Tensor, own: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The derivatives by the previous state and by the drive; `own` are the weights of single units, if any."""
        each = z.new_empty(2, *z.shape)
        by_c, by_z = each.unbind()
        torch.addcmul(z, z * c, c, value=-1, out=by_c) if not self.linear else by_c.copy_(z)
        rest = torch.rsub(z, 1)
        torch.sub(c, state, out=by_z).mul_(z).mul_(rest)
        if self.block == 1:
            for by, u in zip((by_c, by_z), own, strict=False):
                rest.addcmul_(by, u)
            return rest[..., None], each.movedim(0, -1)
        # A drive enters only its own unit: two diagonals side by side.
        by_drive = torch.cat([torch.diag_embed(by_c), torch.diag_embed(by_z)], -1)
        by_state = torch.diag_embed(rest)
        return by_state + by_drive @ self._own_matrix() if self.coupled else by_state, by_drive

    def pull(self, g: Float[Tensor, "*n m k q"], state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n m k r"]:
        """The derivatives by `own`, from those by all Q drives, at the previous state."""
        if not self.coupled:
            return g[..., :0]
        if self.block == 1:
            return g * state[..., None]
        return (g[..., None] * state[..., None, None, :]).flatten(-2)

    def gate(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n w"]:
        """The update gate z."""
        return torch.sigmoid(self._pre_activations(state, drive)[1]).flatten(-2)


def split_pairs(pairs: Float[Tensor, "*k n m 2"]) -> Float[Tensor, "*k 2 n m 1"]:
    """The entries for candidates and those for gates, each contiguous in memory."""
    return pairs.movedim(-1, -3).contiguous()[..., None]


class Reciprocal(Cell):
    """Two numbers per unit, a visible h and a hidden c, each of which gates the other; see the module's docstring."""

    block = 2

    def __init__(self, inputs: int, width: int, scale: float = 1.0, recurrent: float = 1.0) -> None:
        super().__init__(inputs, width, 1, 4, scale, recurrent)

    @property
    def width(self) -> int:
        """The number of outputs."""
        return self.blocks

    def out(self, state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n w"]:
        """The visible output of a state."""
        return state[..., 0]

    def state_gradient(self, by_out: Float[Tensor, "*n w"]) -> Float[Tensor, "*n m b"]:
        """The derivative by the state, from the derivative by the output."""
        return torch.nn.functional.pad(by_out[..., None], (0, 1))

    def _gate_inputs(self, state: Tensor) -> Tensor:
        """The inputs of the four gates w_ch, w_hh, w_hc, w_cc: c, h, h, c."""
        return state[..., [1, 0, 0, 1]]

    def forward(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n m b"]:
        """The next state."""
        keep = torch.sigmoid(-self.own * self._gate_inputs(state))
        return torch.tanh(keep[..., [0, 2]] * drive + keep[..., [1, 3]] * state)

    def local(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Local:
        """The next state and its derivatives; call it without a graph."""
        keep = torch.sigmoid(-self.own * self._gate_inputs(state))
        new = torch.tanh(keep[..., [0, 2]] * drive + keep[..., [1, 3]] * state)
        slope = 1 - new * new
        # A gate's drive w · past lowers the quantity it scales: x' for the first and third, h or c for the others.
        bent = -keep * (1 - keep) * torch.stack([drive[..., 0], state[..., 0], drive[..., 0], state[..., 1]], -1)
        zero = torch.zeros_like(drive[..., 0])
        of_h = torch.stack([keep[..., 0], bent[..., 0], bent[..., 1], zero, zero], -1)
        of_c = torch.stack([keep[..., 2], zero, zero, bent[..., 2], bent[..., 3]], -1)
        by_drive = slope[..., None] * torch.stack([of_h, of_c], -2)
        gates = by_drive[..., 1:] * self.own[:, None]
        by_state = torch.stack([gates[..., 1] + gates[..., 2], gates[..., 0] + gates[..., 3]], -1)
        return Local(new, by_state + torch.diag_embed(slope * keep[..., [1, 3]]), by_drive)

    def pull(self, g: Float[Tensor, "*n m k q"], state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n m k r"]:
        """The derivatives by `own`, from those by all Q drives, at the previous state."""
        return g[..., 1:] * self._gate_inputs(state)[..., None, :]

    def gate(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n w"]:
        """How much of the input enters h."""
        return torch.sigmoid(-self.own[:, 0] * state[..., 1])


class Memoryless(Cell):
    """h' = tanh(W x + bias): no past, for comparison."""

    block = 1
    remembers = False

    def __init__(self, inputs: int, width: int, scale: float = 1.0) -> None:
        super().__init__(inputs, width, 1, 0, scale, 0.0)

    @property
    def width(self) -> int:
        """The number of outputs."""
        return self.blocks

    def forward(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n m b"]:
        """The next state."""
        return torch.tanh(drive)

    def local(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Local:
        """The next state and its derivatives; call it without a graph."""
        new = torch.tanh(drive)
        return Local(new, torch.zeros_like(new)[..., None], (1 - new * new)[..., None])

    def pull(self, g: Float[Tensor, "*n m k q"], state: Float[Tensor, "*n m b"]) -> Float[Tensor, "*n m k r"]:
        """The derivatives by `own`, from those by all Q drives, at the previous state."""
        return g[..., :0]

    def gate(self, state: Float[Tensor, "*n m b"], drive: Float[Tensor, "*n m q"]) -> Float[Tensor, "*n w"]:
        """Always open."""
        return torch.ones_like(drive).flatten(-2)
