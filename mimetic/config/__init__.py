"""The mechanism of the language: YAML with positions, components, errors. It knows no component. No torch."""
