"""Training of the project's own tiny model: data, synthesis, losses, evaluation and the loop."""
