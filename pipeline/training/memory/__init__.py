"""Training of an explicit memory: examples with their entries, and the losses of its fusion and its router."""
