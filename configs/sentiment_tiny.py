"""The smallest study that goes through everything: sentences embedded in the code, in seconds. It shows nothing.

python -m experiments.sentiment --config configs/sentiment_tiny.py
"""

from experiments.words.settings import Domains, Fit, Study, Text, Vectors

config = Study(
    name="sentiment_tiny",
    text=Text(rated="embedded", test=20, validation=0, pool=20),
    vectors=Vectors(sizes=(20, 0), min_counts=(1, 1), epochs=(5, 5), dim=8, batch_size=256, copies=2),
    fit=Fit(hidden=8, epochs=10),
    domains=Domains(names=("embedded_products",), labels=(4,), draws=3, permutations=99),
    labels=(4, 8),
    glove=False,
    draws=4,
)
