"""Groups of rows without a look at labels, and how well they agree with the classes. Both from scikit-learn."""

import numpy as np


def clustered(features: np.ndarray, num_clusters: int, *, seed: int, restarts: int = 10) -> np.ndarray:
    """The cluster of each row by k-means, int [n].

    Args:
      features: shape [n, ...]; flattened, not rescaled.
      num_clusters: at most n.
      seed: of the initial centres.
      restarts: from other centres; the clustering with the least spread is kept.

    Raises:
      ValueError: more clusters than rows, or numbers that are not finite.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if not 1 <= num_clusters <= len(features):
        raise ValueError(
            f"{num_clusters} clusters of {len(features)} rows can't be made; expected 1 … {len(features)} clusters, or more rows"
        )
    rows = np.asarray(features, np.float64).reshape(len(features), -1)
    if not np.isfinite(rows).all():
        raise ValueError(
            f"{int((~np.isfinite(rows)).any(axis=1).sum())} of {len(rows)} rows to cluster hold NaN or infinite numbers"
        )
    # One thread: sums then have one order on every machine, and threads that wait for each other where cores are shared are slow.
    with threadpool_limits(1):
        return KMeans(num_clusters, n_init=restarts, random_state=seed).fit_predict(rows)


def agreement(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """How well clusters agree with classes: {"ari", "nmi"}, both 1 for the very classes.

    "ari" is the adjusted Rand index (0 on average for random clusters; Hubert and Arabie 1985), "nmi" the mutual information over
    the arithmetic mean of the entropies (0 … 1, not adjusted for chance).

    >>> agreement(np.array([0, 0, 1, 1]), np.array([5, 5, 3, 3]))
    {'ari': 1.0, 'nmi': 1.0}
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "ari": float(adjusted_rand_score(labels, clusters)),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
    }
