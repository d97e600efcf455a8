"""R-JEPA: a recurrent circuit that predicts its next input."""

from ..data.scanpaths import settings
from ..data.stream import Config
from ..methods import rjepa
from ..nn import CNN
from ..recurrent.circuit import Circuit
from ..run.optim import Optim
from ..run.settings import Evals, Length, Loop, Run


def gaze_rjepa() -> Run:
    """R-JEPA that looks at one place of a picture after another; 2 minutes: `jepa train gaze-rjepa --data photos/`.

    With `--data.fixations FILE` it looks where people looked. The encoder keeps its initial weights, so that nothing
    collapses, and the circuit learns by exact forward propagation; `--init RUN` provides a trained encoder. On human
    fixations the prediction error is a quarter of the best constant's: `jepa reproduce rjepa-gaze`.
    """
    return Run(
        method=rjepa.Config(
            encoder=CNN(patch=None, width=128, channels=(16, 32, 64)),
            circuit=Circuit(width=128, norm=False, standardize=True),
            identity=True,
            saccade=True,
            rule="rfp",
            below="frozen",
        ),
        data=settings.Config(split="train", steps=10),
        optim=Optim(lr=1e-3, start_lr=1e-5, final_lr=1e-5, warmup=0.08, weight_decay=1e-4, final_weight_decay=1e-4),
        length=Length(steps=600, batch=64),
        evals=Evals(kinds=()),
    )


def rjepa_online() -> Run:
    """R-JEPA that learns from frames as they arrive, each seen once: `jepa train rjepa-online --data FOLDER`.

    Frames are pictures, arrays or rows of a table; see docs/streaming.md. The picture encoder keeps its initial
    weights: an encoder that learned from single steps collapsed, and so did the circuit at three times the learning
    rate. We state no expected score.
    """
    return Run(
        method=rjepa.Config(
            encoder=CNN(patch=None, width=64, channels=(16, 32, 32)),
            circuit=Circuit(width=256),
            rule="rfp",
            below="frozen",
        ),
        data=Config(),
        optim=Optim(lr=1e-4, start_lr=1e-4, final_lr=1e-4, warmup=0.0, weight_decay=0.0, final_weight_decay=0.0),
        length=Length(batch=1),
        loop=Loop(log_every=100),
        evals=Evals(kinds=()),
    )
