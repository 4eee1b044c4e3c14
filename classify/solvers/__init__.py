"""Solvers: the ways in which a head is fitted."""
