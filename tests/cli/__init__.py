"""Commands: most run in this process with a fake recognizer, a few as processes."""
