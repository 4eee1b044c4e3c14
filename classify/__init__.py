"""Train shallow heads on the vectors of a feature store, and show how good they are."""
