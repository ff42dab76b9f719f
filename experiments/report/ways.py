"""Ways to reuse a network in words and looks, by their names; and how differences between them are read."""

from experiments.report.style import BLACK, BLUE, ORANGE, SKY, VERMILION

SHORT = {"linear_probe": "frozen base", "finetune_all": "all fine-tuned", "lp_ft": "classifier, then all"}
LOOKS = {
    "linear_probe": {"color": BLUE, "marker": "s"},
    "finetune_top": {"color": SKY, "marker": "^"},
    "finetune_all": {"color": ORANGE, "marker": "o"},
    "lp_ft": {"color": BLACK, "marker": "P"},
    "from_scratch": {"color": VERMILION, "marker": "D", "ls": "--"},
}


def compared(found: dict[str, float]) -> str:
    """Better, worse or neither, as the interval says."""
    return "better than" if found["low"] > 0 else "worse than" if found["high"] < 0 else "not told apart from"


def points(found: dict[str, float]) -> str:
    """A difference of shares in points, with its interval."""
    estimate, low, high = (100 * found[key] for key in ("estimate", "low", "high"))
    return f"{estimate:+.1f} points, {low:+.1f} … {high:+.1f}"


def short(way: str) -> str:
    """A way in a few words."""
    regime, *rest = way.split(" ")
    end = (", full rate" if "full" in rest else "") + (", augmented" if "augmented" in rest else "")
    if regime == "finetune_top":
        return f"{rest[0]} layer{'' if rest[0] == '1' else 's'} frozen{end}"
    return SHORT.get(regime, regime.replace("_", " ")) + end
