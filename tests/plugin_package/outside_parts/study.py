"""Does the mean of the context predict the target?"""

from jepakit.studies.study import Arm, Scores, Study

from .recipe import outside_demo


def says(scores: Scores) -> list[str]:
    """One sentence."""
    return [f"{len(scores.arms)} training was measured."]


STUDY = Study(
    title="Averages",
    source="nobody",
    claim="An average predicts.",
    arms=(Arm("shapes", "BiJEPA", outside_demo(), "shapes"),),
    says=says,
)
