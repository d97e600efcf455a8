"""A recipe that trains BiJEPA on parts of this package."""

from jepakit.data import synthetic
from jepakit.methods import bijepa
from jepakit.run.settings import Evals, Length, Run

from .average import Average
from .patchwise import Patchwise


def outside_demo() -> Run:
    """`jepa train outside-demo`: two steps on drawn shapes."""
    return Run(
        method=bijepa.Config(encoder=Patchwise(), predictor=Average()),
        data=synthetic.Config(path="shapes", count=64, size=(16, 16)),
        length=Length(steps=2, batch=16),
        evals=Evals(kinds=("centroid",)),
    )
