"""What `experiments.pairings` is made of: networks of one source and one target, clusters, and the statistics over seeds."""
