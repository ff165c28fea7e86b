"""The data plane: what passes, byte for byte, and what does not."""
