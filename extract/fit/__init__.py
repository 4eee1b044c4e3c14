"""``extract fit``: train an encoder on the pixels of a corpus."""
