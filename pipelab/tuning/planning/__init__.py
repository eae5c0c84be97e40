"""Where to cut a model, and on which devices, from what each layer costs."""
