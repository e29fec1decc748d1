"""Functions on arrays of samples: decode, resample, log-mel."""
