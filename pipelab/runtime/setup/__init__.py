"""From a model to what runs: stages, their devices, micro-batches and optimizers, checked before anything starts."""
