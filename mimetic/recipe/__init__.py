"""The sections of a recipe, and how it is loaded, composed and validated. No torch."""
