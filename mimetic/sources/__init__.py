"""The trained networks and data that a recipe initializes from."""
