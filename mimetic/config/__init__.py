"""The mechanism of the recipe language: YAML with positions, the registry of components, errors. No torch."""
