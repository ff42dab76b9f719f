"""Rows of a study → all that its report shows: accuracies, paired differences, statements that hold together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from experiments import evaluation
from experiments.words import domains
from experiments.words.corpus import Corpus
from experiments.words.draws import NONE, distinct, from_hex, sources
from experiments.words.settings import Study
from mmd_jax.intervals import Interval, crossed_interval, holm, t_interval

Row = Mapping[str, Any]
SCRATCH = "scratch"


def summarise(
    study: Study, corpus: Corpus, rows: Sequence[Row], domain_rows: Sequence[Row], about: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole summary, as plain values.

    Args:
      study: the settings.
      corpus: its sentences.
      rows: of `draws.rate`, one a source and draw.
      domain_rows: of `domains.measured` and `domains.rate`.
      about: what else the report should know (command, seconds).
    """
    hits = hits_of(rows, len(corpus.held[study.text.held_out].rows.y), "source", "regime")
    measured = [row for row in domain_rows if row["draw"] < 0]
    found: dict[str, Any] = {
        "header": header(study, corpus) | dict(about),
        "accuracies": accuracies(study, hits),
        "statements": statements(study, hits),
        "two_sentences": two_sentences(study, hits),
        "clusters": clusters(study, rows),
        "domains": [of_domain(study, corpus, row, domain_rows) for row in measured],
    }
    adjust(found["domains"], study.alpha)
    return found | {"answer": answer(found)}


def header(study: Study, corpus: Corpus) -> dict[str, Any]:
    """What was read and how it was split."""
    held = corpus.held[study.text.held_out]
    return {
        "name": study.name,
        "rated": study.text.rated,
        "classes": corpus.classes,
        "held_out": study.text.held_out,
        "sizes": {
            "held": len(held.rows.y),
            "pool": len(corpus.pool.rows.y),
            "unlabelled": len(corpus.unlabelled),
            "words": corpus.num_words - 1,
            "wordless": int((held.rows.x == 0).all(axis=1).sum()),
        },
        "most_frequent": float(np.bincount(held.rows.y).max() / len(held.rows.y)),
        "sources": {source: title(source) for source in sources(study)},
        "settings": study,
        "level": 1 - study.alpha,
    }


def hits_of(rows: Sequence[Row], num: int, of_row: str, of_result: str) -> dict[tuple[str, str, int], np.ndarray]:
    """{(source, regime, labels): hits [draws, num]}, in the order of the draws."""
    found: dict[tuple[str, str, int], list[tuple[int, np.ndarray]]] = {}
    for row in rows:
        for result in row["results"]:
            key = row[of_row], result[of_result], result["labels"]
            found.setdefault(key, []).append((row["draw"], from_hex(result["hits"], num)))
    return {key: np.array([hits for _, hits in sorted(some, key=lambda one: one[0])]) for key, some in found.items()}


def accuracies(study: Study, hits: Mapping[tuple[str, str, int], np.ndarray]) -> list[dict[str, Any]]:
    """Mean accuracy of every kind of network, with Student's interval, on these test sentences.

    The interval is over draws; where these share a few trainings of vectors, it is over the trainings' means if that is wider.
    """
    found = []
    for (source, regime, labels), some in hits.items():
        over = [t_interval(one.mean(axis=1), 1 - study.alpha) for one in by_training(study, source, some)]
        means = some.mean(axis=1)
        found.append(
            {"source": source, "regime": regime, "labels": labels}
            | _share(widest(over))
            | {"lowest": float(means.min()), "highest": float(means.max()), "vectors": _vectors(study, source, some)}
        )
    return found


def by_training(study: Study, source: str, scores: np.ndarray) -> list[np.ndarray]:
    """Scores by draw [draws, n]; where several trainings of vectors were shared out to them, also by training [trainings, n].

    Draws of one training depend on each other through its vectors: over draws alone an interval would be for these vectors only.
    """
    count = _vectors(study, source, scores)
    if not 1 < count < len(scores):
        return [scores]
    return [scores, np.stack([scores[first::count].mean(axis=0) for first in range(count)])]


def _vectors(study: Study, source: str, scores: np.ndarray) -> int:
    """Different vectors behind the draws."""
    return min(distinct(study, source), len(scores))


def widest(intervals: Sequence[Interval]) -> Interval:
    """The least certain of them."""
    return max(intervals, key=lambda one: one.high - one.low)


def statements(study: Study, hits: Mapping[tuple[str, str, int], np.ndarray]) -> list[dict[str, Any]]:
    """Each kind of network less the one without transfer, paired by draw and test sentence; Holm over all of them.

    The interval is for other draws and other test sentences; {"draws": …} is for other draws on these test sentences. Where draws
    share a few trainings of vectors, both are also taken over the trainings' means, and the wider stands: for other trainings.
    """
    found = []
    for (source, regime, labels), some in hits.items():
        if source == NONE:
            continue
        differences = by_training(study, source, some.astype(float) - hits[NONE, SCRATCH, labels])
        found.append(
            {"source": source, "regime": regime, "labels": labels}
            | tested([crossed_interval(one, 1 - study.alpha) for one in differences])
            | {"draws": plain(widest([t_interval(one.mean(axis=1), 1 - study.alpha) for one in differences]))}
        )
    return judged(found, study.alpha)


def tested(intervals: Sequence[Interval]) -> dict[str, Any]:
    """The widest interval of a difference, with the largest p-value."""
    return plain(widest(intervals)) | {"pvalue": max(pvalue(one) for one in intervals)}


def pvalue(interval: Interval) -> float:
    """Of a mean difference of 0, two-sided, from Student's interval with num − 1 degrees of freedom."""
    degrees, half = interval.num - 1, (interval.high - interval.low) / 2
    if half == 0:
        return float(interval.estimate == 0)
    error = half / stats.t.ppf((1 + interval.level) / 2, degrees)
    return float(2 * stats.t.sf(abs(interval.estimate) / error, degrees))


def judged(found: Sequence[dict[str, Any]], alpha: float) -> list[dict[str, Any]]:
    """Each difference with its p-value adjusted for all of them, and what may be said: better, worse, unclear."""
    for one, adjusted in zip(found, holm([one["pvalue"] for one in found])):
        kind = "unclear" if adjusted > alpha else "better" if one["estimate"] > 0 else "worse"
        one |= {"adjusted": float(adjusted), "kind": kind}
    return list(found)


def two_sentences(study: Study, hits: Mapping[tuple[str, str, int], np.ndarray]) -> list[dict[str, Any]]:
    """What two test sentences would have shown, at the fewest labels: how often 1 of 2 right becomes 2 of 2, or the reverse."""
    labels = min(study.labels)
    found = []
    for (source, regime, size), some in hits.items():
        if source == NONE or size != labels:
            continue
        without = hits[NONE, SCRATCH, size]
        both, ours, theirs = (some & without).sum(1), (some & ~without).sum(1), (~some & without).sum(1)
        pairs = some.shape[1] * (some.shape[1] - 1) / 2
        shares = {"gained": float((both * ours / pairs).mean()), "lost": float((both * theirs / pairs).mean())}
        found.append({"source": source, "regime": regime, "labels": size} | shares)
    return found


def clusters(study: Study, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How well k-means on sentence vectors finds the classes; an interval where there are several trainings of vectors."""
    found = []
    for source in sources(study)[1:]:
        own = [row for row in rows if row["source"] == source]
        one: dict[str, Any] = {"source": source, "coverage": float(np.mean([row["coverage"] for row in own]))}
        for name in ("ari", "nmi"):
            values = [row[name] for row in own if name in row]
            one[name] = (
                plain(t_interval(values, 1 - study.alpha)) if len(values) > 1 else {"estimate": values[0], "num": 1}
            )
        found.append(one)
    return found


def of_domain(study: Study, corpus: Corpus, measured: Row, rows: Sequence[Row]) -> dict[str, Any]:
    """One domain: how far it is, and every way of reuse beside from-scratch, by whole documents."""
    name = measured["domain"]
    test = domains.split(study, corpus, name).test
    num, documents, level = len(test.rows.y), test.documents, 1 - study.alpha
    own = [row for row in rows if row["domain"] == name and row["draw"] >= 0]
    hits = hits_of(own, num, "domain", "way")
    as_is = from_hex(measured["as_is"], num)
    ways = []
    for labels in study.domains.labels:
        scratch = hits[name, "from_scratch", labels]
        # The network as it is needs no label: it is the same in every draw.
        of_way = {"as_is": np.repeat(as_is[None], len(scratch), axis=0)}
        of_way |= {way: hits[name, way, labels] for way in domains.WAYS}
        for way, some in of_way.items():
            one = {"labels": labels, "way": way}
            one |= _share(
                _alone(as_is, level, documents) if way == "as_is" else crossed_interval(some, level, documents)
            )
            if way != "from_scratch":
                one["difference"] = tested([crossed_interval(some.astype(float) - scratch, level, documents)])
            ways.append(one)
    kept = {key: value for key, value in measured.items() if key not in ("as_is", "cell", "draw", "study", "seconds")}
    share = float(np.bincount(test.rows.y).max() / num)
    return kept | {
        "ways": ways,
        "test": num,
        "documents": None if documents is None else len(np.unique(documents)),
        "share": share,
    }


def _alone(hits: np.ndarray, level: float, documents: np.ndarray | None) -> Interval:
    """Accuracy of one network, by whole documents."""
    low, high = evaluation.binomial(hits, level, groups=documents)
    return Interval(float(hits.mean()), low, high, level, len(hits if documents is None else np.unique(documents)))


def _share(interval: Interval) -> dict[str, Any]:
    """The interval of a mean share, whose ends are shares too."""
    return plain(interval) | {"low": max(interval.low, 0.0), "high": min(interval.high, 1.0)}


def adjust(found: Sequence[dict[str, Any]], alpha: float) -> None:
    """Adjusts the differences of all domains together."""
    judged([way["difference"] for domain in found for way in domain["ways"] if "difference" in way], alpha)


def answer(summary: Mapping[str, Any]) -> str:
    """What may be said of transfer; where it hurts comes first."""
    said = []
    for kind, lead in (
        ("worse", "Negative transfer: worse than without, beyond the interval, are "),
        ("better", "Copied word vectors help: better than without are "),
        ("unclear", "No difference was shown for "),
    ):
        groups: dict[tuple[str, str], list[Row]] = {}
        for one in summary["statements"]:
            if one["kind"] == kind:
                groups.setdefault((one["source"], one["regime"]), []).append(one)
        if groups:
            said.append(lead + "; ".join(_group(*name, some) for name, some in groups.items()) + ".")
    worse = [sentence for domain in summary["domains"] if (sentence := _negative(domain))]
    return " ".join([*worse, *said]) or "Nothing was compared."


def _negative(domain: Row) -> str:
    """That the rule's plan is worse than from-scratch on a domain, where it was shown to be; else nothing."""
    ways = [way for way in domain["ways"] if domain["plans"][str(way["labels"])]["way"] == way["way"]]
    some = [way for way in ways if way.get("difference", {}).get("kind") == "worse"]
    if not some:
        return ""
    points = ", ".join(f"{100 * way['difference']['estimate']:+.1f}".replace("-", "−") for way in some)
    sizes = ", ".join(str(way["labels"]) for way in some)
    return (
        f"Negative transfer on {domain['domain']}: the network, used again as the rule says, is worse than from "
        f"scratch with {sizes} "
        f"labels ({points} points)."
    )


def _group(source: str, regime: str, some: Sequence[Row]) -> str:
    points = [100 * one["estimate"] for one in some]
    low, high = f"{min(points):+.1f}", f"{max(points):+.1f}"
    span = low if len(points) == 1 else f"{low} to {high}"
    sizes = ", ".join(str(one["labels"]) for one in some)
    how = {"finetuned": "fine-tuned"}.get(regime, regime)
    return f"{title(source)}, {how}, with {sizes} labels ({span.replace('-', '−')} points)"


def title(source: str) -> str:
    """A source of words in the report's words."""
    return {"none": "without transfer", "glove": "GloVe", "all": "all unlabelled sentences"}.get(
        source, f"{int(source):,} unlabelled sentences" if source.isdigit() else source
    )


def plain(interval: Interval) -> dict[str, Any]:
    """An interval as a dict."""
    return interval._asdict()
