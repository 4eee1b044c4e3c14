"""Explanations of what a head predicts for one image."""
