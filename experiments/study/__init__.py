"""What `experiments.transferability` is made of: splits of the classes, networks, and the statistics of their accuracies."""
