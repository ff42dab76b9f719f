"""The arms of the four pairings: what each learns from, and what it reaches on the target."""

import functools
import hashlib
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import networks, sources, workdir
from experiments.cells import Cell
from experiments.clusters import agreement, clustered
from experiments.datasets.select import stratified
from experiments.pairing.settings import NOT_THE_EXPERIMENT, Fit, Pairings
from mmd_jax.models.autoencoder import autoencoder
from mmd_jax.models.cnn8 import cnn8_base
from mmd_jax.models.layered import Network, preprocessed
from mmd_jax.models.mlp import mlp_base
from mmd_jax.transfer import finetune
from mmd_jax.transfer.adaptation import adaptation, paired
from mmd_jax.transfer.objectives import CLASSIFICATION, validate
from mmd_jax.transfer.profile import layer_features
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.transfer.reconstruction import reconstruction
from mmd_jax.two_sample import mmd2_unbiased
from mmd_jax.types import Objective, Rows, Stage, Variables

VERSION = 1  # raised where a change here changes an arm's numbers
TEST_ROWS = 500  # of each side, in the MMD that is reported


class Arm(NamedTuple):
    """One way to do something with the target.

    Attributes:
      name: in rows and tables.
      labelled: whether it learns from labels of the target, and so comes once for every number of them.
      cost: seconds, about, beside those of the others.
    """

    name: str
    labelled: bool
    cost: float


# In this order a seed's networks are trained once each: the source's classifier serves three arms, its autoencoder three.
ARMS = (
    Arm("pixels", False, 1.0),
    Arm("random", False, 1.0),
    Arm("source", False, 15.0),
    Arm("adapted", False, 20.0),
    Arm("autoencoder", False, 15.0),
    Arm("autoencoder+", False, 8.0),
    Arm("own autoencoder", False, 8.0),
    Arm("scratch", True, 4.0),
    Arm("S→S", True, 3.0),
    Arm("U→S", True, 3.0),
)


class Nets(NamedTuple):
    """The networks of an experiment, made once, so that what they compile is compiled once.

    Attributes:
      source: a classifier of the source's classes.
      target: the same with a last layer for the target's; the very `source` where the classes have the same names.
      autoencoder: with the classifiers' layers but the last as its encoder.
      rebuild: what the autoencoder minimises.
      adapt: what deep adaptation minimises.
      features: the layer whose outputs are clustered: the last but one of the classifiers.
    """

    source: Network
    target: Network
    autoencoder: Network
    rebuild: Objective
    adapt: Objective
    features: str


def cells_of(settings: Pairings, rows: str) -> list[Cell]:
    """The grid: every arm of every seed.

    Args:
      settings: the settings.
      rows: a digest of the first seed's; the others follow from the same data.
    """
    kept = {name: value for name, value in workdir.plain(settings).items() if name not in NOT_THE_EXPERIMENT}
    about = json.dumps([kept, rows, VERSION], sort_keys=True)
    found = []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        own = {"seed": seed, "experiment": hashlib.sha256(about.encode()).hexdigest()[:12]}
        for arm in ARMS:
            for labels in settings.labels if arm.labelled else (0,):
                name = f"seed {seed} / {arm.name}" + (f" / {labels} labels" if labels else "")
                found.append(Cell(name, {**own, "arm": arm.name, "labels": labels}, arm.cost))
    return found


def load(settings: Pairings, seed: int) -> tuple[sources.Dataset, sources.Dataset, str]:
    """A seed's source and target in the source's format, and what was done to bring them there."""
    source, target = (
        sources.load(data, seed=seed, data_dir=settings.data_dir) for data in (settings.source, settings.target)
    )
    return sources.common_format(source, target)


def check_sizes(settings: Pairings, target: sources.Dataset) -> None:
    """Refuses more clusters than rows, and fewer labels than classes or more than rows."""
    rows, classes = len(target.train_y), len(target.class_names)
    clusters = settings.clusters or classes
    if clusters > rows:
        raise ValueError(
            f"clusters = {clusters}, but there are {rows} rows of {settings.target.name} to cluster; ask for at most so many"
        )
    for labels in settings.labels:
        if not classes <= labels <= rows:
            raise ValueError(
                f"labels = {labels}, but {settings.target.name} has {classes} classes and {rows} training rows; expected "
                f"{classes} … {rows}: a label a class at least, and no more than there are rows"
            )


def build(settings: Pairings, source: sources.Dataset, target: sources.Dataset) -> Nets:
    """The networks.

    Raises:
      ValueError: settings that do not fit the data, or each other.
    """
    model, example = settings.model, source.train_x[:1]
    preprocess = networks.preprocessing(model, image=example.dtype == np.uint8)
    of_source = networks.build(model, len(source.class_names), example)
    same = source.class_names == target.class_names
    of_target = of_source if same else networks.build(model, len(target.class_names), example)
    base = cnn8_base(model.width) if model.name == "cnn8" else mlp_base(model.hidden)
    rebuilding = preprocessed(autoencoder(base, example.shape[1:], hidden=settings.decoder), preprocess)
    adapt = adaptation(adapted_layers(settings, of_source), weight=settings.weight)
    one = Rows(np.stack([example.repeat(2, 0)] * 2, axis=1), np.zeros(2, np.int32))
    adapt.check(of_source, one)
    return Nets(of_source, of_target, rebuilding, reconstruction(preprocess), adapt, of_source.layers[-2])


def adapted_layers(settings: Pairings, network: Network) -> tuple[str, ...]:
    """The layers whose MMD² deep adaptation makes small."""
    return settings.adapted or network.layers[network.num_base :]


class Seed:
    """One seed's rows and the networks that its arms share, each trained when it is first asked for."""

    def __init__(self, settings: Pairings, nets: Nets, number: int) -> None:
        self.settings, self.nets, self.number = settings, nets, number
        source, target, _ = load(settings, number)
        check_sizes(settings, target)
        self.source, self.source_test = Rows(source.train_x, source.train_y), Rows(source.test_x, source.test_y)
        self.target, self.test = Rows(target.train_x, target.train_y), Rows(target.test_x, target.test_y)
        self.same_classes = source.class_names == target.class_names
        self.num_classes = len(target.class_names)
        names = ("fresh", "source", "autoencoder", "unlabelled", "few")
        self.keys = dict(zip(names, jax.random.split(jax.random.key(number), len(names)), strict=True))

    @functools.cached_property
    def fresh(self) -> Variables:
        """The classifier before training; deep adaptation starts from it too, and sees the same batches of the source."""
        return jax.jit(self.nets.source.init)(self.keys["fresh"], jnp.asarray(self.source.x[:1]))

    @functools.cached_property
    def classifier(self) -> Variables:
        """Trained on the source with labels."""
        return train(self.keys["source"], self.nets.source, self.fresh, self.source, self.settings.pretrain)

    @functools.cached_property
    def rebuilder(self) -> Variables:
        """The autoencoder, trained on the source without labels."""
        nets = self.nets
        return train(
            self.keys["autoencoder"],
            nets.autoencoder,
            None,
            self.source,
            self.settings.pretrain,
            objective=nets.rebuild,
        )

    def rebuild(self, variables: Variables | None) -> Variables:
        """The autoencoder, trained on the target without labels: further, or from scratch."""
        key, network, fit = self.keys["unlabelled"], self.nets.autoencoder, self.settings.unlabelled
        return train(key, network, variables, self.target, fit, objective=self.nets.rebuild)

    def labelled(self, count: int) -> Rows:
        """So many target rows with their labels, the same for every arm."""
        random = np.random.default_rng([self.number, count, *b"labels"])
        chosen = stratified(self.target.y, count, random, "labels")
        return Rows(self.target.x[chosen], self.target.y[chosen])


def run(seed: Seed, arm: str, labels: int) -> dict[str, Any]:
    """What an arm reaches on the target: {"accuracy"} on its test rows, {"ari", "nmi"} on its rows without labels.

    Raises:
      NonFiniteLossError: a loss became NaN or infinite.
    """
    nets, settings = seed.nets, seed.settings
    if arm == "pixels":
        return cluster(
            seed,
            networks.preprocessing(settings.model, image=seed.target.x.dtype == np.uint8)(jnp.asarray(seed.target.x)),
        )
    if arm == "random":
        return cluster(seed, features(seed, nets.source, seed.fresh))
    if arm == "source":
        return classified(seed, seed.classifier) | cluster(seed, features(seed, nets.source, seed.classifier))
    if arm == "adapted":
        rows = paired(seed.source, seed.target.x, np.random.default_rng([seed.number, *b"pairs"]))
        found = train(seed.keys["source"], nets.source, seed.fresh, rows, settings.pretrain, objective=nets.adapt)
        return classified(seed, found) | cluster(seed, features(seed, nets.source, found))
    if arm in ("autoencoder", "autoencoder+", "own autoencoder"):
        found = seed.rebuild(None) if arm == "own autoencoder" else seed.rebuilder
        found = seed.rebuild(found) if arm == "autoencoder+" else found
        explained = nets.rebuild.validate(nets.autoencoder, found, seed.test)["explained"]
        return cluster(seed, features(seed, nets.autoencoder, found)) | {"explained": explained}
    start = {"scratch": lambda: None, "S→S": lambda: seed.classifier, "U→S": lambda: seed.rebuilder}[arm]()
    rows = seed.labelled(labels)
    found = train(seed.keys["few"], nets.target, start, rows, settings.few, new=nets.target.layers[-1:])
    return {
        "accuracy": validate(nets.target, found, seed.test)["accuracy"],
        "train": validate(nets.target, found, rows),
    }


def train(
    key: jax.Array,
    network: Network,
    variables: Variables | None,
    rows: Rows,
    fit: Fit,
    *,
    objective: Objective = CLASSIFICATION,
    new: tuple[str, ...] = (),
) -> Variables:
    """All layers trained for a fixed number of epochs, `new` ones (all, where there are no variables) from fresh weights."""
    new = network.layers if variables is None else new
    stage = Stage((), tuple((name, 1.0) for name in network.layers), new)
    recipe = Recipe(
        epochs=fit.epochs,
        batch_size=fit.batch_size,
        optimizer=fit.optimizer,
        weight_decay=fit.weight_decay,
        clip_norm=fit.clip_norm,
        schedule=fit.schedule,
    )
    objective.check(network, rows)
    prepared = finetune.prepare(key, network, variables or {}, stage, rows, None, recipe=recipe, objective=objective)
    start = finetune.begin_fit(network, prepared, learning_rate=fit.learning_rate, recipe=recipe, objective=objective)
    *_, (last, _) = finetune.fit(network, prepared, start, recipe=recipe, objective=objective)
    return last.best


def features(seed: Seed, network: Network, variables: Variables) -> np.ndarray:
    """The outputs that are clustered, of the target's rows without labels, [n, d]."""
    return layer_features(network, variables, seed.target.x, pooling="flatten")[seed.nets.features]


def cluster(seed: Seed, rows: Any) -> dict[str, float]:
    """{"ari", "nmi"} of k-means on the target's training rows, whose labels nothing has seen before."""
    count = seed.settings.clusters or seed.num_classes
    found = clustered(np.asarray(rows), count, seed=seed.number, restarts=seed.settings.restarts)
    return agreement(seed.target.y, found)


def classified(seed: Seed, variables: Variables) -> dict[str, Any]:
    """How the source's own classes fit the target, where they are the same; and how far apart the held-out rows of both are."""
    network, layer = seed.nets.source, seed.nets.features
    source, target = (
        layer_features(network, variables, rows.x[:TEST_ROWS], pooling="flatten")[layer]
        for rows in (seed.source_test, seed.test)
    )
    found: dict[str, Any] = {
        "source_accuracy": validate(network, variables, seed.source_test)["accuracy"],
        "mmd2": float(mmd2_unbiased(source, target)),
    }
    if seed.same_classes:
        found["accuracy"] = validate(network, variables, seed.test)["accuracy"]
    return found
