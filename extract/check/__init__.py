"""``extract check``: what is wrong with a corpus."""
