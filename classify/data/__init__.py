"""From a store to what a head is fitted on: rows, targets, matrices."""
