"""Stage 1: images to vectors of frozen networks, written once into dumps (``extract run CORPUS``)."""
