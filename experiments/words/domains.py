"""A network of one domain's sentences on another's: how far apart they are, what a rule would do, and what each way gives."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import workdir
from experiments.cells import Cell
from experiments.words.classifiers import Classifier, begin, train
from experiments.words.corpus import Corpus, Labelled
from experiments.words.draws import as_hex, balanced, source_of_all, sources
from experiments.words.settings import Study
from experiments.words.vectors import Words, fresh
from mmd_jax.transfer import decision
from mmd_jax.transfer.profile import layer_features, mmd_profile
from mmd_jax.two_sample.margins import margin_from_splits
from mmd_jax.two_sample.verdict import verdict
from mmd_jax.types import Plan, Rows, Similarity, Stage, TwoSampleResult

VERSION = {"test": 1, "validation": 2}  # by what is held out; raised where a change here changes a number
LAYER = "words"  # whose outputs, the sentence vectors, decide
# The ways in which the network is used again; "words" copies no more than the vectors it began with.
WAYS = ("linear_probe", "finetune_top", "finetune_all", "lp_ft", "words", "from_scratch")


class Split(NamedTuple):
    """The sentences of another domain; no document is in both parts.

    Attributes:
      train: to draw labelled sentences from, and to measure.
      test: to test on; while settings are chosen, a part of what would be trained on.
    """

    train: Labelled
    test: Labelled


class Task(NamedTuple):
    """A domain's distance (draw −1), or its networks in one draw; what a cell of the grid stands for."""

    domain: str
    draw: int

    @property
    def name(self) -> str:
        """Unique in the study."""
        return f"domain {self.domain} / " + ("measured" if self.draw < 0 else f"draw {self.draw}")


def tasks(study: Study) -> list[Task]:
    """Distances first."""
    return [Task(name, draw) for draw in range(-1, study.domains.draws) for name in study.domains.names]


def cell_of(study: Study, task: Task, corpus: Corpus) -> Cell:
    """The task as a cell of a grid; its row is used again only for the very settings and sentences it was made with."""
    parts = (
        study.text,
        study.vectors,
        study.fit,
        study.domains,
        study.seed,
        sources(study)[-1],
        corpus.digest,
        VERSION[study.text.held_out],
    )
    about = json.dumps(workdir.plain([*parts]), sort_keys=True)
    return Cell(task.name, {**task._asdict(), "study": hashlib.sha256(about.encode()).hexdigest()[:12]})


def split(study: Study, corpus: Corpus, name: str) -> Split:
    """Half of a domain's documents to train on, half to test on; for validation the first half is halved, the second left unseen.

    Raises:
      ValueError: too few labelled sentences for the settings.
    """
    part = corpus.domains[name]
    documents = (
        np.arange(len(part.rows.y)) if part.documents is None else np.unique(part.documents, return_inverse=True)[1]
    )
    order = np.random.default_rng([study.seed, 7]).permutation(documents.max() + 1)
    if study.text.held_out == "validation":
        order = order[: len(order) // 2]
    first, second = np.split(order, [len(order) // 2])
    found = Split(*(part.take(np.flatnonzero(np.isin(documents, own))) for own in (first, second)))
    need = max(study.domains.labels, default=0)
    if len(found.train.rows.y) < need or len(found.test.rows.y) < 2:
        share = "half" if study.text.held_out == "test" else "a quarter"
        raise ValueError(
            f"{name} has {len(found.train.rows.y)} labelled sentences to train on and {len(found.test.rows.y)} to test on, each "
            f"{share} of its documents; domains.labels asks for {need}"
        )
    return found


def source_network(study: Study, corpus: Corpus, directory: Path) -> tuple[Classifier, Words]:
    """The network that is used again, trained on the whole pool; and the vectors that it began with, of the largest source."""
    words = source_of_all(study, corpus, directory)
    rows = corpus.pool.rows
    new = fresh([study.seed, 8], corpus.num_words, words.table.shape[1])
    start = begin("finetuned", rows, new, words, words_rate=study.fit.words_rate)
    return train(study.fit, study.seed, rows, len(corpus.classes), **start._asdict()), words


def measured(study: Study, corpus: Corpus, name: str, source: Classifier) -> dict[str, Any]:
    """How far a domain is from the study's own, what that means, what the rule would do, and the network as it is.

    The sentences of the study's own domain are held-out ones, for features of training sentences are not exchangeable with
    others; of the other domain those that networks are trained on.

    Returns:
      {"layers": a test a layer, by whole documents; "one_a_document": the deciding one with one sentence of each document;
      "verdict", "margin", "similarity"; "plans": by number of labels; "as_is": the hits on the test sentences as they are,
      and on the held-out sentences of the study's own domain, accuracies}.
    """
    settings, ours, theirs = study.domains, corpus.held[study.text.held_out], split(study, corpus, name)
    key = jax.random.fold_in(jax.random.key(study.seed), corpus.names.index(name))
    choose, test_key, one_key, margin_key, verdict_key = jax.random.split(key, 5)
    random = np.random.default_rng(np.asarray(jax.random.key_data(choose), np.uint32))
    x, y = (_some(part, settings.max_rows, random) for part in (ours, theirs.train))
    first, second = (layer_features(source.network, source.variables, source.inputs(part.rows.x)) for part in (x, y))
    knobs: dict[str, Any] = {"alpha": settings.alpha, "num_permutations": settings.permutations}
    groups = _groups(x, y)
    layers = dict(mmd_profile(test_key, first, second, **knobs, **groups))
    deciding = layers[LAYER]
    if deciding is None:
        raise ValueError(
            f"{name} can't be compared: at least half of the pairs of sentences have the same vector; its words, or those of "
            f"{study.text.rated}, are hardly known"
        )
    row: dict[str, Any] = {
        "sizes": {"m": len(x.rows.y), "n": len(y.rows.y), "documents": _count(y)},
        "layers": {layer: _numbers(result) for layer, result in layers.items()},
    }
    if groups:
        firsts = [np.unique(groups[side], return_index=True)[1] for side in ("groups_x", "groups_y")]
        alone = [{LAYER: sample[LAYER][chosen]} for sample, chosen in zip((first, second), firsts)]
        row["one_a_document"] = _numbers(dict(mmd_profile(one_key, *alone, **knobs))[LAYER])
    found = _similarity(study, (margin_key, verdict_key), [first, second], x.rows.y, groups, deciding)
    row |= found
    kind = Similarity(**found["similarity"])
    row["plans"] = {str(size): _plan(study, kind, source, size, len(corpus.classes)) for size in settings.labels}
    hits = source.predict(theirs.test.rows.x) == theirs.test.rows.y
    own = source.predict(ours.rows.x) == ours.rows.y
    known = float(source.known[theirs.test.rows.x[theirs.test.rows.x > 0]].mean())
    return row | {
        "as_is": as_hex(hits),
        "accuracy": float(hits.mean()),
        "own_accuracy": float(own.mean()),
        "known": known,
    }


def rate(study: Study, corpus: Corpus, task: Task, source: Classifier, words: Words) -> dict[str, Any]:
    """Trains and tests every way of using the network again, in one draw of labelled sentences.

    Returns:
      {"results": [{"labels", "way", "accuracy", "hits"}]}, as `draws.rate`.
    """
    theirs = split(study, corpus, task.domain)
    seed = [study.seed, task.draw, 9]
    new = fresh(seed, corpus.num_words, words.table.shape[1])
    number = int(np.random.default_rng(seed).integers(2**31))
    results = []
    for size in study.domains.labels:
        rows = balanced(theirs.train.rows, len(corpus.classes), size, seed)
        for way in WAYS:
            if way in ("words", "from_scratch"):
                regime, given = ("frozen", words) if way == "words" else ("scratch", None)
                start = begin(regime, rows, new, given, words_rate=study.fit.words_rate)
                found = train(study.fit, number, rows, len(corpus.classes), **start._asdict())
            else:
                found = reuse(study, way, number, rows, source, new)
            hits = found.predict(theirs.test.rows.x) == theirs.test.rows.y
            results.append({"labels": size, "way": way, "accuracy": float(hits.mean()), "hits": as_hex(hits)})
    return {"results": results}


def reuse(study: Study, way: str, seed: int, rows: Rows, source: Classifier, new: np.ndarray) -> Classifier:
    """The network, carried over by a regime; words that it doesn't know are learned where words are trained."""
    stages = stages_of(study, way, source.network.layers)
    table, known = np.asarray(source.variables["params"][LAYER]["vectors"]), source.known
    if any(LAYER not in stage.frozen for stage in stages):
        there = np.isin(np.arange(len(known)), rows.x)
        there[0] = False
        table, known = np.where(known[:, None], table, new), known | there
    above = {name: leaves for name, leaves in source.variables["params"].items() if name != LAYER}
    classes = source.variables["params"]["head"]["bias"].shape[0]
    return train(study.fit, seed, rows, classes, stages, table=table, known=known, above=above)


def stages_of(study: Study, way: str, layers: tuple[str, ...]) -> tuple[Stage, ...]:
    """A regime spelt out for the sentence network; "finetune_top" freezes the words."""
    return decision.stages_of(way, layers, num_frozen=1, pretrained_rate=study.domains.pretrained_rate)


def _similarity(
    study: Study,
    keys: tuple[jax.Array, jax.Array],
    samples: list[dict[str, np.ndarray]],
    classes: np.ndarray,
    groups: dict[str, Any],
    deciding: TwoSampleResult,
) -> dict[str, Any]:
    """The verdict against the distance between the source's own classes; the test alone, where these are not apart."""
    settings, (x, y) = study.domains, (sample[LAYER] for sample in samples)
    m, n = len(x), len(y)
    bandwidth = np.asarray(deciding.bandwidth)
    try:
        margin = margin_from_splits(keys[0], x, classes, bandwidth=bandwidth).value
        found = verdict(
            keys[1],
            x,
            y,
            margin=margin,
            alpha=settings.alpha,
            bandwidth=bandwidth,
            num_draws=settings.permutations,
            test=deciding,
            **groups,
        )
    except ValueError as error:
        known = decision.similarity(deciding, representation=LAYER, alpha=settings.alpha, m=m, n=n)
        return {"verdict": None, "no_verdict": str(error), "similarity": known._asdict()}
    known = decision.similarity_of_verdict(found, representation=LAYER, m=m, n=n)
    return {"verdict": found._asdict(), "similarity": known._asdict()}


def _plan(study: Study, similarity: Similarity, source: Classifier, size: int, num_classes: int) -> dict[str, Any]:
    settings = study.domains
    plan: Plan = decision.decide(
        settings.rule,
        similarity,
        source.network,
        num_rows=size,
        num_classes=num_classes,
        pretrained_rate=settings.pretrained_rate,
    )
    # Words can't be flipped or cropped.
    stages = tuple(stage._replace(augment=False) for stage in plan.stages)
    ways = {way: stages_of(study, way, source.network.layers) for way in WAYS if way != "words"}
    way = next((way for way, own in ways.items() if own == stages), plan.regime)
    return {"rule": plan.rule, "regime": plan.regime, "way": way, "reason": plan.reason}


def _some(part: Labelled, most: int, random: np.random.Generator) -> Labelled:
    return part.take(np.sort(random.permutation(len(part.rows.y))[:most]))


def _groups(x: Labelled, y: Labelled) -> dict[str, Any]:
    """The document of each sentence, for the tests; none where every sentence is its own on both sides."""
    if x.documents is None and y.documents is None:
        return {}
    ours, theirs = (np.arange(len(part.rows.y)) if part.documents is None else part.documents for part in (x, y))
    return {"groups_x": ours, "groups_y": theirs + ours.max() + 1}


def _count(part: Labelled) -> int:
    return len(part.rows.y) if part.documents is None else len(np.unique(part.documents))


def _numbers(result: TwoSampleResult | None) -> dict[str, Any] | None:
    if result is None:
        return None
    return {"mmd2": float(result.statistic), "pvalue": float(result.pvalue), "reject": bool(result.reject)}
