"""Checks that a run can learn from a stream: its method, and an encoder that reads frame by frame."""

from dataclasses import replace
from typing import Any, cast

from ...core.notes import Note
from ...methods.base import Method
from ...methods.predictive import Predictive
from ...nn import Pixels
from ...types import Signal


def check_method(name: str, method_class: type[Method], rule: str) -> None:
    """Raise ValueError if a method cannot learn from a stream with this rule."""
    if not issubclass(method_class, Predictive) or rule != "rfp":
        raise ValueError(
            f"{name} with these settings cannot learn from a stream, which needs the method rjepa "
            "with rule rfp; use the recipe rjepa-online, or --method.rule rfp"
        )


def fit_encoder(method: Any, signal: Signal) -> tuple[Any, list[Note]]:
    """The method's settings without an encoder, if frames are vectors and its patch is auto."""
    if len(signal.size) > 1 or getattr(method.encoder, "patch", ()) is not None:
        return method, []
    note = Note("method.encoder", "pixels", f"a frame is a vector of {signal.channels}: the circuit reads it directly")
    return replace(method, encoder=Pixels()), [note]


def check_encoder(method: Method) -> None:
    """Raise ValueError if a method does not read frame by frame."""
    patch = cast(Any, method).encoder.patch
    if patch[0] != 1:
        raise ValueError(f"a stream is learnt frame by frame, but the encoder's patch {patch} spans {patch[0]}; give 1")
