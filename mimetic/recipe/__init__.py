"""What a recipe says, and how it is read, composed and validated. No torch."""
