"""The makers of layouts, by corpus."""

from __future__ import annotations

import layouts_emotions  # noqa: F401  enters its makers into the table
import layouts_ratings  # noqa: F401
