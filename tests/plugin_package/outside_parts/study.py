"""Does the mean of the context predict the target?"""

from jepakit.studies.study import Arm, Study

from .recipe import outside_demo

STUDY = Study(
    title="Averages",
    source="nobody",
    claim="An average predicts.",
    arms=(Arm("shapes", "BiJEPA", outside_demo(), "shapes"),),
)
