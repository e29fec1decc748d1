"""Commands: most in this process with a recognizer that only pretends, a few as real processes."""
