"""What a run on a stream may be: its method, and the encoder that reads one frame after the other."""

from dataclasses import replace
from typing import Any, cast

from ...core.notes import Note
from ...methods.base import Method
from ...methods.predictive import Predictive
from ...nn import Pixels
from ...types import Signal


def check_method(name: str, method_class: type[Method], rule: str) -> None:
    """Raises ValueError where a method cannot learn from a stream by this rule."""
    if not issubclass(method_class, Predictive) or rule != "rfp":
        raise ValueError(
            f"{name} as it is set cannot learn from a stream, which takes the method rjepa with "
            "rule rfp; use the recipe rjepa-online, or --method.rule rfp"
        )


def fit_encoder(method: Any, signal: Signal) -> tuple[Any, list[Note]]:
    """The method's settings without an encoder, where frames are vectors and its patch was left open."""
    if len(signal.size) > 1 or getattr(method.encoder, "patch", ()) is not None:
        return method, []
    note = Note("method.encoder", "pixels", f"a frame is a vector of {signal.channels}: the circuit reads it as it is")
    return replace(method, encoder=Pixels()), [note]


def check_encoder(method: Method) -> None:
    """Raises ValueError where a method does not read one frame after the other."""
    patch = cast(Any, method).encoder.patch
    if patch[0] != 1:
        raise ValueError(f"a stream is learnt frame by frame, but the encoder's patch {patch} spans {patch[0]}; give 1")
