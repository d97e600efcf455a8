"""Films of episodes: what is, what the model imagines at the end of its plan, and the goal, side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from ..core.files import replace_file
from ..core.progress import Progress
from ..envs import EnvState
from ..methods.decoder import Decoder
from ..nn.patch import join_patches
from ..planning.mpc import Act, Seen, mpc
from ..planning.plan import Planner
from ..planning.protocol import Outcome, Protocol, Tasks, draw_tasks
from ..planning.rollout import rollout
from ..types import Rng, State
from .world import World

PANEL_SIDE: Final = 165  # pixels of a panel, at most
GAP: Final = 6
LABEL_HEIGHT: Final = 14
FRAME_SECONDS: Final = 0.12
MAX_FRAMES: Final = 120
NUM_COLOURS: Final = 48


def film_episodes(
    world: World,
    protocol: Protocol,
    search: Planner,
    outcome: Outcome,
    result: Path,
    decode: Callable[[Tensor], Tensor] | None,
    progress: Progress,
) -> Path | None:
    """Write, beside the `result`, a .gif with an episode that was solved and one that was not, where there are both.

    Each shows the present, the frame that the plan is imagined to end at, if `decode` maps tokens (R, N, D) to frames
    (R, C, H, W), and the goal. Returns the path; None where the environment cannot be drawn.
    """
    try:
        draw_states(world, draw_tasks(world.env, protocol).part(0, 1).start)
    except ValueError as error:
        progress.note(f"no film is written: {error}")
        return None
    tasks, rows = draw_tasks(world.env, protocol), chosen_rows(outcome)
    part = pick_tasks(tasks, rows)
    moments = record_episode(world, protocol, search, part, rows)
    path = result.with_suffix(".gif")
    labels = [label_episode(outcome, row) for row in rows]
    goal = None if part.goal is None else draw_states(world, part.goal)
    shown = moments[:: -(-len(moments) // MAX_FRAMES)]
    frames = [draw_moment(moment, goal, labels, decode).quantize(NUM_COLOURS) for moment in shown]
    with replace_file(path) as unfinished:
        frames[0].save(
            unfinished,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=int(1000 * FRAME_SECONDS),
            loop=0,
        )
    return path


def chosen_rows(outcome: Outcome) -> list[int]:
    """The first episode that was solved at the end and the first that was not; the first two without goals."""
    if outcome.solved_end is None:
        return list(range(min(2, len(outcome.ids))))
    return [int(kind.nonzero()[0, 0]) for kind in (outcome.solved_end, ~outcome.solved_end) if kind.any()]


def pick_tasks(tasks: Tasks, rows: list[int]) -> Tasks:
    """Some of the episodes, by their rows."""
    goal = None if tasks.goal is None else {name: value[rows] for name, value in tasks.goal.items()}
    return Tasks(tasks.ids[rows], {name: value[rows] for name, value in tasks.start.items()}, goal, 0)


def label_episode(outcome: Outcome, row: int) -> str:
    """How an episode ended, in words."""
    if outcome.solved_end is None:
        return f"return {float(outcome.returns[row]):.0f}"
    return "arrives" if outcome.solved_end[row] else "does not arrive"


Moment = tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b n d"]]
"""Pictures of the present, and the tokens at the end of the plan."""


def record_episode(world: World, protocol: Protocol, search: Planner, tasks: Tasks, rows: list[int]) -> list[Moment]:
    """What episodes show at every decision. They are those of an evaluation under this protocol, by their rows."""
    agent = world.planning(search, protocol.horizon, protocol.replan_every)(tasks.goal)
    moments: list[Moment] = []

    def act(seen: Seen, memory: Any, rng: Rng) -> tuple[Tensor, Any]:
        actions, memory = agent(seen, memory, rng)
        ((state, _), plan) = memory
        moments.append((draw_states(world, seen.state), imagined_end(world, state, plan.mean)))
        return actions, memory

    recorder: Act = act
    rng = Rng(protocol.seed).fork("act")
    own = Rng(rng.seed, rng.step, 0, protocol.episodes, rng.path, tuple(rows))
    mpc(world.env, tasks.start, recorder, protocol.steps, block=protocol.block, rng=own)
    return moments


@torch.no_grad()
def imagined_end(world: World, state: State, actions: Float[Tensor, "b h a"]) -> Float[Tensor, "b n d"]:
    """The tokens that the model imagines at the end of a plan."""
    return rollout(world.energies.method.step, state, actions[:, None])[:, 0, -1]


def decode_frames(decoder: Decoder, tokens: Float[Tensor, "r n d"]) -> Float[Tensor, "r c h w"]:
    """The frames that tokens stand for, in raw units."""
    count, cells = tokens.shape[:2]
    where = torch.arange(cells, device=tokens.device).expand(count, -1)
    values = decoder.decode(tokens, where).float()
    values = values.reshape(count, cells, decoder.signal.channels, *decoder.patch) * decoder.std + decoder.mean
    return join_patches(values.flatten(2), (1, *decoder.grid[1:]), decoder.patch)[:, :, 0]


# --- pictures


def draw_states(world: World, state: EnvState) -> Float[Tensor, "b 3 h w"]:
    """Pictures of worlds for people. Raises ValueError if the environment cannot be drawn."""
    return world.env.draw(state, PANEL_SIDE)


def draw_moment(
    moment: Moment, goal: Float[Tensor, "b 3 h w"] | None, labels: list[str], decode: Callable[[Tensor], Tensor] | None
) -> Image.Image:
    """One row of panels per episode: now, imagined, goal."""
    now, tokens = moment
    columns = [("now", now)]
    if decode is not None:
        columns.append(("end of the plan, imagined", decode(tokens).cpu()))
    if goal is not None:
        columns.append(("goal", goal))
    pictures = [(name, [as_picture(frame) for frame in frames]) for name, frames in columns]
    side = pictures[0][1][0].shape[0]
    height, width = side + LABEL_HEIGHT, side + GAP
    page = Image.new("RGB", (len(columns) * width + GAP, len(labels) * (height + GAP)), "white")
    pen = ImageDraw.Draw(page)
    for row, label in enumerate(labels):
        for column, (name, frames) in enumerate(pictures):
            left, top = GAP + column * width, row * (height + GAP)
            text = f"{label}: {name}" if column == 0 else name
            pen.text((left, top + 1), text, fill="black")
            page.paste(Image.fromarray(frames[row]), (left, top + LABEL_HEIGHT))
    return page


def as_picture(frame: Float[Tensor, "c h w"]) -> UInt8[np.ndarray, "s s 3"]:
    """A frame of any number of channels as RGB: one is grey, two are what moves and what stands, else the first three.

    It is enlarged by a whole factor.
    """
    x = frame.clamp(0, 1).float()
    if len(x) == 2:
        # What moves in red, what stands in grey.
        moving, standing = x
        light = 1 - 0.6 * standing
        x = torch.stack([light, light * (1 - moving), light * (1 - moving)])
    elif len(x) < 3:
        x = x[:1].expand(3, -1, -1)
    factor = max(1, PANEL_SIDE // x.shape[-1])
    large = x[:3].repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    picture: np.ndarray = (large.permute(1, 2, 0) * 255).round().byte().numpy()
    return picture
