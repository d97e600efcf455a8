"""A state that is the latent of a frame: encoded from frames, and imagined from actions by a predictor.

    s_t = norm(f(x_t) [+ P(proprio_t)])           the latent of frame t, N tokens of D features
    ŝ_{t+1} = norm(g(ŝ_t, a_t))                   the latent that the predictor imagines after an action

What the predictor g carries, such as past latents and past actions, is `State.hidden`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..nn.dynamics import Dynamics, Hidden
from ..nn.encoder import Encoder
from ..types import Batch, State
from .base import Weights
from .predictive import Predictive


class LatentWorld(Predictive):
    """What a method with an encoder of frames and a predictor with actions computes; it builds both and learns them.

    `cfg.steps` is the length of a roll-out, and `cfg.norm` says whether latents are normalised. Without a target
    encoder the encoder takes its place. `proprio` is the number of values that `embed_proprio` reads beside each frame.
    """

    cfg: Any
    encoder: Encoder
    target_encoder: nn.Module | None
    predictor: Dynamics
    embed_proprio: nn.Linear | None
    proprio: int
    action_mean: Tensor
    action_std: Tensor
    proprio_mean: Tensor
    proprio_std: Tensor

    # --- from frames to latents

    def normalize_latent(self, tokens: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Tokens as the loss compares them: at zero mean and unit variance over features if `norm` is set."""
        return F.layer_norm(tokens, tokens.shape[-1:]) if self.cfg.norm else tokens

    def normalize_action(self, action: Float[Tensor, "*b a"]) -> Float[Tensor, "*b a"]:
        """Actions in standard units."""
        return (action - self.action_mean) / self.action_std

    def latents(self, batch: Batch, weights: Weights = "context") -> Float[Tensor, "b t n d"]:
        """The latent of every frame of raw samples."""
        encoder = self.encoder if weights == "context" or self.target_encoder is None else self.target_encoder
        x = self.normalize(batch.x)
        tokens: Tensor = encoder(x)
        tokens = tokens.reshape(len(x), x.shape[2], -1, tokens.shape[-1])
        if self.embed_proprio is not None:
            if batch.proprio is None or batch.proprio.shape[1:] != (x.shape[2], self.proprio):
                found = None if batch.proprio is None else tuple(batch.proprio.shape[1:])
                raise ValueError(
                    f"the world model reads {self.proprio} proprioceptive values of each of {x.shape[2]} frames, "
                    f"but the batch has {found}; give them, or set method.proprio"
                )
            own = self.embed_proprio((batch.proprio - self.proprio_mean) / self.proprio_std)
            tokens = tokens + own[:, :, None]
        return self.normalize_latent(tokens)

    def encode(self, batch: Batch, weights: Weights = "target") -> Float[Tensor, "b n d"]:
        """The latents (B, (T + 1) N, D) of all frames, ordered by frame, then by token."""
        return self.latents(batch, weights).flatten(1, 2)

    # --- from latents to predictions

    def advance(
        self, tokens: Float[Tensor, "b n d"], action: Float[Tensor, "b a"], hidden: Hidden
    ) -> tuple[Float[Tensor, "b n d"], Hidden]:
        """The latent after a standardised action, and the predictor's next hidden state."""
        pred, hidden = self.predictor(tokens, action, hidden)
        return self.normalize_latent(pred), hidden

    def roll_out(self, s: Float[Tensor, "b t n d"], action: Float[Tensor, "b u a"]) -> Float[Tensor, "b u n d"]:
        """The predictions of frames 1 … T by standardised actions, in roll-outs that start at every `steps`-th frame.

        Each roll-out begins with the true latents and actions up to its first frame.
        """
        if not self.predictor.remembers:
            return self._roll_out_windows(s, action)
        preds: list[Tensor] = []
        past = hidden = self.predictor.start(s[:, 0])
        tokens, count = s[:, 0], action.shape[1]
        for t, a in enumerate(action.unbind(1)):
            if t % self.cfg.steps == 0:
                tokens, hidden = s[:, t], past
            if count > self.cfg.steps:
                past = self.predictor.remember(s[:, t], a, past)
            tokens, hidden = self.advance(tokens, a, hidden)
            preds.append(tokens)
        return torch.stack(preds, 1)

    def _roll_out_windows(
        self, s: Float[Tensor, "b t n d"], action: Float[Tensor, "b u a"]
    ) -> Float[Tensor, "b u n d"]:
        """As `roll_out`, with all roll-outs of a sample at once, which needs a predictor without memory."""
        count = action.shape[1]
        steps = min(self.cfg.steps, count)
        windows = -(-count // steps)
        padded = F.pad(action, (0, 0, 0, windows * steps - count)).reshape(len(s) * windows, steps, -1)
        tokens, preds = s[:, :count:steps].flatten(0, 1), list[Tensor]()
        for a in padded.unbind(1):
            tokens, _ = self.advance(tokens, a, ())
            preds.append(tokens)
        return torch.stack(preds, 1).reshape(len(s), windows * steps, *s.shape[2:])[:, :count]

    def predict_each(self, s: Float[Tensor, "b t n d"], action: Float[Tensor, "b t a"]) -> Float[Tensor, "b t n d"]:
        """The prediction of every next frame from the true latents up to it (teacher forcing)."""
        return self.normalize_latent(self.predictor.predict_each(s, action))

    # --- one frame after the other

    def start(self, obs: Float[Tensor, "b c ..."], proprio: Float[Tensor, "b p"] | None = None) -> State:
        """The state after one frame; `proprio` is read if the settings say so."""
        tokens = self._encode_frame(obs, proprio)
        return State(tokens, self.predictor.start(tokens))

    def observe(
        self,
        state: State,
        obs: Float[Tensor, "b c ..."],
        action: Float[Tensor, "b a"] | None = None,
        proprio: Float[Tensor, "b p"] | None = None,
    ) -> State:
        """The state after a new frame, to which `action` led; a predictor that remembers needs the action."""
        hidden = state.hidden
        if self.predictor.remembers:
            hidden = self.predictor.remember(state.tokens, self._given_action(action), hidden)
        return State(self._encode_frame(obs, proprio), hidden)

    def step(self, state: State, action: Float[Tensor, "b a"] | None = None, z: Tensor | None = None) -> State:
        """The state that the model predicts after `action`. Raises ValueError without one."""
        return State(*self.advance(state.tokens, self._given_action(action), state.hidden))

    def _given_action(self, action: Float[Tensor, "b a"] | None) -> Float[Tensor, "b a"]:
        if action is None:
            raise ValueError("a world model predicts what an action leads to; give the action")
        return self.normalize_action(action)

    def _encode_frame(self, obs: Tensor, proprio: Tensor | None) -> Float[Tensor, "b n d"]:
        frame = obs if obs.ndim == 2 + len(self.signal.size) else obs[:, :, None]
        own = None if proprio is None else proprio[:, None]
        return self.latents(Batch(frame, proprio=own), "target")[:, 0]
