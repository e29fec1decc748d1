"""Communication with an engine process: frames, messages, a ring of samples in shared memory, and transports."""
