"""The model: contracts for components, the stack, the language model, and its accounting."""
