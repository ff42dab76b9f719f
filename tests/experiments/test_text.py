"""Sentences: words, numbers, pairs, and files that can't be used."""

import io
import tarfile

import numpy as np
import pytest

from experiments.text import embedded, glove
from experiments.text.sentences import read_rated, read_unlabelled
from experiments.text.tokens import STOP_WORDS, encode, near_pairs, tokens, vocabulary


def test_words_are_cut_as_users_expect():
    assert tokens("The film isn’t GOOD, is it?! 10/10 http://a.b/c ÉCLAIR_x") == (
        ["the", "film", "isn't", "good", "is", "it", "éclair", "x"]
    )
    assert tokens("the film is not good", STOP_WORDS["english"]) == ["film", "not", "good"]
    assert tokens("... 42 :-)") == []


def test_rare_words_have_no_number_and_unknown_ones_are_left_out():
    known = vocabulary([["b", "a", "a"], ["c", "a", "b"]], min_count=2)
    assert known.words == ("a", "b") and known.counts.tolist() == [3, 2]
    assert encode([["a", "c", "b"], [], ["zzz"]], known).tolist() == [[1, 2], [0, 0], [0, 0]]
    assert encode([[]], known).shape == (1, 1)
    with pytest.raises(
        ValueError, match=r"no word is in the vocabulary: 1 different words were read, none of them 5 times"
    ):
        vocabulary([["a"]], min_count=5)


def test_near_pairs_are_those_of_a_loop():
    random = np.random.default_rng(0)
    x = random.integers(0, 5, size=(6, 9)).astype(np.int32)
    for window in (1, 3, 20):
        expected = sorted(
            (int(row[i]), int(row[j]))
            for row in x
            for i in range(9)
            for j in range(9)
            if i != j and abs(i - j) <= window and row[i] and row[j]
        )
        assert sorted(map(tuple, near_pairs(x, window).tolist())) == expected
    assert near_pairs(np.array([[3], [0]]), 5).shape == (0, 2)


def test_the_embedded_sentences_have_both_classes_and_documents():
    films, products = (read_rated(name, None) for name in embedded.DOMAINS)
    assert films.documents is None and np.bincount(films.labels).tolist() == [40, 40]
    assert films.texts[0].startswith("a warm") and films.classes[films.labels[0]] == "positive"
    assert len(np.unique(products.documents)) == 12 < len(products.texts)
    assert len(set(films.texts)) == 80


def test_a_file_of_one_s_own(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_bytes("\ufeffgood\ta fine day\r\nbad\tnaïve tab\there\r\n\r\n".encode())
    found = read_rated(str(file), tmp_path)
    assert found.texts == ("a fine day", "naïve tab\there") and found.classes == ("bad", "good")
    assert found.labels.tolist() == [1, 0]
    lines = tmp_path / "lines.txt"
    lines.write_text("one\n\n  two \n")
    assert read_unlabelled(lines) == ("one", "two")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"good\tfine\nbad\tna\xefve\n", r"not UTF-8: byte 0xef in line 2"),
        (b"good\tfine\nbad\t  \n", r"line 2 of .* has the label 'bad' and an empty sentence"),
        (b"good fine\n", r"line 1 of .* is 'good fine'; expected label<TAB>text"),
        (b"good\ta\ngood\tb\n", r"label \('good',\); expected at least two"),
        (b"\n", r"is empty"),
    ],
)
def test_a_file_that_can_t_be_used_is_named_with_its_line(tmp_path, content, message):
    file = tmp_path / "mine.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_rated(str(file), tmp_path)


def test_unlabelled_text_that_can_t_be_used(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_unlabelled(tmp_path / "none.txt")
    (tmp_path / "blank.txt").write_text("\n  \n")
    with pytest.raises(ValueError, match="all of its lines are empty"):
        read_unlabelled(tmp_path / "blank.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_unlabelled(tmp_path / "latin.txt")


def packed(tmp_path, lines, name="amazonReviewSnippets_GroundTruth.txt"):
    folder = tmp_path / "raw" / "vader"
    folder.mkdir(parents=True)
    content = "\r\n".join(lines).encode()
    with tarfile.open(folder / "hutto_ICWSM_2014.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return tmp_path


def test_the_archive_s_ratings_become_labels_and_its_ids_documents(tmp_path):
    data = packed(tmp_path, ["7_1\t-0.9\tbad", "7_2\t0.49\tso so", "12_1\t0.5\tgood", "12_2\t3.1\tbest", ""])
    found = read_rated("amazon", data)
    assert found.labels.tolist() == [0, -1, 1, 1] and found.classes == ("negative", "positive")
    assert found.documents[0] == found.documents[1] != found.documents[2] == found.documents[3]
    with pytest.raises(ValueError, match=r"can't be read"):
        read_rated("nyt", data)  # not in this archive


def test_an_archive_that_is_missing_or_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"experiments\.download --data-dir .* vader"):
        read_rated("movie", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"by name there are embedded, .*movie"):
        read_rated("movies", tmp_path)
    data = packed(tmp_path, ["1_1\tgood"])
    with pytest.raises(ValueError, match=r"line 1 of .* is not id, rating, text"):
        read_rated("amazon", data)
    path = data / "raw" / "vader" / "hutto_ICWSM_2014.tar.gz"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="can't be read"):
        read_rated("amazon", data)


def test_glove_gives_the_vectors_of_the_words_it_has(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    folder = tmp_path / "raw" / "glove"
    with pytest.raises(FileNotFoundError, match=r"experiments\.download .* glove"):
        glove.read_glove(tmp_path, ("a",))
    folder.mkdir(parents=True)
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(folder / glove.EMBEDDINGS, vectors)
    parquet.write_table(arrow.table({"index": ["the", "film", "good"]}), folder / glove.INDEX)
    found, known = glove.read_glove(tmp_path, ("good", "qqq", "the"))
    assert known.tolist() == [True, False, True]
    assert found.tolist() == [[4, 5], [0, 0], [0, 1]]
    np.save(folder / glove.EMBEDDINGS, vectors[:2])
    with pytest.raises(ValueError, match="don't belong together"):
        glove.read_glove(tmp_path, ("good",))
    np.save(folder / glove.EMBEDDINGS, np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="can't be read"):
        glove.read_glove(tmp_path, ("good",))
