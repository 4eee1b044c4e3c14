"""Image files: where they are, and how they become pixels."""
