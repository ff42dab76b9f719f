"""The report's sentences and how it writes numbers."""

import math
from typing import Any

from experiments.report.run import Run, number

REGIMES = {
    "linear_probe": "the network stays as it is and only a new classifier is trained on top of it",
    "finetune_top": "the first layers stay as they are and the layers above them are trained further",
    "finetune_all": "all layers are trained further, from the pretrained weights",
    "lp_ft": "first only a new classifier is trained, then all layers are trained further",
    "from_scratch": "all layers are trained from fresh random weights; the pretrained ones are not used",
}
# The rules' tables in short, (size, similarity) -> (regime, in words); a test holds them to mmd_jax.transfer.decision,
# which the report can't import because it needs jax.
RULES: dict[str, dict[tuple[str, str], tuple[str, str]]] = {
    "patent": {
        ("small", "similar"): ("linear_probe", "train a linear classifier only"),
        ("small", "different"): ("from_scratch", "do not fine-tune: train from scratch"),
        ("medium", "similar"): ("lp_ft", "train the classifier, then all layers"),
        ("medium", "different"): ("finetune_all", "fine-tune the whole network"),
        ("large", "similar"): ("finetune_all", "fine-tune the whole network"),
        ("large", "different"): ("finetune_all", "fine-tune the whole network"),
    },
    "quadrant": {
        ("small", "similar"): ("finetune_top", "freeze the base, train the classifier"),
        ("small", "different"): ("finetune_top", "freeze fewer layers, and augment"),
        ("large", "similar"): ("finetune_top", "train the classifier and the top layers"),
        ("large", "different"): ("finetune_all", "train the whole network"),
    },
}


def question(run: Run) -> str:
    """What the run was made to find out."""
    return f"Can {network(run)} be reused for {data(run, 'target')}?"


def answer(run: Run) -> str:
    """The answer in one sentence, which claims no more than the interval of the paired difference allows."""
    accuracy, plan = run.result["accuracy"], run.result["plan"]
    rows = f"{accuracy['num_test']:,} unseen test rows"
    chosen, scratch = percent(accuracy["chosen"]), percent(accuracy["from_scratch"])
    if verdict(run) == "not reused":
        why = "as the user chose" if plan["rule"] == "given" else f"as the rule “{plan['rule']}” advises here"
        return (
            f"The network was not reused: {why}, it was trained from scratch, and is right on {chosen} of {rows} "
            f"({level(run)} interval {span(accuracy['chosen_interval'], percent)})."
        )
    both = f"on {rows} the reused network is right on {chosen}, the same network trained from scratch on {scratch}"
    difference = f"the paired difference is {points(accuracy['paired_difference'])} points"
    interval = f"{level(run)} interval {span(accuracy['interval'], points)}"
    auc, side = ranked(run), _side(accuracy["interval"])
    if auc and _side(accuracy["roc_auc"]["interval"]) == -1 and side != -1:
        told = "although it is right more often" if side == 1 else "though accuracy does not tell the two apart"
        return (
            f"No, reuse ranks the rows worse than training from scratch (negative transfer), {told}: {auc}; "
            f"{both}; {difference} ({interval})."
        )
    ranks = f" Reuse ranks the rows better, though: {auc}." if auc and side == 0 else ""
    return {
        "better": f"Yes, reuse helps: {both}; {difference} ({interval}).",
        "worse": f"No, reuse is worse than training from scratch (negative transfer): {both}; {difference} ({interval}).",
        "unclear": f"No clear gain or loss from reuse: {both}; {difference}, and its {interval} "
        "includes 0, so this run cannot tell the two apart.",
        "unknown": f"Reuse and training from scratch can't be compared: {both}; {difference}, but "
        "its interval could not be computed.",
    }[verdict(run)] + ranks


def ranked(run: Run) -> str:
    """The difference in ROC AUC, where its interval does not hold 0; else nothing."""
    auc = run.result["accuracy"].get("roc_auc")
    if not auc or not _side(auc["interval"]):
        return ""
    ends = span(auc["interval"], signed)
    return f"the paired difference in ROC AUC is {signed(auc['paired_difference'])} ({level(run)} interval {ends})"


def verdict(run: Run) -> str:
    """ "better", "worse" (than from scratch, beyond the interval), "unclear", "unknown" (no interval), "not reused".

    Accuracy decides, but what ranks the rows worse (ROC AUC, of two classes) is worse.
    """
    if run.result["plan"]["regime"] == "from_scratch":
        return "not reused"
    accuracy = run.result["accuracy"]
    side = _side(accuracy["interval"])
    if side == -1 or (accuracy.get("roc_auc") and _side(accuracy["roc_auc"]["interval"]) == -1):
        return "worse"
    if any(math.isnan(number(end)) for end in accuracy["interval"]):
        return "unknown"
    return "better" if side == 1 else "unclear"


def _side(interval: Any) -> int:
    """-1 where the interval lies below 0, 1 above, 0 where it holds 0 or is not known."""
    low, high = (number(end) for end in interval)
    return int(low > 0) - int(high < 0)


def network(run: Run) -> str:
    """The network, by what it was trained on."""
    weights = run.config["model"]["weights"]
    if run.config["source"] is None:
        return f"the network with the weights {weights}"
    restored = f", with the weights {weights}," if weights else ""
    return f"the network trained on {data(run, 'source')}{restored}"


def data(run: Run, which: str) -> str:
    """One data set in a few words."""
    settings, about = run.config[which], run.result["data"][which]
    said = []
    if settings["classes"]:
        names = [str(name) for name in about["classes"]]
        said.append("classes " + ", ".join(names) if len(names) <= 6 else f"{len(names)} of its classes")
    if settings["part"]:
        said.append(f"part {settings['part'][0]} of {settings['part'][1]}")
    return settings["name"] + (f" ({'; '.join(said)})" if said else "")


def cell(run: Run) -> tuple[str, str] | None:
    """The cell of the rule's table that this run is in; none where no rule chose."""
    plan, settings, target = run.result["plan"], run.config["decision"], run.result["data"]["target"]
    rows = target["train_rows"]
    if plan["rule"] == "patent":
        size = "small" if rows < settings["small"] else "large" if rows > settings["large"] else "medium"
    elif plan["rule"] == "quadrant":
        size = "small" if rows < settings["small_per_class"] * len(target["classes"]) else "large"
    else:
        return None
    found = size, "similar" if run.result["similarity"]["kind"] == "similar" else "different"
    return found if RULES[plan["rule"]][found][0] == plan["regime"] else None


def rule(run: Run) -> str:
    """The rule that chose; where the user did, the one that would have been asked, if it has a table."""
    asked = (run.result["plan"]["rule"], run.config["decision"]["rule"])
    return next((rule for rule in asked if rule in RULES), "quadrant")


def sizes(run: Run) -> dict[str, str]:
    """What the rule of this run calls small, medium and large."""
    settings = run.config["decision"]
    if rule(run) == "patent":
        small, large = f"{settings['small']:,}", f"{settings['large']:,}"
        return {
            "small": f"fewer than {small} rows",
            "medium": f"{small} to {large} rows",
            "large": f"more than {large} rows",
        }
    each = f"{settings['small_per_class']:,}"
    return {"small": f"fewer than {each} rows a class", "large": f"{each} rows a class or more"}


def level(run: Run) -> str:
    """The level of the intervals."""
    return f"{100 * run.result['accuracy']['level']:g}%"


def percent(value: float | None) -> str:
    """
    >>> percent(0.9731)
    '97.3%'
    """
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}%"


def points(value: float | None) -> str:
    """A difference of two shares in percentage points, with its sign; never "0.0" for what is not 0.

    >>> points(0.0346), points(-0.00012), points(0.0)
    ('+3.5', '−0.012', '0.0')
    """
    if value is None or math.isnan(value):
        return "–"
    text = f"{100 * value:+.1f}"
    if float(text) == 0:
        text = f"{100 * value:+.2g}" if value else "0.0"
    return text.replace("-", "−")


def signed(value: float | None) -> str:
    """A difference that is no share, with its sign.

    >>> signed(0.0346), signed(-0.05)
    ('+0.0346', '−0.05')
    """
    return "–" if value is None or math.isnan(value) else f"{value:+.3g}".replace("-", "−")


def span(interval: Any, text: Any) -> str:
    """An interval, both ends written by `text`."""
    return " to ".join(text(end) for end in interval)


def significant(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits.

    >>> significant(0.0123456), significant(-2e-7), significant(None)
    ('0.0123', '−2e−07', '–')
    """
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}g}".replace("-", "−")


def seconds(value: float) -> str:
    """
    >>> seconds(4.21), seconds(372.0)
    ('4.2 s', '6 min 12 s')
    """
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes else f"{value:.1f} s"


def listed(names: Any) -> str:
    """Names in one line, the middle left out where there are many."""
    names = [str(name) for name in names]
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:6])}, … {names[-1]} ({len(names)} in all)"


def short(name: Any, length: int = 14) -> str:
    """A name that fits into a picture: its middle left out where it is long, nothing that can't be printed."""
    text = "".join(c if c.isprintable() else "·" for c in str(name))
    return text if len(text) <= length else f"{text[: (length - 1) // 2]}…{text[-(length // 2) :]}"
