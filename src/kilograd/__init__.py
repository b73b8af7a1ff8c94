"""kilograd: train your neural network on your microcontroller."""
