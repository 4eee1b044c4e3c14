"""One run: train a head, evaluate it, and keep both in a folder."""
