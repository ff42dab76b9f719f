"""What frozen layers make of rows, kept on disk from run to run."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from experiments.cache import cached, fingerprint
from mmd_jax.models import leaves
from mmd_jax.models.layered import Network
from mmd_jax.transfer.finetune import Keep
from mmd_jax.transfer.freezing import leaf_hash
from mmd_jax.transfer.prefix import num_prefix
from mmd_jax.types import Rows, Stage, Variables

# (network, variables, stage) -> how the outputs of its frozen prefix are kept.
KeepFor = Callable[[Network, Variables, Stage], Keep]


def on_disk(directory: Path, about: object, *, precision: str) -> KeepFor:
    """Keeps outputs under the fingerprint of all that they are a function of: where anything differs, another is looked for.

    That is: the weights of the frozen prefix, its layers' names, the rows, the precision, `about`, and this library's
    version. A file that is damaged is made again; all files may be deleted at any time.

    Args:
      directory: of the files.
      about: what else they depend on, by its repr: the kind of network and its preprocessing.
      precision: of the computation.
    """

    def keep_for(network: Network, variables: Variables, stage: Stage) -> Keep:
        prefix = network.layers[: num_prefix(network, stage)]
        weights = [(path, leaf_hash(leaf)) for path, leaf in leaves.take(variables, prefix).items()]

        def keep(compute: Callable[[Rows], Rows], rows: Rows) -> Rows:
            key = fingerprint("outputs", version("mmd_jax"), about, precision, prefix, weights, rows.x)
            return Rows(cached(directory, key, lambda: {"x": compute(rows).x})["x"], rows.y)

        return keep

    return keep_for
