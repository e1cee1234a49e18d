"""Text becomes a batch of prompts, each with two answers."""
