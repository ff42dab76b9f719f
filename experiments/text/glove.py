"""GloVe's vectors, from the package's own files: an array of numbers and a table of words, read as data."""

from pathlib import Path

import numpy as np

EMBEDDINGS = "glove_6B_50d_emb.npy"
INDEX = "glove_6B_index.parquet"


def read_glove(data_dir: Path, words: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of some words.

    Args:
      data_dir: where `experiments.download` put the data.
      words: which words, in lower case.

    Returns:
      ([len(words), 50] float32, 0 for words that GloVe lacks, and which words it has, bool).

    Raises:
      FileNotFoundError: the files aren't there; says how to get them.
      ValueError: pyarrow is not installed, or the files are not what they should be.
    """
    folder = data_dir / "raw" / "glove"
    for file in (EMBEDDINGS, INDEX):
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"GloVe's vectors are not at {folder / file}; fetch them with "
                f"`python -m experiments.download --data-dir {data_dir} glove`, or set glove to False"
            )
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("GloVe's table of words needs pyarrow, which is not installed: pip install pyarrow") from error
    try:
        known = pyarrow.parquet.read_table(folder / INDEX, columns=["index"]).column("index").to_pylist()
        vectors = np.load(folder / EMBEDDINGS, mmap_mode="r", allow_pickle=False)
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(
            f"GloVe's files in {folder} can't be read ({error}); delete the folder and fetch it again"
        ) from error
    if vectors.ndim != 2 or len(known) != len(vectors):
        raise ValueError(
            f"GloVe's files in {folder} don't belong together: {len(known)} words, vectors {vectors.shape}"
        )
    row_of = {word: row for row, word in enumerate(known)}
    rows = np.array([row_of.get(word, -1) for word in words])
    found = np.zeros((len(words), vectors.shape[1]), np.float32)
    found[rows >= 0] = vectors[rows[rows >= 0]]
    return found, rows >= 0
