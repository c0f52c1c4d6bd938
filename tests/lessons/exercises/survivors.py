"""Mutants that no check can tell from the package's code, by exercise and by the reason why they compute the same."""

SURVIVORS: dict[str, dict[str, list[str]]] = {}
