"""TensorBoard as a plugin."""
