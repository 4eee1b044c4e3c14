"""Experiments of many fits: ablations, sweeps, searches, curves, other corpora."""
