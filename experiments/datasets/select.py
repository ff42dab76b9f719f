"""Which rows: a test split where there is none, disjoint parts, limits by class, and the checks of what is left."""

import numpy as np

from experiments import config


def split_rows(
    labels: np.ndarray, groups: np.ndarray | None, *, fraction: float, seed: int, name: str = "the training data"
) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows in two, to hold some out: stratified by class, or by whole groups.

    Args:
      labels: shape [n].
      groups: shape [n]; no group is split; None: rows are split.
      fraction: share of the rows (of the groups) that is held out.
      seed: the same seed gives the same split.
      name: of the data, for errors.

    Returns:
      Sorted indices of the rows that are kept, and of those that are held out.

    Raises:
      ValueError: there are too few rows or groups.
    """
    if len(labels) < 2:
        raise ValueError(f"{name} has {'a single row' if len(labels) else 'no rows'}: too few to hold any out")
    if groups is not None:
        return _split_groups(labels, groups, fraction, seed, name)
    from sklearn.model_selection import train_test_split

    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # A class of one row can't be on both sides: it is kept.
    several = np.flatnonzero(counts[inverse] > 1)
    if len(several) == 0:
        raise ValueError(f"{name} has one row of each class: too few to hold any out")
    num_classes = np.count_nonzero(counts > 1)
    num_held = int(np.clip(round(fraction * len(labels)), num_classes, len(several) - num_classes))
    kept, held = train_test_split(several, test_size=num_held, stratify=labels[several], random_state=seed)
    return np.sort(np.concatenate([kept, np.flatnonzero(counts[inverse] == 1)])), np.sort(held)


def part_of(
    rows: np.ndarray, groups: np.ndarray | None, part: tuple[int, int], random: np.random.Generator
) -> np.ndarray:
    """The i-th of k disjoint random parts of the rows (of the groups): their union is all rows.

    Args:
      rows: shape [n].
      groups: shape [n], or None.
      part: (i, k).
      random: consumed; the same state gives disjoint parts for different i.
    """
    i, k = part
    if groups is None:
        return np.sort(np.array_split(random.permutation(rows), k)[i])
    return rows[np.isin(groups, np.array_split(random.permutation(np.unique(groups)), k)[i])]


def stratified(labels: np.ndarray, count: int, random: np.random.Generator, what: str) -> np.ndarray:
    """Chooses `count` rows in proportion to the classes, at least one of each.

    Unlike scikit-learn's, this works for classes of one row and for any number of rows left over.

    Args:
      labels: shape [n], n >= count.
      count: how many rows.
      random: consumed.
      what: names the setting in the error.

    Returns:
      Sorted indices, shape [count].

    Raises:
      ValueError: there are more classes than rows asked for.
    """
    classes, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if count < len(classes):
        raise ValueError(f"{what}: {count} rows can't hold the {len(classes)} classes; ask for at least {len(classes)}")
    # One row each, the others in proportion to what is left of each class: never more than the class has.
    share = (
        np.zeros(len(classes)) if count == len(classes) else (count - len(classes)) * (sizes - 1) / (sizes - 1).sum()
    )
    quota = 1 + np.floor(share).astype(int)
    largest = np.argsort(-(share - np.floor(share)), kind="stable")
    quota[largest[: count - quota.sum()]] += 1
    chosen = [random.permutation(np.flatnonzero(inverse == c))[: quota[c]] for c in range(len(classes))]
    return np.sort(np.concatenate(chosen))


def of_each_class(labels: np.ndarray, count: int, random: np.random.Generator, what: str) -> np.ndarray:
    """Chooses `count` rows of each class that there are.

    Args:
      labels: shape [n].
      count: rows a class.
      random: consumed.
      what: names the setting in the error.

    Returns:
      Sorted indices, shape [count · classes].

    Raises:
      ValueError: a class has fewer.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    if len(classes) and sizes.min() < count:
        raise ValueError(f"{what} = {count}, but the smallest class has {sizes.min()} rows; ask for at most so many")
    chosen = [random.permutation(np.flatnonzero(labels == c))[:count] for c in classes]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, int)


def check_rows(train_y: np.ndarray, test_y: np.ndarray, class_names: tuple[str, ...], data: config.Data) -> None:
    """Refuses what no network can be trained or tested on.

    Args:
      train_y, test_y: labels as indices into `class_names`.
      class_names: the classes that were chosen.
      data: the settings, for errors.

    Raises:
      ValueError: no rows, one row, one class, or a class that is tested but not trained on.
    """
    settings = [
        f"{k} = {v}"
        for k in ("classes", "part", "limit", "test_limit", "per_class", "test_per_class")
        if (v := getattr(data, k))
    ]
    after = f" after {', '.join(settings)}" if settings else ""
    for kind, y in (("training", train_y), ("test", test_y)):
        if len(y) == 0:
            raise ValueError(f"{data.name} has no {kind} rows{after}")
    if len(train_y) == 1:
        raise ValueError(f"{data.name} has a single training row{after}: nothing can be learnt or tested with it")
    trained = np.unique(train_y)
    if len(trained) == 1:
        raise ValueError(
            f"{data.name} has a single class, {class_names[trained[0]]!r}, in its training rows{after}: "
            "a classifier needs two or more"
        )
    if untrained := [class_names[c] for c in np.setdiff1d(test_y, trained)]:
        raise ValueError(
            f"{data.name} has test rows of classes that have no training rows{after}: {', '.join(untrained)}"
        )
    if data.classes and (empty := [n for c, n in enumerate(class_names) if c not in trained]):
        raise ValueError(f"{data.name} has no training rows{after} of the classes {', '.join(empty)}")


def _split_groups(
    labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import GroupShuffleSplit

    num_groups = len(np.unique(groups))
    if num_groups < 2:
        raise ValueError(f"{name} has {num_groups} group: at least two are needed to hold one out")
    num_held = int(np.clip(round(fraction * num_groups), 1, num_groups - 1))
    num_classes = len(np.unique(labels))
    # Groups are split without a look at classes: of a fixed series of random splits, the first that keeps as many
    # classes as can be, and then holds out as many.
    best, most = (np.empty(0, int), np.empty(0, int)), (-1, -1)
    for kept, held in GroupShuffleSplit(100, test_size=num_held, random_state=seed).split(labels, labels, groups):
        covered = len(np.unique(labels[kept])), len(np.unique(labels[held]))
        if covered > most:
            best, most = (np.sort(kept), np.sort(held)), covered
        if covered == (num_classes, num_classes):
            break
    return best
