"""A checkpoint becomes a model, a model gives logits and activations."""
