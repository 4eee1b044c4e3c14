"""Figures: the charts of runs and studies, as SVG whose colours follow the page's theme."""
