"""The commands of ``classify``."""
