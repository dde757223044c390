"""The pure middle: a slab of frames becomes slices, within the memory that there is."""
