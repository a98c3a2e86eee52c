"""Networks: our own, those of torchvision and timm by name, and the user's own code."""
