"""Files and names → sentences: rated ones with labels and documents, and lines of text without."""

import io
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.text import embedded

# Of the archive's ratings in [−4, 4], those nearer to 0 say neither good nor bad.
LEAST_RATING = 0.5
ARCHIVE = "hutto_ICWSM_2014"
# name -> (its file in the archive, whether the id before "_" names a document that several rows share).
RATED = {
    "movie": ("movieReviewSnippets_GroundTruth.txt", False),
    "amazon": ("amazonReviewSnippets_GroundTruth.txt", True),
    "tweets": ("tweets_GroundTruth.txt", False),
    "nyt": ("nytEditorialSnippets_GroundTruth.txt", True),
}
CLASSES = ("negative", "positive")


class Rated(NamedTuple):
    """Sentences with labels.

    Attributes:
      texts: the sentences.
      labels: the class of each, numbers from 0 in the order of `classes`; −1 for a sentence that has none. Shape [n].
      documents: the document of each, numbers from 0; none where every sentence is its own. Shape [n].
      classes: names of the classes.
    """

    texts: tuple[str, ...]
    labels: np.ndarray
    documents: np.ndarray | None
    classes: tuple[str, ...]


def read_rated(name: str, data_dir: Path) -> Rated:
    """A domain of rated sentences: movie, amazon, tweets, nyt, one that is embedded here, or a file of your own.

    Raises:
      FileNotFoundError: it isn't there; says how to get it.
      ValueError: a file that is not UTF-8 or not `label<TAB>text` a line, an empty sentence, fewer than two classes.
    """
    if name in embedded.DOMAINS:
        rows = [line.split("\t") for line in embedded.DOMAINS[name]]
        return _labelled(rows, grouped=len({document for document, _, _ in rows}) < len(rows), classes=CLASSES)
    if name in RATED:
        return _from_archive(name, data_dir)
    path = Path(name).expanduser()
    if not path.is_file():
        known = ", ".join([*embedded.DOMAINS, *RATED])
        raise FileNotFoundError(f"no sentences at {name}: no such file; by name there are {known}")
    rows = []
    for number, line in lines_of(path):
        label, tab, text = line.partition("\t")
        if not tab or not label.strip():
            raise ValueError(f"line {number} of {path} is {line[:60]!r}; expected label<TAB>text")
        if not text.strip():
            raise ValueError(f"line {number} of {path} has the label {label!r} and an empty sentence; remove the line")
        rows.append(["", label.strip(), text.strip()])
    if not rows:
        raise ValueError(f"{path} is empty; expected label<TAB>text on each line")
    return _labelled(rows, grouped=False)


def read_unlabelled(path: Path) -> tuple[str, ...]:
    """The lines of a text file that are not blank.

    Raises:
      FileNotFoundError: it isn't there.
      ValueError: it is not UTF-8, or all of it is blank.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no sentences at {path}: no such file")
    found = tuple(line.strip() for _, line in lines_of(path) if line.strip())
    if not found:
        raise ValueError(f"{path} has no sentence in it: all of its lines are empty")
    return found


def lines_of(path: Path) -> list[tuple[int, str]]:
    """(number from 1, line) of a text file in UTF-8; blank lines at its end are left out.

    Raises:
      ValueError: it is not UTF-8; names the line.
    """
    lines = [line.rstrip("\r") for line in _decode(path.read_bytes(), str(path)).split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return list(enumerate(lines, start=1))


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name} is not UTF-8: byte 0x{content[error.start]:02x} in line {line}; save it as UTF-8 "
            "(iconv -t UTF-8 does it)"
        ) from None


def _from_archive(name: str, data_dir: Path) -> Rated:
    path = data_dir / "raw" / "vader" / f"{ARCHIVE}.tar.gz"
    if not path.is_file():
        raise FileNotFoundError(
            f"the rated sentences of {name!r} are not at {path}; fetch them with "
            f"`python -m experiments.download --data-dir {data_dir} vader`, or take the embedded ones (rated = embedded)"
        )
    file, grouped = RATED[name]
    try:
        with tarfile.open(path) as archive:
            member = archive.extractfile(f"{ARCHIVE}/{file}")
            content = b"" if member is None else member.read()
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise ValueError(f"{path} can't be read ({error}); delete raw/vader and fetch it again") from error
    rows = []
    for number, line in enumerate(io.StringIO(_decode(content, f"{file} in {path}")), start=1):
        if not line.strip():
            continue
        parts = line.rstrip("\r\n").split("\t")
        try:
            identity, rating, text = parts[0], float(parts[1]), parts[2]
        except (IndexError, ValueError) as error:
            raise ValueError(f"line {number} of {file} in {path} is not id, rating, text: {line[:60]!r}") from error
        label = "" if abs(rating) < LEAST_RATING else CLASSES[int(rating > 0)]
        rows.append([identity.partition("_")[0], label, text])
    return _labelled(rows, grouped=grouped, classes=CLASSES)


def _labelled(rows: list[list[str]], *, grouped: bool, classes: tuple[str, ...] = ()) -> Rated:
    """Rows of (document, label or nothing, text) as `Rated`."""
    labels = [label for _, label, _ in rows]
    classes = classes or tuple(sorted(set(labels) - {""}))
    if len(classes) < 2:
        raise ValueError(f"all sentences have the label {classes}; expected at least two different labels")
    numbers = np.array([classes.index(label) if label else -1 for label in labels])
    documents = np.unique([document for document, _, _ in rows], return_inverse=True)[1] if grouped else None
    return Rated(tuple(text for _, _, text in rows), numbers, documents, classes)
