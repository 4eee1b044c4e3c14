"""Behaviour through the public face, and benches; never installed."""
