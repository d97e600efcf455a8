"""How sentences and tables write a percentage, a count with its noun, and a first letter."""


def percent(share: float, digits: int = 0) -> str:
    """A share as a percentage, such as "95 %" for 0.95; `digits` are those after the point."""
    return f"{100 * share:.{digits}f} %"


def count_text(count: int, noun: str) -> str:
    """A count with its noun in the right number: "1 step", "1,700 steps"."""
    return f"{count:,} {noun}" + "s" * (count != 1)


def capitalize(text: str) -> str:
    """The text with a capital first letter and the others as they are: "Forecast MSE"."""
    return text[:1].upper() + text[1:]
