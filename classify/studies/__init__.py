"""Experiments of many fits: ablations, sweeps, searches, learning curves; tests on other corpora; published systems."""
