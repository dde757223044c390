"""From reconstructed slices to denoised ones: arrays in, arrays out."""
