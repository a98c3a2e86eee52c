"""Turn pydantic errors into messages with positions and repairs."""
