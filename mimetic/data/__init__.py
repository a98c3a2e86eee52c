"""Images, loaded as uint8 in memory, split, and augmented in batches on the device; token sequences."""
