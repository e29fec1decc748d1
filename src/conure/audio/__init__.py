"""Audio to samples and features: containers, live decoding, resampling, log-mel."""
